"""Plans inside runs: each step is durable, a crash anywhere leaves nothing done twice, and what failed or was cancelled goes back."""

from __future__ import annotations

import anyio
import pytest

from agentkit import Agent, Context, InvalidInput, RunError, StoreUnavailable
from agentkit.agents.tool import tool
from agentkit.errors import PlanInvalid
from agentkit.plan.model import Plan
from agentkit.plan.steps import Ref, When
from agentkit.testing import runtime
from tests.core.plan_world import (
    ALL,
    BROKEN,
    TOOLS,
    TRIP,
    Do,
    DoInTime,
    Report,
    Scout,
    World,
    carried_out,
    reported,
    s,
)


async def test_a_plan_runs_and_results_reach_the_steps_that_refer_to_them() -> None:
    world = World()
    async with runtime(agents=ALL, resources={World: world}) as rt:
        report = await carried_out(rt, TRIP)
        assert (report.done, report.failed) == (["scout", "hotel", "car", "see"], {})
        assert world.did == ["book Bonn", "book car", "look view"]
        steps = await rt.steps("r")
        assert "plan#1/hotel/hotel#1" in steps
        assert "plan#1/scout/scout#1" in steps
        assert (await rt.handle("r/plan#1/scout/scout#1").info()).status == "done"


async def test_when_a_step_fails_finished_effects_are_taken_back_in_reverse() -> None:
    world = World()
    world.broken["book boat"] = 1
    async with runtime(agents=ALL, resources={World: world}) as rt:
        report = await carried_out(rt, BROKEN)
        assert (report.failed, report.undone, report.undo_failed) == ({"boat": "ConnectionError"}, ["car", "hotel"], {})
        assert world.did == ["book Bonn", "book car", "look view", "cancel car", "cancel Bonn"]


async def test_an_undo_that_fails_is_reported_and_the_rest_is_taken_back() -> None:
    world = World()
    world.broken |= {"book boat": 1, "cancel car": 1}
    async with runtime(agents=ALL, resources={World: world}) as rt:
        report = await carried_out(rt, BROKEN)
        assert (report.undone, report.undo_failed) == (["hotel"], {"car": "ConnectionError"})


async def test_a_step_may_name_the_tool_that_takes_it_back() -> None:
    world = World()
    world.broken["book boat"] = 1
    plan = Plan(steps=[s("hotel", "book", args={"what": "inn"}, undo="tell"), s("boat", "book", "hotel", args={"what": "boat"})])
    async with runtime(agents=ALL, resources={World: world}) as rt:
        assert (await carried_out(rt, plan)).undone == ["hotel"]
        assert world.did == ["book inn", "tell inn"]


SIGNED = Plan(
    steps=[
        s("hotel", "book", args={"what": "inn"}),
        s("lease", "sign", args={"what": "lease"}),
        s("boat", "book", "hotel", args={"what": "boat"}),
    ]
)


@pytest.mark.parametrize("crash", [None, "boat", "concluded", "undo:hotel"])
async def test_a_plan_that_fails_no_longer_waits_for_a_human_also_over_a_crash(crash: str | None) -> None:
    world = World()
    world.broken["book boat"] = 1
    async with runtime(agents=ALL, resources={World: world}) as rt:
        if crash is not None:
            await rt.crash(at=crash, before=True)
        report = await carried_out(rt, SIGNED)
        assert rt.crashed == (crash is not None)
        assert report.failed == {"boat": "ConnectionError", "lease": "NotNeeded"}
        assert (report.undone, world.did) == (["hotel"], ["book inn", "cancel inn"])
        with pytest.raises(InvalidInput, match="open are: none"):
            await rt.handle("r").resolve("lease", "rerun")


