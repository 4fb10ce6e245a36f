"""What the soak runs: jobs of every kind, whose results can be told beforehand."""

from __future__ import annotations

import time
from functools import partial

import anyio

from agentkit import Agent, Context, Done, Runtime, Signal, StepContext
from tests.system.app import effects_here

EFFECT_TIMEOUT_S = 4.0  # longer than a worker stands still that keeps its lease; a probe waits for it
CHILDREN = 3
ONCE = ("probed", "failing")
"""Steps whose effect must not happen twice."""


async def pure(step: StepContext, n: int) -> int:
    await anyio.sleep(0.02 + n % 7 * 0.02)
    effects_here().happen(step, time.time())
    return n + 1


async def act(step: StepContext, n: int) -> int:
    """An effect in the middle of its body, so that a kill finds it before and after."""
    await anyio.sleep(0.05 + n % 5 * 0.05)
    effects_here().happen(step, time.time())
    await anyio.sleep(0.05)
    return n * 2


async def probed(step: StepContext, run_id: str, n: int) -> int:
    """`act`; its run's id is an argument, for its probe gets the same."""
    return await act(step, n)


async def did_it(run_id: str, n: int) -> Done[int] | None:
    lines = await anyio.to_thread.run_sync(effects_here().lines)
    return Done(n * 2) if any(line["key"] == f"{run_id}:probed#1" for line in lines) else None


class Piece(Agent[int, int]):
    """A child of a job."""

    async def run(self, ctx: Context, input: int) -> int:
        return await ctx.step("act", act, input, effect="rerun", timeout_s=EFFECT_TIMEOUT_S)


class Job(Agent[int, int]):
    """By its number: one of five things to do, perhaps a signal, perhaps branches."""

    go = Signal(int)

    async def run(self, ctx: Context, input: int) -> int:
        total = await ctx.step("pure", pure, input)
        total += await self._main(ctx, input)
        if signalled(input):
            total += await ctx.wait_for(self.go)
        if input % 4 == 0:
            total += sum(await ctx.gather(*(partial(_branch, n=n) for n in range(3))))
        return await ctx.step("last", pure, total)

    async def _main(self, ctx: Context, n: int) -> int:
        match n % 5:
            case 0:
                return await ctx.step("rerun", act, n, effect="rerun", timeout_s=EFFECT_TIMEOUT_S)
            case 1:
                return await ctx.step("probed", probed, ctx.run_id, n, effect="ask", probe=did_it, timeout_s=EFFECT_TIMEOUT_S)
            case 2:
                return await ctx.step("failing", act, n, effect="fail", timeout_s=EFFECT_TIMEOUT_S)
            case 3:
                return sum(await ctx.map("piece", Piece, [n + i for i in range(CHILDREN)], max_parallel=2))
            case _:
                await ctx.sleep(1.5)
                return 0


async def _branch(ctx: Context, n: int) -> int:
    return await ctx.step("pure", pure, n)


def signalled(n: int) -> bool:
    """Whether job `n` waits for a signal; its value is `n`."""
    return n % 3 == 0


def result_of(n: int) -> int:
    """What job `n` comes to."""
    main = {0: n * 2, 1: n * 2, 2: n * 2, 3: sum((n + i) * 2 for i in range(CHILDREN)), 4: 0}[n % 5]
    return n + 1 + main + (n if signalled(n) else 0) + (6 if n % 4 == 0 else 0) + 1


def runtime() -> Runtime:
    """The runtime of a worker, by its environment."""
    return Runtime.from_env(agents=[Job, Piece])
