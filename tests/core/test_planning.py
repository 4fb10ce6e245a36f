"""`PlanningAgent`: a plan by a model or by code, carried out, made anew when it fails; the same whatever crashes in between."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from agentkit import Agent, Context, RunError, StepContext
from agentkit.agents.planning import PlanningAgent
from agentkit.agents.tool import tool
from agentkit.plan.model import Plan, PlanResult
from agentkit.plan.steps import PlanStep, Ref
from agentkit.testing import runtime
from agentkit.testing.models import ScriptedModel


class World:
    def __init__(self) -> None:
        self.did: list[str] = []
        self.full = {"Ritz"}


class Hotel(BaseModel):
    name: str
    price: float


async def cancel(step: StepContext, result: Hotel) -> None:
    step.get(World).did.append(f"cancel {result.name}")


@tool(effect="rerun", undo=cancel)
async def book(step: StepContext, hotel: str, nights: int = 1) -> Hotel:
    """Book a room."""
    if hotel in step.get(World).full:
        raise LookupError(f"{hotel} is full")
    step.get(World).did.append(f"book {hotel}")
    return Hotel(name=hotel, price=nights * 100.0)


@tool
async def total(prices: list[float]) -> float:
    """Add up."""
    return sum(prices)


class Near(Agent[str, list[str]]):
    """Hotels near a place."""

    async def run(self, ctx: Context, place: str, /) -> list[str]:
        return ["Ritz", "Savoy"]


class Trip(PlanningAgent[str, str]):
    """Plans by a model."""

    model = "planner"
    instructions = "Book a trip."
    tools = (book, total)
    agents = (Near,)
    max_replans = 2

    async def finish(self, ctx: Context, goal: str, result: PlanResult, /) -> str:
        return f"{result.get('a', Hotel).name} for {result.get('sum', float)}"


def trip(first: str, second: str) -> Plan:
    return Plan(
        steps=[
            PlanStep(id="near", use="near", args={"input": "river"}),
            PlanStep(id="a", use="book", args={"hotel": first}, after=["near"]),
            PlanStep(id="b", use="book", args={"hotel": second, "nights": 2}, after=["a"]),
            PlanStep(id="sum", use="total", args={"prices": [Ref(ref="a.price"), Ref(ref="b.price")]}),
        ]
    )


GOOD, FULL = trip("Savoy", "Inn"), trip("Inn", "Ritz")
CYCLE = Plan(steps=[PlanStep(id="a", use="book", args={"hotel": "Inn"}, after=["a"])])
UNKNOWN = Plan(steps=[PlanStep(id="a", use="bock")])


class ByCode(PlanningAgent[str, float]):
    """Plans by code, and finishes by its plan's last step."""

    tools = (book, total)
    agents = (Near,)
    seen: ClassVar[list[PlanResult | None]] = []

    async def plan(self, ctx: Context, goal: str, failed: PlanResult | None, /) -> Plan:
        self.seen.append(failed)
        return FULL if failed is None else GOOD


async def test_a_model_makes_the_plan_and_the_result_is_made_of_what_came_of_it() -> None:
    world, planner = World(), ScriptedModel([GOOD])
    async with runtime(agents=[Trip], models={"planner": planner}, resources={World: world}) as rt:
        assert await rt.run(Trip, "to the river") == "Savoy for 300.0"
    assert world.did == ["book Savoy", "book Inn"]
    (prompt,) = planner.prompts
    assert "Book a trip." in prompt
    assert "to the river" in prompt
    assert "- book takes {hotel: string, nights: integer}, gives {name: string, price: number}: Book a room." in prompt
    assert "- near takes {input: string}, gives [string]: Hotels near a place." in prompt


async def test_the_model_is_asked_for_a_form_that_strict_servers_accept() -> None:
    planner = ScriptedModel([GOOD])
    async with runtime(agents=[Trip], models={"planner": planner}, resources={World: World()}) as rt:
        await rt.run(Trip, "go")
    (request,) = planner.requests
    schema: Any = request.output
    assert schema["additionalProperties"] is False
    assert [one["properties"]["use"]["const"] for one in schema["properties"]["steps"]["items"]["anyOf"]] == ["book", "total", "near"]


