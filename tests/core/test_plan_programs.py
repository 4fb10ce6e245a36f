"""The programs of the API that plan and orchestrate run as they are written, with scripted models."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from agentkit import Plan, PlanStep, Ref
from agentkit.ports.messages import Request
from agentkit.testing import ScriptedModel, runtime
from tests.typing.research_orchestrator import SPECIALISTS, Question, Research, Research2
from tests.typing.trip_planner import ByCode, Desk, FindFlights, Goal, Inline, Itinerary, Trip

GOAL = Goal(text="two nights in Bonn", city="Bonn")
HOTEL = PlanStep(id="hotel", use="book_hotel", args={"city": "Bonn", "nights": 2})


def priced(currency: str) -> Plan:
    return Plan(steps=[HOTEL, PlanStep(id="price", use="convert", args={"amount": Ref(ref="hotel.price"), "to": currency})])


async def test_a_trip_whose_first_plan_fails_is_taken_back_and_planned_anew() -> None:
    desk, planner = Desk(), ScriptedModel([priced("ZZZ"), priced("EUR")])
    async with runtime(agents=[Trip], models={"planner": planner}, resources={Desk: desk}) as rt:
        itinerary = await rt.run(Trip, GOAL, run_id="trip")
    assert isinstance(itinerary, Itinerary)
    assert itinerary.hotel.price == 180
    assert list(desk.booked) == ["trip:plan#2/hotel/hotel#1"]
    assert "no rate for ZZZ" in planner.prompts[1]


async def test_a_trip_planned_by_code_needs_no_model() -> None:
    async with runtime(agents=[ByCode], resources={Desk: Desk()}) as rt:
        assert (await rt.run(ByCode, GOAL)).notes == "162 EUR"


async def test_a_plan_may_be_asked_for_and_carried_out_inline() -> None:
    async with runtime(agents=[Inline, FindFlights], models={"default": ScriptedModel([priced("EUR")])}, resources={Desk: Desk()}) as rt:
        assert (await rt.run(Inline, GOAL)).id == "Bonn-inn"


def answers() -> Iterator[object]:
    def answer(request: Request) -> str:
        asked = request.messages[-1].content
        return f"{asked.partition(':')[0].removeprefix('As ')} is known."

    return repeat(answer)


class Three(Research):
    """Three specialists are all that the program has."""

    need = Research.need.at_least(3, within_s=300)


async def test_the_orchestrator_joins_what_its_specialists_found() -> None:
    async with runtime(agents=[Three], models={"cheap": ScriptedModel(answers())}) as rt:
        paper = await rt.run(Three, Question(text="why?"))
    assert (paper.text, paper.missing) == ("law is known. tax is known. chemistry is known.", [])


async def test_the_same_as_a_plain_agent_needs_fifteen_and_has_three() -> None:
    models = {"cheap": ScriptedModel(answers()), "heavy": ScriptedModel(answers())}
    async with runtime(agents=[Research2, *SPECIALISTS], models=models) as rt:
        handle = await rt.submit(Research2, Question(text="why?"))
        await rt.settle()
        assert (await handle.info()).status == "failed"
