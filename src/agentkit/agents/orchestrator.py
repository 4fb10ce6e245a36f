"""`Orchestrator`: hands parts of its work to specialists, and joins what comes back. Thin over `ctx.join`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from agentkit.agents.base import Agent, AnyAgent, Child, I_contra, O_co
from agentkit.agents.children import Need, Outcomes

if TYPE_CHECKING:
    from agentkit.agents.context import Context


class Orchestrator(Agent[I_contra, O_co]):
    """Assigns its input to specialists, each a durable run of its own, and makes one result of theirs.

    While they work it parks and holds no slot. Raises `NeedNotMet` when fewer succeed than `need` asks.
    """

    specialists: ClassVar[Sequence[AnyAgent]] = ()
    """Registered along with this class."""
    need: ClassVar[Need] = Need.all()
    max_parallel: ClassVar[int] = 16

    async def assign(self, ctx: Context, input: I_contra, /) -> Mapping[str, Child[Any]]:
        """Who does what, by a key of your own. By default each specialist is given the input, by its name."""
        return {specialist.name: specialist.of(input) for specialist in self.specialists}

    async def join(self, ctx: Context, input: I_contra, outcomes: Outcomes[Any], /) -> O_co:
        """The run's result, from what came of the assignments."""
        raise TypeError(f"{type(self).__qualname__} must define `async def join(self, ctx, input, outcomes)`")

    async def run(self, ctx: Context, input: I_contra, /) -> O_co:
        """Assign, wait, join."""
        outcomes = await ctx.join(await self.assign(ctx, input), need=self.need, max_parallel=self.max_parallel)
        return await self.join(ctx, input, outcomes)