async def test_a_plan_that_only_waits_for_a_store_still_asks_its_human() -> None:
    world, away = World(), [StoreUnavailable("orders", "no answer")]

    @tool
    async def read(what: str) -> str:
        """Read from a store of the user's own, which is away at first."""
        if away:
            raise away.pop()
        return what

    class Signs(Agent[None, Report]):
        async def run(self, ctx: Context, _: None, /) -> Report:
            plan = Plan(steps=[s("lease", "sign", args={"what": "lease"}), s("order", "read", args={"what": "order"})])
            return reported(await ctx.execute(plan, tools=[*TOOLS, read], agents=[]))

    async with runtime(agents=[Signs], resources={World: world}) as rt:
        handle = await rt.submit(Signs, None, run_id="r")
        await rt.clock.advance(3)
        assert (away, (await handle.info()).waiting_for) == ([], "approval:lease")
        await handle.resolve("lease", "rerun")
        report = await handle.result()
        assert (sorted(report.done), report.failed, world.did) == (["lease", "order"], {}, ["sign lease"])


async def test_what_a_human_allowed_before_the_plan_failed_is_taken_back_with_the_rest() -> None:
    world = World()
    world.broken["book boat"] = 1
    world.hold["book boat"] = anyio.Event()
    world.then["sign lease"] = world.hold["book boat"].set
    async with runtime(agents=ALL, resources={World: world}) as rt:
        handle = await rt.submit(Do, SIGNED, run_id="r")
        with anyio.fail_after(5):
            await world.reached.wait()
        await handle.resolve("lease", "rerun")
        report = await handle.result()
        assert (report.done, report.failed, report.undone) == (["hotel", "lease"], {"boat": "ConnectionError"}, ["hotel"])


