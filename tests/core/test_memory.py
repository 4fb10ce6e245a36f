"""What waits costs a row, not a task."""

from __future__ import annotations

import asyncio

import anyio.lowlevel
import trio

from agentkit import Agent, Context, Signal
from agentkit.testing import LocalRuntime, runtime

PARKED = 10_000


class Waits(Agent[int, int]):
    go = Signal(int)

    async def run(self, ctx: Context, n: int, /) -> int:
        return n + await ctx.wait_for(self.go)


def tasks(backend: str) -> int:
    if backend == "asyncio":
        return len(asyncio.all_tasks())
    return trio.lowlevel.current_statistics().tasks_living


async def parked(rt: LocalRuntime, n: int) -> None:
    await rt.submit_many(Waits, {f"r{i}": i for i in range(n)})
    await rt.settle()
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


async def test_ten_thousand_parked_runs_hold_no_task_no_slot_and_no_ticket(anyio_backend: str) -> None:
    async with runtime(agents=[Waits]) as rt:
        await parked(rt, 1)
        before = tasks(anyio_backend)
        await parked(rt, PARKED)
        assert tasks(anyio_backend) <= before
        assert rt.engine.active == {}
        assert all(d.ready + d.leased + d.delayed == 0 for d in (await rt.queue.depth()).values())
        await rt.handle("r7777", Waits).signal(Waits.go, 1)
        await rt.settle()
        assert await rt.handle("r7777", Waits).result() == 7778
