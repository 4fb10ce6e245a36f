"""The smallest agents with something to do: one that doubles, and one that has a child do it."""

from __future__ import annotations

from agentkit import Agent, Context


class Double(Agent[int, int]):
    async def run(self, ctx: Context, n: int) -> int:
        return await ctx.step("double", _double, n)


def _double(n: int) -> int:
    return 2 * n


class Parent(Agent[int, int]):
    async def run(self, ctx: Context, n: int) -> int:
        return await ctx.run("child", Double, n)