POINTS = ["checked", "hotel", "car", "see", "boat", "concluded", "undo:car", "undo:hotel"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", POINTS)
async def test_a_crash_anywhere_in_a_failing_plan_changes_nothing_of_what_comes_of_it(at: str, before: bool) -> None:
    world = World()
    world.broken["book boat"] = 2
    async with runtime(agents=ALL, resources={World: world}) as rt:
        await rt.crash(at=at, before=before)
        report = await carried_out(rt, BROKEN)
        assert rt.crashed == (0 if (at, before) == ("boat", False) else 1)  # a body that raises has no end to crash at
        assert (report.done, report.undone, report.failed) == (
            ["scout", "hotel", "car", "see"],
            ["car", "hotel"],
            {"boat": "ConnectionError"},
        )
        assert list(dict.fromkeys(world.did)) == ["book Bonn", "book car", "look view", "cancel car", "cancel Bonn"]
        assert all(len(set(keys)) == 1 for keys in world.keys.values())  # what a crash cut off ran again under the same key


@pytest.mark.parametrize("crash", [None, "concluded", "undo:car", "undo:hotel"])
async def test_a_cancel_takes_back_what_was_done_also_over_a_crash(crash: str | None) -> None:
    world = World()
    plan = Plan(steps=[*TRIP.steps, s("sea", "scout", "see", args={"input": "sea"})])
    async with runtime(agents=ALL, resources={World: world}) as rt:
        handle = await rt.submit(Do, plan, run_id="r")
        await rt.settle()
        assert (await handle.info()).status == "waiting"
        if crash is not None:
            await rt.crash(at=crash, before=True)
        await handle.cancel("enough")
        await rt.settle()
        assert (await handle.info()).status == "cancelled"
        assert (await rt.handle("r/plan#1/sea/sea#1").info()).status == "cancelled"
        assert rt.crashed == (crash is not None)
        assert world.did[3:] == ["cancel car", "cancel Bonn"]


async def test_a_cancel_that_comes_while_steps_are_taken_back_waits_until_all_are() -> None:
    world = World()
    world.broken["book boat"] = 1
    world.hold["cancel car"] = anyio.Event()
    async with runtime(agents=ALL, resources={World: world}) as rt:
        handle = await rt.submit(Do, BROKEN, run_id="r")
        with anyio.fail_after(5):
            await world.reached.wait()
        await handle.cancel("enough")
        await anyio.sleep(0.05)
        world.hold["cancel car"].set()
        await rt.settle()
        assert (await handle.info()).status == "cancelled"
        assert world.did[3:] == ["cancel car", "cancel Bonn"]


async def test_a_time_limit_around_a_plan_takes_back_what_was_done() -> None:
    world = World()
    plan = Plan(steps=[*TRIP.steps, s("sea", "scout", "see", args={"input": "sea"})])
    async with runtime(agents=ALL, resources={World: world}) as rt:
        handle = await rt.submit(DoInTime, plan, run_id="r")
        await rt.clock.advance(61)
        assert await handle.result() == "too late"
        assert world.did[3:] == ["cancel car", "cancel Bonn"]


async def test_a_crash_between_the_undos_of_a_plan_that_ran_out_of_time_is_finished_by_the_next_owner() -> None:
    world = World()
    plan = Plan(steps=[*TRIP.steps, s("sea", "scout", "see", args={"input": "sea"})])
    async with runtime(agents=ALL, resources={World: world}) as rt:
        handle = await rt.submit(DoInTime, plan, run_id="r")
        await rt.crash(at="undo:hotel", before=True)
        await rt.clock.advance(61)
        assert rt.crashed == 1
        assert await handle.result() == "too late"
        assert world.did[3:] == ["cancel car", "cancel Bonn"]


async def test_a_plan_that_waits_for_a_child_parks_and_holds_no_slot() -> None:
    world = World()
    plan = Plan(steps=[s("sea", "scout", args={"input": "sea"}), s("hotel", "book", args={"what": Ref(ref="sea.0")})])
    async with runtime(agents=ALL, resources={World: world}) as rt:
        handle = await rt.submit(Do, plan, run_id="r")
        await rt.settle()
        assert (await handle.info()).status == "waiting"
        assert not rt.engine.active
        await rt.handle("r/plan#1/sea/sea#1", Scout).signal(Scout.sign, "Sylt")
        await rt.settle()
        assert (await handle.result()).done == ["sea", "hotel"]
        assert world.did == ["book Sylt"]


async def test_a_skip_is_recorded() -> None:
    world = World()
    plan = Plan(
        steps=[
            s("scout", "scout", args={"input": "Bonn"}),
            s("no", "look", args={"at": "no"}, when=When(ref="scout.0", value="Berlin")),
            s("yes", "look", "no", args={"at": "yes"}, when=When(ref="scout.0", op="in", value=["Bonn"])),
        ]
    )
    async with runtime(agents=ALL, resources={World: world}) as rt:
        report = await carried_out(rt, plan)
        assert (report.skipped, world.did) == (["no"], ["look yes"])
        assert "plan#1/no/when:no#1" in await rt.steps("r")


async def test_the_attempts_of_a_tool_are_one_step_with_one_idempotency_key() -> None:
    world = World()
    world.broken["book inn"] = 2
    plan = Plan(steps=[s("hotel", "book", args={"what": "inn"}, attempts=3)])
    async with runtime(agents=ALL, resources={World: world}) as rt:
        handle = await rt.submit(Do, plan, run_id="r")
        with anyio.fail_after(5):
            while not world.did:
                await rt.clock.advance(1)
        report = await handle.result()
        assert (report.done, world.did) == (["hotel"], ["book inn"])
        assert world.keys["book inn"] == ["r:plan#1/hotel/hotel#1"] * 3


async def test_an_agent_that_fails_is_run_anew_as_often_as_the_plan_says() -> None:
    async with runtime(agents=ALL, resources={World: World()}) as rt:
        report = await carried_out(rt, Plan(steps=[s("a", "scout", args={"input": "nowhere"}, attempts=2)]))
        assert report.failed == {"a": "LookupError"}
        assert [key for key in await rt.steps("r") if key.startswith("plan#1/a/")] == ["plan#1/a/a#1", "plan#1/a/a#2"]


async def test_a_plan_with_faults_starts_nothing() -> None:
    world = World()
    async with runtime(agents=ALL, resources={World: world}) as rt:
        with pytest.raises(RunError, match="no tool or agent 'bok'") as caught:
            await rt.run(Do, Plan(steps=[*TRIP.steps, s("x", "bok")]), run_id="r")
        assert (caught.value.kind, world.did, await rt.steps("r")) == (PlanInvalid.__name__, [], [])


async def test_what_a_principal_may_not_do_fails_the_plan_and_takes_back_the_rest() -> None:
    world = World()
    plan = Plan(steps=[s("hotel", "book", args={"what": "inn"}), s("pay", "pay", "hotel", args={"cents": 3})])
    async with runtime(agents=ALL, resources={World: world}) as rt:
        report = await carried_out(rt, plan)
        assert (report.failed, report.undone) == ({"pay": "PermissionDenied"}, ["hotel"])
