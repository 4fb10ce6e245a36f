"""agentkit: a durable run for each task, by `Runtime.submit` and `Runtime.work`, as `agentkit worker`; state and queue on one server."""

from __future__ import annotations

import asyncio
from typing import Any

import tasks

from agentkit import Agent, Context, Runtime

tally = tasks.Tally(tasks.asked()[1])


class Nothing(Agent[dict[str, Any], int]):
    """A run without a step; its start and its end are durable."""

    async def run(self, ctx: Context, input: dict[str, Any]) -> int:
        tally.did()
        return len(input)


async def main() -> None:
    url, _, at_once = tasks.asked()
    runtime = Runtime(state=url, agents=[Nothing])
    async with runtime:
        put_rate = await tasks.put_all(tally.all, lambda number: runtime.submit(Nothing, tasks.PAYLOAD, run_id=f"task-{number}"))
    await tasks.drain("agentkit, durable runs", put_rate, tally, runtime.work(concurrency=at_once))


asyncio.run(main())
