"""Tools, agents and plans for the tests of plans inside runs, and what became of the world they act on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from pydantic import BaseModel

from agentkit import Agent, Context, Signal, StepContext
from agentkit.agents.tool import AnyTool, tool
from agentkit.plan.model import Plan, PlanResult
from agentkit.plan.steps import PlanStep, Ref
from agentkit.testing import LocalRuntime


class World:
    """The outside world: what was done to it, in order, and what does not work."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.keys: dict[str, list[str]] = {}
        self.broken: dict[str, int] = {}
        self.hold: dict[str, anyio.Event] = {}
        self.then: dict[str, Callable[[], object]] = {}
        self.reached = anyio.Event()

    async def do(self, what: str, key: str = "") -> None:
        self.keys.setdefault(what, []).append(key)
        if what in self.hold:
            self.reached.set()
            await self.hold[what].wait()
        if self.broken.get(what, 0) > 0:
            self.broken[what] -= 1
            raise ConnectionError(f"{what} does not work")
        self.did.append(what)
        self.then.get(what, bool)()


class Hotel(BaseModel):
    id: str
    price: float


async def cancel_booking(step: StepContext, what: str, result: Hotel) -> None:
    await step.get(World).do(f"cancel {result.id}", step.idempotency_key)


@tool(effect="rerun", undo=cancel_booking)
async def book(step: StepContext, what: str, stars: int = 3) -> Hotel:
    """Book something."""
    await step.get(World).do(f"book {what}", step.idempotency_key)
    return Hotel(id=what, price=stars * 10.0)


@tool
async def look(step: StepContext, at: str, price: float = 0) -> str:
    """Look at something."""
    await step.get(World).do(f"look {at}", step.idempotency_key)
    return f"{at} for {price}"


@tool(effect="rerun")
async def tell(step: StepContext, result: Hotel) -> None:
    """Tell somebody."""
    await step.get(World).do(f"tell {result.id}")


@tool(effect="ask", requires={"money"})
async def pay(step: StepContext, cents: int) -> None:
    """Pay."""


@tool(effect="rerun", approve=True)
async def sign(step: StepContext, what: str) -> None:
    """Sign something, with a human's leave."""
    await step.get(World).do(f"sign {what}", step.idempotency_key)


TOOLS: list[AnyTool] = [book, look, tell, pay, sign]


class Scout(Agent[str, list[str]]):
    """Finds cities; waits for a sign where there is a sea."""

    sign = Signal(str)

    async def run(self, ctx: Context, city: str, /) -> list[str]:
        if city == "nowhere":
            raise LookupError(city)
        if city == "sea":
            return [await ctx.wait_for(self.sign)]
        return [city]


class Report(BaseModel):
    done: list[str]
    failed: dict[str, str]
    skipped: list[str]
    undone: list[str]
    undo_failed: dict[str, str]


def reported(result: PlanResult) -> Report:
    return Report(
        done=list(result.done),
        failed={step: error.kind for step, error in result.failed.items()},
        skipped=list(result.skipped),
        undone=list(result.undone),
        undo_failed={step: error.kind for step, error in result.undo_failed.items()},
    )


class Do(Agent[Plan, Report]):
    """Carries out any plan."""

    async def run(self, ctx: Context, plan: Plan, /) -> Report:
        return reported(await ctx.execute(plan, tools=TOOLS, agents=[Scout], max_parallel=4))


class DoInTime(Agent[Plan, str]):
    async def run(self, ctx: Context, plan: Plan, /) -> str:
        try:
            async with ctx.timeout(60):
                await ctx.execute(plan, tools=TOOLS, agents=[Scout])
        except TimeoutError:
            return "too late"
        return "in time"


ALL: list[Any] = [Do, DoInTime, Scout]


def s(id: str, use: str, *after: str, **more: Any) -> PlanStep:
    return PlanStep.model_validate({"id": id, "use": use, "after": list(after), **more})


TRIP = Plan(
    steps=[
        s("scout", "scout", args={"input": "Bonn"}),
        s("hotel", "book", args={"what": Ref(ref="scout.0"), "stars": 4}),
        s("car", "book", "hotel", args={"what": "car"}),
        s("see", "look", "car", args={"at": "view", "price": Ref(ref="hotel.price")}),
    ]
)
BROKEN = Plan(steps=[*TRIP.steps, s("boat", "book", "see", args={"what": "boat"})])


async def carried_out(rt: LocalRuntime, plan: Plan, run_id: str = "r") -> Report:
    handle = await rt.submit(Do, plan, run_id=run_id)
    await rt.settle()
    return await handle.result()
