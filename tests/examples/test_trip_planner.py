"""The trip planner: what failed is taken back, the next plan knows, and each thing is booked once, whatever crashes."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agentkit import RunError
from agentkit.testing import LocalRuntime, runtime
from examples.common.offline import offline
from examples.trip_planner.__main__ import write_plan
from examples.trip_planner.agency import Agency
from examples.trip_planner.agents import Goal, Trip, TripByCode
from tests.examples.crashes import crashed

BONN = Goal(text="a weekend away", city="Bonn")


@pytest.fixture
def agency(tmp_path: Path) -> Agency:
    return Agency(tmp_path / "book.json")


def planning(agency: Agency) -> AbstractAsyncContextManager[LocalRuntime]:
    return runtime(agents=[Trip, TripByCode], models={"planner": offline(write_plan)}, resources={Agency: agency})


async def booked(agency: Agency) -> list[str]:
    return sorted(one.what for one in await agency.booked())


IN_BONN = ["2 nights in the Stern, Bonn", "a seat in the noon train to Bonn"]


@pytest.mark.parametrize("agent", [Trip, TripByCode])
async def test_the_room_of_a_plan_that_failed_is_given_back_and_the_next_plan_takes_another_train(
    agent: type[Trip], agency: Agency
) -> None:
    async with planning(agency) as rt:
        trip = await rt.run(agent, BONN, run_id="trip")
        steps = await rt.steps("trip")
    assert (trip.euro, trip.dollars) == (249.0, 268.92)
    assert "plan#1/hotel/undo:hotel#1" in steps
    assert "plan#2/train/train#1" in steps
    assert await booked(agency) == IN_BONN


async def test_code_that_plans_asks_no_model(agency: Agency) -> None:
    model = offline(write_plan)
    async with runtime(agents=[TripByCode], models={"planner": model}, resources={Agency: agency}) as rt:
        await rt.run(TripByCode, BONN, run_id="trip")
    assert model.requests == []


async def test_a_city_without_hotels_costs_nothing(agency: Agency) -> None:
    async with planning(agency) as rt:
        with pytest.raises(RunError, match="no hotel with a room in 'Paris'") as error:
            await rt.run(Trip, Goal(text="", city="Paris"), run_id="trip")
        assert error.value.kind == "PlanFailed"
    assert await booked(agency) == []


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    "at", ["model#2", "plan#1/hotel/hotel#1", "plan#1/hotel/undo:hotel#1", "plan#2/hotel/hotel#1", "plan#2/train/train#1"]
)
async def test_a_crash_anywhere_books_nothing_twice_and_forgets_nothing(at: str, before: bool, agency: Agency) -> None:
    async with planning(agency) as rt:
        handle = await rt.submit(Trip, BONN, run_id="trip")
        await rt.crash(at=at, before=before)
        await crashed(rt)
        assert (await handle.result()).euro == 249.0
    assert await booked(agency) == IN_BONN
