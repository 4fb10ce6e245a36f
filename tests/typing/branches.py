"""Concurrency inside one run: branches, the first answer, time limits, clean-up that survives a crash."""

import asyncio
from functools import partial

from pydantic import BaseModel

from agentkit import Agent, Context, StepContext


class Offer(BaseModel):
    vendor: str
    cents: int


async def ask(vendor: str) -> Offer:
    return Offer(vendor=vendor, cents=1)


async def release(step: StepContext, hold: str) -> None: ...


class Buy(Agent[list[str], Offer]):
    async def one(self, ctx: Context, vendor: str) -> Offer:
        offer = await ctx.step("ask", ask, vendor)  # the same name in every branch: each has its own scope
        await ctx.sleep(1)
        return offer

    async def run(self, ctx: Context, vendors: list[str]) -> Offer:
        total = await ctx.state(0)  # first: after a save nothing before it is read again
        ctx.on_end("release", release, "hold-1")  # durable: runs once when the run ends, however it ends
        offers = await ctx.gather(*(partial(self.one, vendor=v) for v in vendors))
        both = await asyncio.gather(ctx.step("a", ask, "x"), ctx.step("b", ask, "y"))  # called in this task: fine
        async with ctx.timeout(30):
            fast = await ctx.first(lambda c: self.one(c, "eu"), lambda c: self.one(c, "us"))
        async with asyncio.TaskGroup() as tg:
            task = tg.create_task(self.one(ctx.branch("extra"), "z"))
        total.value += len(offers) + len(both)
        await total.save()
        return min([*offers, fast, task.result()], key=lambda o: o.cents)