async def test_the_faults_of_a_plan_are_told_to_the_model_and_nothing_of_it_runs() -> None:
    world, planner = World(), ScriptedModel([CYCLE, GOOD])
    async with runtime(agents=[Trip], models={"planner": planner}, resources={World: world}) as rt:
        assert await rt.run(Trip, "go") == "Savoy for 300.0"
    assert world.did == ["book Savoy", "book Inn"]
    assert "these steps wait for each other: a -> a" in planner.prompts[1]


async def test_a_plan_in_no_form_at_all_is_a_fault_too() -> None:
    planner = ScriptedModel([UNKNOWN, "what?", GOOD])
    async with runtime(agents=[Trip], models={"planner": planner}, resources={World: World()}) as rt:
        assert await rt.run(Trip, "go") == "Savoy for 300.0"


async def test_a_model_that_plans_nothing_but_faults_ends_the_run() -> None:
    planner = ScriptedModel([CYCLE] * 3)
    async with runtime(agents=[Trip], models={"planner": planner}, resources={World: World()}) as rt:
        with pytest.raises(RunError, match="wait for each other") as caught:
            await rt.run(Trip, "go")
    assert (caught.value.kind, len(planner.prompts)) == ("PlanInvalid", 3)


async def test_a_plan_that_failed_is_taken_back_and_the_model_is_told_of_it() -> None:
    world, planner = World(), ScriptedModel([FULL, GOOD])
    async with runtime(agents=[Trip], models={"planner": planner}, resources={World: world}) as rt:
        assert await rt.run(Trip, "go") == "Savoy for 300.0"
    assert world.did == ["book Inn", "cancel Inn", "book Savoy", "book Inn"]
    told = planner.prompts[1]
    assert "step 'b' failed: LookupError: Ritz is full" in told
    assert "step 'a' was done and taken back" in told
    assert """step 'near' was done, its result: ["Ritz","Savoy"]""" in told


async def test_when_the_last_plan_fails_as_well_the_run_fails() -> None:
    world, planner = World(), ScriptedModel([FULL] * 3)
    async with runtime(agents=[Trip], models={"planner": planner}, resources={World: world}) as rt:
        with pytest.raises(RunError, match="3 plans failed, the last one by step 'b': LookupError: Ritz is full") as caught:
            await rt.run(Trip, "go")
    assert caught.value.kind == "PlanFailed"
    assert world.did == ["book Inn", "cancel Inn"] * 3


async def test_code_may_plan_instead_and_the_result_is_by_default_that_of_the_last_step() -> None:
    ByCode.seen = []
    world = World()
    async with runtime(agents=[ByCode], resources={World: world}) as rt:
        assert await rt.run(ByCode, "go") == 300.0
    first, second = ByCode.seen
    assert first is None
    assert second is not None
    assert (list(second.failed), list(second.undone)) == (["b"], ["a"])


POINTS = ["model", "checked", "plan#1/a/a#1", "plan#1/concluded#1", "undo:a", "model#2", "plan#2/checked#1", "plan#2/b/b#1", "sum"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", POINTS)
async def test_a_crash_anywhere_changes_nothing_of_what_comes_of_it(at: str, before: bool) -> None:
    world = World()

    def planned(request: object) -> Plan:
        return GOOD if "Your plan failed" in str(request) else FULL

    planner = ScriptedModel([planned] * 3)
    async with runtime(agents=[Trip], models={"planner": planner}, resources={World: world}) as rt:
        await rt.crash(at=at, before=before)
        handle = await rt.submit(Trip, "go", run_id="r")
        await rt.settle()
        assert await handle.result() == "Savoy for 300.0"
        assert rt.crashed == 1
        assert len(planner.prompts) in (2, 3)  # the crash may come before an answer is durable: then the model is asked once more
        assert list(dict.fromkeys(world.did)) == ["book Inn", "cancel Inn", "book Savoy"]
        steps = await rt.steps("r")
        assert len(steps) == len(set(steps))


async def test_agents_that_a_planning_agent_names_are_registered_along() -> None:
    async with runtime(agents=[Trip]) as rt:
        assert rt.registry.knows(Near)
