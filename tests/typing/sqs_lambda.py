"""(5) Serverless: an SQS-triggered Lambda continues runs; a schedule wakes timers and orphans."""

from agentkit import Agent, Context, Runtime
from agentkit_sqs import lambda_handler, tick_handler


async def fetch(url: str) -> str:
    return f"what {url} says"  # an HTTP client's call


class Digest(Agent[str, str]):
    async def run(self, ctx: Context, url: str) -> str:
        text = await ctx.step("fetch", fetch, url)
        await ctx.sleep(3600)
        return text[:100]


runtime = Runtime.from_env(agents=[Digest])  # no I/O here: cold start stays short
handler = lambda_handler(runtime, margin_s=15)  # parks at the next step before the deadline; partial batch failures
tick = tick_handler(runtime)  # EventBridge, every minute
