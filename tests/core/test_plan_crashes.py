"""Random plans that fail, are cancelled and lose their worker: what was done is known, and what had to go back did, under one key each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit import Agent, Context, StepContext, tool
from agentkit.plan.model import Plan
from agentkit.plan.steps import PlanStep, Ref
from agentkit.testing import LocalRuntime, runtime


class Ledger:
    """What stands, by the idempotency key under which it was entered, and every order in which it was entered and struck out."""

    def __init__(self, broken: str = "", held: str = "") -> None:
        self.broken, self.held = broken, held
        self.entered: dict[str, str] = {}
        self.struck: dict[str, str] = {}
        self.reached = anyio.Event()


async def strike(step: StepContext, what: str) -> None:
    step.get(Ledger).struck[what] = step.idempotency_key


@tool(effect="rerun", undo=strike)
async def enter(step: StepContext, what: str, seen: list[str]) -> str:
    """Enter something."""
    ledger = step.get(Ledger)
    if what == ledger.held:
        ledger.reached.set()
        await anyio.sleep_forever()
    if what == ledger.broken:
        raise LookupError(what)
    assert ledger.entered.setdefault(what, step.idempotency_key) == step.idempotency_key
    return what


class Works(Agent[Plan, list[list[str]]]):
    async def run(self, ctx: Context, plan: Plan, /) -> list[list[str]]:
        result = await ctx.execute(plan, tools=[enter], max_parallel=3)
        return [list(result.done), list(result.failed), list(result.undone)]


@dataclass(frozen=True)
class Case:
    plan: Plan
    chosen: str
    """The step that fails, or at which a cancel strikes."""
    crash: str
    before: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 8))
    names = [f"s{i}" for i in range(size)]
    steps: list[PlanStep] = []
    for i, name in enumerate(names):
        seen = sorted(draw(st.sets(st.sampled_from(names[:i]), max_size=3))) if i else []
        steps.append(PlanStep(id=name, use="enter", args={"what": name, "seen": [Ref(ref=other) for other in seen]}))
    points = ["checked", "concluded", *names, *(f"undo:{name}" for name in names)]
    plan = Plan(steps=draw(st.permutations(steps)))
    return Case(plan, draw(st.sampled_from(names)), draw(st.sampled_from(points)), draw(st.booleans()))


def gone(ledger: Ledger, done: list[str]) -> bool:
    """Whether exactly what was done is struck out, the last one first."""
    return list(ledger.struck) == done[::-1]


async def fails(rt: LocalRuntime, ledger: Ledger, case: Case) -> None:
    """The chosen step fails, and the worker dies at some point: what was done is struck out, nothing else, once, in reverse."""
    await rt.crash(at=case.crash, before=case.before)
    handle = await rt.submit(Works, case.plan, run_id="r")
    await rt.settle()
    done, failed, undone = await handle.result()
    assert failed == [case.chosen]
    assert undone == done[::-1]
    assert gone(ledger, done)
    assert set(ledger.entered) == set(done)
    places = {step: i for i, step in enumerate(done)}
    for step in case.plan.steps:
        before = [ref.ref for ref in step.args["seen"] if isinstance(ref, Ref)] if isinstance(step.args["seen"], list) else []
        assert all(places[other] < places[step.id] for other in before if step.id in places)


@settings(max_examples=40)
@given(cases())
async def test_a_plan_that_fails_leaves_nothing_behind_wherever_its_worker_dies(case: Case) -> None:
    ledger = Ledger(broken=case.chosen)
    async with runtime(agents=[Works], resources={Ledger: ledger}) as rt:
        await fails(rt, ledger, case)


@settings(max_examples=40)
@given(cases())
async def test_a_plan_that_is_cancelled_leaves_nothing_behind_wherever_its_worker_dies(case: Case) -> None:
    ledger = Ledger(held=case.chosen)
    async with runtime(agents=[Works], resources={Ledger: ledger}) as rt:
        if case.crash.startswith(("undo:", "concluded")):
            await rt.crash(at=case.crash, before=case.before)
        handle = await rt.submit(Works, case.plan, run_id="r")
        with anyio.fail_after(10):
            await ledger.reached.wait()
        await handle.cancel("enough")
        await rt.settle()
        assert (await handle.info()).status == "cancelled"
        assert set(ledger.struck) == set(ledger.entered)
        steps = await rt.steps("r")
        assert len(steps) == len(set(steps))


@pytest.mark.parametrize("crash", ["b", "concluded", "undo:b", "undo:a"])
async def test_the_same_on_a_file(tmp_path: Path, crash: str) -> None:
    steps = [
        PlanStep(id=name, use="enter", args={"what": name, "seen": []}, after=after)
        for name, after in (("a", []), ("b", ["a"]), ("c", ["b"]))
    ]
    ledger = Ledger(broken="c")
    async with runtime(agents=[Works], resources={Ledger: ledger}, state=f"sqlite:///{tmp_path}/plans.db") as rt:
        await fails(rt, ledger, Case(Plan(steps=steps), "c", crash, before=True))
        assert rt.crashed == 1
