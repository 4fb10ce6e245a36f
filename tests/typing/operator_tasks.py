"""(8) Operator: stuck runs, dead letters, canary of version 4 while version 3 finishes."""

from pydantic import BaseModel

from agentkit import Agent, Context, Runtime


class In(BaseModel):
    x: int


class ReviewV3(Agent[In, str]):
    name = "review"
    version = "3"

    async def run(self, ctx: Context, doc: In) -> str:
        return "3"


class Review(Agent[In, str]):
    name = "review"
    version = "4"
    continues = ()  # ("3",) when today's code can read version 3 journals

    async def run(self, ctx: Context, doc: In) -> str:
        return "4"


runtime = Runtime.from_env(agents=[Review, ReviewV3])


async def stuck() -> None:
    async for run in runtime.runs(status="waiting", idle_s=3600):
        print(run.run_id, run.waiting_for, run.tenant)
        if run.waiting_for == "operator:file":
            await runtime.handle(run.run_id).resolve("file", "rerun")
    async for run in runtime.runs(status=["running", "queued"], idle_s=600):
        print(run.run_id, run.attempts, run.usage.usd)


async def costs(run_id: str) -> None:
    async for child in runtime.runs(parent=run_id):
        print(child.run_id, child.usage.input_tokens, child.usage.output_tokens)
    print((await runtime.handle(run_id).usage()).usd)


async def dead() -> None:
    async for t in runtime.queue.dead(agent="review"):
        print(t.run_id, t.reason, t.attempts)
    print(await runtime.queue.redrive(agent="review"))
    for kind, depth in (await runtime.queue.depth()).items():
        print(kind, depth.ready, depth.leased, depth.oldest_s)


async def canary() -> None:
    await runtime.rollout(Review, {"3": 90, "4": 10})
    left = [r.run_id async for r in runtime.runs(agent="review", version="3", status=["queued", "running", "waiting"])]
    print(len(left))
    await runtime.fork(left[0], at="file")
