"""Plans inside runs: what was recorded holds in every replay, whatever plan or tool the code would choose now."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from agentkit import Agent, Context, RunCancelled, RunError, StepContext
from agentkit.agents.tool import AnyTool, tool
from agentkit.errors import NoResult
from agentkit.plan.model import Plan
from agentkit.plan.steps import PlanStep, Ref
from agentkit.testing import runtime
from tests.core.plan_world import (
    ALL,
    BROKEN,
    TOOLS,
    TRIP,
    Hotel,
    Report,
    Scout,
    World,
    cancel_booking,
    carried_out,
    look,
    reported,
    s,
)


class Gets(Agent[Plan, str]):
    asked: ClassVar[str] = ""

    async def run(self, ctx: Context, plan: Plan, /) -> str:
        result = await ctx.execute(plan, tools=TOOLS, agents=[Scout])
        try:
            return result.get(self.asked, Hotel).model_dump_json() if self.asked == "hotel" else str(result.get(self.asked))
        except RunError as exc:
            return exc.kind


@pytest.mark.parametrize(
    ("asked", "broken", "said"),
    [
        ("hotel", False, '{"id":"Bonn","price":40.0}'),
        ("see", False, "view for 40.0"),
        ("boat", True, "ConnectionError"),
        ("hotel", True, "ConnectionError"),
        ("see", True, "view for 40.0"),
        ("plane", False, NoResult.__name__),
    ],
)
async def test_a_result_is_given_where_it_stands_and_else_the_error_that_the_plan_failed_by(asked: str, broken: bool, said: str) -> None:
    world = World()
    world.broken["book boat"] = int(broken)
    Gets.asked = asked
    async with runtime(agents=[*ALL, Gets], resources={World: world}) as rt:
        assert await rt.run(Gets, BROKEN) == said


class Loses(Agent[Plan, str]):
    """Goes on after its plan was cancelled: nothing starts."""

    async def run(self, ctx: Context, plan: Plan, /) -> str:
        try:
            await ctx.execute(plan, tools=TOOLS, agents=[Scout])
        except RunCancelled:
            await ctx.step("more", ctx.get(World).do, "more")
        return ""


async def test_after_a_cancel_nothing_new_starts_behind_the_plan() -> None:
    world = World()
    plan = Plan(steps=[*TRIP.steps, s("sea", "scout", "see", args={"input": "sea"})])
    async with runtime(agents=[*ALL, Loses], resources={World: world}) as rt:
        handle = await rt.submit(Loses, plan, run_id="r")
        await rt.settle()
        await handle.cancel("enough")
        await rt.settle()
        assert (await handle.info()).status == "cancelled"
        assert world.did[3:] == ["cancel car", "cancel Bonn"]


class Changed(Agent[Plan, Report]):
    """A plan by code that says something else each time: a replay carries out the one that was kept."""

    turns: ClassVar[int] = 0

    async def run(self, ctx: Context, plan: Plan, /) -> Report:
        Changed.turns += 1
        told = plan if self.turns == 1 else Plan(steps=[s("other", "look", args={"at": "other"})])
        return reported(await ctx.execute(told, tools=TOOLS, agents=[Scout]))


async def test_a_replay_carries_out_the_plan_that_was_kept() -> None:
    world, Changed.turns = World(), 0
    async with runtime(agents=[*ALL, Changed], resources={World: world}) as rt:
        await rt.crash(at="car", before=True)
        handle = await rt.submit(Changed, TRIP, run_id="r")
        await rt.settle()
        assert (await handle.result()).done == ["scout", "hotel", "car", "see"]
        assert Changed.turns > 1


@tool(undo=cancel_booking)
async def dream(step: StepContext, what: str) -> Hotel:
    """Dream of something, which touches nobody."""
    return Hotel(id=what, price=0)


class Stranger(Agent[str, str]):
    """Not registered at first."""

    async def run(self, ctx: Context, text: str, /) -> str:
        await ctx.step("meet", ctx.get(World).do, "meet")
        return text


class Meets(Agent[Plan, Report]):
    async def run(self, ctx: Context, plan: Plan, /) -> Report:
        return reported(await ctx.execute(plan, tools=[*TOOLS, dream], agents=[Stranger]))


async def test_only_effects_are_taken_back() -> None:
    world = World()
    world.broken["book boat"] = 1
    plan = Plan(steps=[s("dream", "dream", args={"what": "sea"}), s("boat", "book", "dream", args={"what": "boat"})])
    async with runtime(agents=[Meets], resources={World: world}) as rt:
        handle = await rt.submit(Meets, plan)
        await rt.settle()
        assert ((await handle.result()).undone, world.did) == ([], [])


async def test_what_was_concluded_stands_although_the_failed_step_would_succeed_now() -> None:
    world = World()
    plan = Plan(steps=[s("hotel", "book", args={"what": "inn"}), s("meet", "stranger", "hotel", args={"input": "hello"})])
    async with runtime(agents=[Meets], resources={World: world}) as rt:
        world.then["cancel inn"] = lambda: rt.registry.add(Stranger)
        await rt.crash(at="undo:hotel")
        handle = await rt.submit(Meets, plan)
        await rt.settle()
        report = await handle.result()
        assert (report.failed, report.undone) == ({"meet": "UnknownAgent"}, ["hotel"])
        assert world.did == ["book inn", "cancel inn", "cancel inn"]


class Fewer(Agent[Plan, Report]):
    """A deploy took a tool away: this is the class before and after it."""

    tools: ClassVar[list[AnyTool]] = TOOLS

    async def run(self, ctx: Context, plan: Plan, /) -> Report:
        return reported(await ctx.execute(plan, tools=self.tools, agents=[Scout]))


async def test_a_run_whose_plan_uses_a_tool_that_is_gone_is_buried_and_not_planned_anew() -> None:
    world, Fewer.tools = World(), TOOLS
    plan = Plan(steps=[*TRIP.steps, s("sea", "scout", "see", args={"input": "sea"})])
    async with runtime(agents=[*ALL, Fewer], resources={World: world}) as rt:
        handle = await rt.submit(Fewer, plan, run_id="r")
        await rt.settle()
        Fewer.tools = [look]
        await rt.handle("r/plan#1/sea/sea#1", Scout).signal(Scout.sign, "Sylt")
        await rt.settle()
        info = await handle.info()
        assert info.status == "buried"
        assert "a plan that uses 'book'" in str(info.error)
        assert "cancel Bonn" not in world.did


async def test_a_journal_of_a_plan_fits_its_code_whatever_ends_first() -> None:
    world = World()
    world.broken["book boat"] = 1
    async with runtime(agents=ALL, resources={World: world}) as rt:
        await carried_out(rt, BROKEN)
        async for verdict in rt.verify(["r"]):
            assert verdict.ok, verdict.problem


class Offer(BaseModel):
    until: datetime
    prices: tuple[Decimal, Decimal]
    id: UUID


@tool
async def offer() -> Offer:
    """Make an offer."""
    return Offer(until=datetime(2026, 11, 21, tzinfo=UTC), prices=(Decimal("1.10"), Decimal(2)), id=UUID(int=7))


@tool
async def accept(given: Offer, until: datetime, prices: list[Decimal], id: UUID) -> bool:
    """Accept an offer."""
    return given == Offer(until=until, prices=(prices[0], prices[1]), id=id)


class Trades(Agent[None, bool]):
    async def run(self, ctx: Context, _: None, /) -> bool:
        args: dict[str, Any] = {name: Ref(ref=f"offer.{name}") for name in ("until", "id")}
        args |= {"given": Ref(ref="offer"), "prices": [Ref(ref="offer.prices.0"), Ref(ref="offer.prices.1")]}
        plan = Plan(steps=[PlanStep(id="offer", use="offer"), PlanStep(id="accept", use="accept", args=args)])
        result = await ctx.execute(plan, tools=[offer, accept])
        assert result.get("offer", Offer).prices[0] == Decimal("1.10")
        return result.get("accept", bool)


async def test_values_of_any_type_reach_the_steps_that_refer_to_them_as_what_they_are() -> None:
    async with runtime(agents=[Trades]) as rt:
        assert await rt.run(Trades, None)


class Side(Agent[list[Plan], list[Report]]):
    """Several plans at a time, each in a branch of its own."""

    async def run(self, ctx: Context, plans: list[Plan], /) -> list[Report]:
        async def one(branch: Context, plan: Plan) -> Report:
            return reported(await branch.execute(plan, tools=TOOLS, agents=[Scout]))

        return await ctx.gather(*[partial(one, plan=plan) for plan in plans])


async def test_plans_side_by_side_do_not_mix() -> None:
    world = World()
    world.broken["book boat"] = 1
    async with runtime(agents=[*ALL, Side], resources={World: world}) as rt:
        await rt.crash(at="undo:car")
        handle = await rt.submit(Side, [BROKEN, TRIP], run_id="r")
        await rt.settle()
        first, second = await handle.result()
        assert (first.undone, second.undone) == (["car", "hotel"], [])
        assert "gather#1/1/plan#1/hotel/hotel#1" in await rt.steps("r")


async def test_a_wide_plan_keeps_its_bound() -> None:
    steps = [s("root", "look", args={"at": "root"})]
    steps += [s(f"s{i}", "look", "root", args={"at": str(i)}) for i in range(100)]
    world = World()
    async with runtime(agents=ALL, resources={World: world}) as rt:
        report = await carried_out(rt, Plan(steps=steps))
        assert len(report.done) == len(world.did) == 101


class Looks(Agent[Plan, None]):
    """Looks at what became of its plan, before and after it has parked."""

    seen: ClassVar[list[Report]] = []

    async def run(self, ctx: Context, plan: Plan, /) -> None:
        self.seen.append(reported(await ctx.execute(plan, tools=TOOLS, agents=[Scout])))
        await ctx.sleep(9_000)


async def test_a_result_names_its_steps_in_the_same_order_live_and_in_a_replay_whichever_ended_first() -> None:
    world, late = World(), anyio.Event()
    world.hold["look late"] = late
    plan = Plan(
        steps=[
            s("late", "look", args={"at": "late"}),
            s("quick", "look", args={"at": "quick"}),
            s("never", "look", args={"at": "never"}, when={"ref": "late", "op": "empty"}),
            s("no", "look", args={"at": "no"}, when={"ref": "quick", "op": "empty"}),
        ]
    )
    Looks.seen = []
    async with runtime(agents=[Looks, Scout], resources={World: world}) as rt:
        handle = await rt.submit(Looks, plan)
        await world.reached.wait()
        while "look quick" not in world.did:
            await anyio.lowlevel.checkpoint()
        late.set()
        await rt.clock.advance(10_000)
        await handle.result()
    assert world.did == ["look quick", "look late"]
    assert len(Looks.seen) == 2
    assert Looks.seen[0] == Looks.seen[1]
    assert (Looks.seen[0].done, Looks.seen[0].skipped) == (["late", "quick"], ["never", "no"])
