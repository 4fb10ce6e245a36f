"""agentkit: the same plans through `Runtime.run`, each result durable before the next step begins."""

from __future__ import annotations

import asyncio
from typing import Any

import plan

from agentkit import Agent, Context, Runtime


async def advance(state: dict[str, Any]) -> dict[str, Any]:
    return plan.advanced(state)


class Work(Agent[int, int]):
    """Steps in lock step with the disk."""

    async def run(self, ctx: Context, input: int) -> int:
        state = plan.first_state()
        for _ in range(input):
            state = await ctx.step("advance", advance, state)
            await ctx.durable()
        return int(state["n"])


async def main() -> None:
    url, plans, at_once = plan.asked()
    async with Runtime(state=url, agents=[Work], concurrency=at_once) as runtime:
        await plan.measure("agentkit", plans, at_once, lambda name: runtime.run(Work, plan.STEPS, run_id=name))


asyncio.run(main())
