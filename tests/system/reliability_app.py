"""What the tests of reliability run: tasks that hang in the hands of the first worker that has them, and tasks that last."""

from __future__ import annotations

import anyio

from agentkit import Agent, Context, Runtime, StepContext
from tests.system.app import Slow, effects_here


async def hang(step: StepContext) -> int:
    """Never ends under the first claim, and at once under any other."""
    effects_here().happen(step)
    if step.fence == 1:
        await anyio.sleep_forever()
    return step.fence


class Hangs(Agent[None, int]):
    """Ends when it is taken over; its result says by which claim."""

    async def run(self, ctx: Context, input: None) -> int:
        return await ctx.step("hang", hang)


AGENTS = (Hangs, Slow)


def runtime() -> Runtime:
    """The runtime of a worker, by its environment."""
    return Runtime.from_env(agents=AGENTS)
