"""The order of a plan: every ready step runs, none before what it waits for, never more than allowed, and effects go back in reverse."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticSerializationError

from agentkit.errors import RunCancelled, RunError, StepError, StoreUnavailable
from agentkit.plan.executor import Conclusion, Failure, Past, execute, holds
from agentkit.plan.schedule import Schedule
from agentkit.plan.steps import Op, PlanStep, Ref, When, comes_after
from tests.core.plans import MemoryHands


def step(id: str, *after: str, **more: object) -> PlanStep:
    return PlanStep.model_validate({"id": id, "use": "x", "after": list(after), **more})


@st.composite
def graphs(draw: st.DrawFn) -> list[PlanStep]:
    """Random plans: each step comes after some of those before it, and they are written in any order."""
    size = draw(st.integers(0, 30))
    steps = [
        step(f"s{i}", *draw(st.sets(st.sampled_from([f"s{j}" for j in range(i)]), max_size=4) if i else st.just(()))) for i in range(size)
    ]
    return draw(st.permutations(steps))


@dataclass
class Walk:
    """What a schedule handed out, and in which order steps ended."""

    begun: list[str] = field(default_factory=list[str])
    ended: list[str] = field(default_factory=list[str])


def walk(steps: list[PlanStep], limit: int, data: st.DataObject, fails: frozenset[str] = frozenset()) -> Walk:
    """Let steps end in any order, and look at each moment whether the rules hold."""
    schedule, seen, under_way = Schedule(steps, limit), Walk(), list[PlanStep]()
    halted = False
    while True:
        for one in schedule.take():
            assert not halted, "a step started after the plan was given up"
            assert set(comes_after(one)) <= set(seen.ended) - fails
            under_way.append(one)
            seen.begun.append(one.id)
        assert len(under_way) <= limit
        if not under_way:
            return seen
        one = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        if one.id in fails:
            schedule.halt()
            halted = True
        schedule.ended(one.id, well=one.id not in fails)
        seen.ended.append(one.id)


@given(graphs(), st.integers(1, 8), st.data())
def test_every_step_starts_once_after_what_it_waits_for_and_never_too_many_at_a_time(
    steps: list[PlanStep], limit: int, data: st.DataObject
) -> None:
    seen = walk(steps, limit, data)
    assert sorted(seen.begun) == sorted(one.id for one in steps)


@given(graphs().filter(bool), st.integers(1, 8), st.data())
def test_after_a_failure_nothing_new_starts(steps: list[PlanStep], limit: int, data: st.DataObject) -> None:
    fails = frozenset({data.draw(st.sampled_from([one.id for one in steps]))})
    seen = walk(steps, limit, data, fails)
    assert sorted(seen.begun) == sorted(seen.ended)
    assert fails <= set(seen.ended)


@given(graphs().filter(bool), st.data())
def test_a_replay_starts_again_all_that_had_begun_whatever_ends_first(steps: list[PlanStep], data: st.DataObject) -> None:
    fails = frozenset({data.draw(st.sampled_from([one.id for one in steps]))})
    begun = frozenset(walk(steps, 4, data, fails).begun)
    schedule, again, under_way = Schedule(steps, 4, begun), list[str](), list[PlanStep]()
    while taken := [*under_way, *schedule.take()]:
        again += [one.id for one in taken[len(under_way) :]]
        under_way = taken
        one = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        if one.id in fails:
            schedule.halt()
        schedule.ended(one.id, well=one.id not in fails)
    assert begun <= set(again)


async def test_a_plan_of_500_steps_with_a_fan_out_of_100_keeps_its_bound() -> None:
    steps = [step("root")]
    steps += [step(f"fan{i}", "root") for i in range(100)]
    steps += [step(f"next{i}", f"fan{i % 100}", f"fan{(i * 7) % 100}") for i in range(398)]
    steps += [step("last", *(f"next{i}" for i in range(398)))]
    hands = MemoryHands()
    ended = await execute(steps, hands, 16)
    assert len(steps) == len(ended.results) == 500
    assert hands.most == 16
    place = {done: i for i, done in enumerate(hands.ended)}
    assert all(place[before] < place[one.id] for one in steps for before in one.after)


async def test_results_stand_in_for_references_at_any_depth() -> None:
    async def body(one: PlanStep) -> object:
        return {"price": 9.5, "tags": ["a", "b"]} if one.id == "a" else one.id

    hands = MemoryHands(body)
    steps = [
        step("a"),
        step("b", args={"all": Ref(ref="a"), "one": Ref(ref="a.price"), "deep": {"x": [Ref(ref="a.tags.1"), 3]}, "plain": "a"}),
    ]
    await execute(steps, hands, 4)
    assert hands.arguments["b"] == {"all": {"price": 9.5, "tags": ["a", "b"]}, "one": 9.5, "deep": {"x": ["b", 3]}, "plain": "a"}


async def test_a_reference_that_turns_out_to_lead_nowhere_fails_its_step() -> None:
    async def body(one: PlanStep) -> object:
        return {}

    ended = await execute([step("a"), step("b", args={"x": Ref(ref="a.price")})], MemoryHands(body), 4)
    assert (ended.failed["b"].kind, list(ended.undone)) == ("RefNotFound", ["a"])


@pytest.mark.parametrize(
    ("op", "value", "yes", "no"),
    [
        ("eq", 3, 3, 4),
        ("ne", 3, 4, 3),
        ("lt", 3, 2, 3),
        ("gt", "b", "c", "b"),
        ("in", [1, 2], 2, 3),
        ("empty", None, [], [1]),
        ("empty", None, None, 0),
        ("not_empty", None, {"a": 1}, ""),
        ("not_empty", None, False, {}),
    ],
)
def test_a_condition_holds_or_not(op: Op, value: object, yes: object, no: object) -> None:
    when = When.model_validate({"ref": "a", "op": op, "value": value})
    assert holds(when, yes)  # type: ignore[arg-type]
    assert not holds(when, no)  # type: ignore[arg-type]


async def test_what_cannot_be_compared_fails_its_step() -> None:
    ended = await execute([step("a"), step("b", when={"ref": "a", "op": "lt", "value": 3})], MemoryHands(), 4)
    assert ended.failed["b"].kind == "WhenImpossible"


async def test_a_step_whose_condition_does_not_hold_is_skipped_and_those_after_it_run() -> None:
    ended = await execute([step("a"), step("b", when={"ref": "a", "op": "not_empty"}), step("c", "b")], MemoryHands(), 4)
    assert (list(ended.results), list(ended.skipped), ended.failed) == (["a", "c"], ["b"], {})


async def failing(events: dict[str, anyio.Event], one: PlanStep) -> object:
    """`bad` fails when `good` has ended; `slow` ends when `bad` has failed."""
    if one.id == "bad":
        await events["good"].wait()
        events["bad"].set()
        raise StepError("Broken", "it broke", "bad")
    if one.id == "slow":
        await events["bad"].wait()
    elif one.id in events:
        events[one.id].set()
    return one.id


async def test_when_a_step_fails_those_under_way_end_and_effects_go_back_in_reverse_order_of_completion() -> None:
    events = {"good": anyio.Event(), "bad": anyio.Event()}
    hands = MemoryHands(partial(failing, events))
    ended = await execute([step("slow"), step("first"), step("good", "first"), step("bad"), step("never", "bad")], hands, 8)
    assert (list(ended.failed), hands.undone) == (["bad"], ["slow", "good", "first"])
    assert list(ended.undone) == hands.undone
    assert "never" not in hands.begun
    assert hands.halts == 1


async def test_an_undo_that_fails_is_reported_and_the_others_are_made(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(MemoryHands):
        async def take_back(self, step: PlanStep, arguments: object, result: object) -> None:
            if step.id == "b":
                raise RunError("Stuck", "it does not move")
            self.undone.append(step.id)

    async def body(one: PlanStep) -> object:
        if one.id == "d":
            raise StepError("Broken", "it broke")
        return None

    ended = await execute([step("a"), step("b", "a"), step("c", "b"), step("d", "c")], Stubborn(body), 1)
    assert list(ended.undone) == ["c", "a"]
    assert {step: error.kind for step, error in ended.undo_failed.items()} == {"b": "Stuck"}
    assert "step 'b' of a plan could not be taken back: Stuck: it does not move" in caplog.text


async def test_a_cancel_is_raised_when_all_that_had_ended_was_taken_back() -> None:
    async def body(one: PlanStep) -> object:
        if one.id == "c":
            raise RunCancelled("r", "enough")
        return None

    hands = MemoryHands(body)
    with pytest.raises(RunCancelled):
        await execute([step("a"), step("b", "a"), step("c", "b"), step("d", "c")], hands, 4)
    assert hands.undone == ["b", "a"]


@pytest.mark.parametrize("error", [StoreUnavailable("memory", "gone"), ZeroDivisionError("a bug")])
async def test_what_says_nothing_about_a_step_takes_nothing_back(error: Exception) -> None:
    async def body(one: PlanStep) -> object:
        if one.id == "b":
            raise error
        return None

    hands = MemoryHands(body)
    with pytest.raises(type(error)):
        await execute([step("a"), step("b", "a")], hands, 4)
    assert hands.undone == []


async def test_a_result_that_no_json_can_hold_is_raised_as_it_is_when_the_others_have_ended() -> None:
    async def body(one: PlanStep) -> object:
        await anyio.lowlevel.checkpoint()
        return object() if one.id == "a" else one.id

    hands = MemoryHands(body)
    with pytest.raises(PydanticSerializationError):
        await execute([step("a"), step("b"), step("c", "b")], hands, 4)
    assert "b" in hands.ended


@settings(max_examples=20)
@given(st.permutations(["a", "b", "c"]))
async def test_a_replay_takes_back_in_the_order_that_was_written_down(order: list[str]) -> None:
    past = Past(frozenset({"a", "b", "c", "bad"}), Conclusion(done=order, failed={"bad": Failure(kind="Broken", message="it broke")}))

    async def body(one: PlanStep) -> object:
        if one.id == "bad":
            raise StepError("Broken", "it broke")
        return None

    hands = MemoryHands(body, past=past)
    ended = await execute([step("a"), step("b"), step("c"), step("bad"), step("new")], hands, 4)
    assert hands.undone == order[::-1]
    assert "new" not in hands.begun
    assert list(ended.failed) == ["bad"]


async def test_a_failure_that_was_written_down_stands_although_its_step_had_not_begun() -> None:
    past = Past(frozenset({"a"}), Conclusion(done=["a"], failed={"b": Failure(kind="BudgetExceeded", message="no money")}))
    hands = MemoryHands(past=past)
    ended = await execute([step("a"), step("b", "a")], hands, 4)
    assert (hands.begun, hands.undone, ended.failed["b"].kind) == (["a"], ["a"], "BudgetExceeded")
