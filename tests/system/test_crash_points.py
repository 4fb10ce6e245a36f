"""A worker that dies, or freezes for longer than a lease, at any point of a run: the run ends once, with the right result."""

from __future__ import annotations

import anyio
import pytest

from agentkit import Runtime
from agentkit.ports.records import Entry, Run, RunQuery
from agentkit.testing.crash import Child, Crew
from tests.system.app import Effects, Journey, submit_journey
from tests.system.conftest import LEASE_S, MARKS, Opened
from tests.system.journeys import ends_right, frozen_at, keeps_the_laws, killed_at

pytestmark = MARKS

POINTS = [
    "before claim", "after claim", "before load", "after load",
    "before step plan", "inside step plan", "after step plan",
    "before write INTENT", "after write INTENT",
    "before step charge", "inside step charge, after its effect", "after step charge", "after write RESULT",
    "before write CHILD", "after write CHILD", "before create children", "after create children",
    "before write PARKED", "after write PARKED",
    "before step work", "after step work", "before tell", "after tell",
    "before write SIGNAL", "after write SIGNAL",
    "before write COMPLETED", "after write COMPLETED",
    "before finish", "after finish", "before put", "after put", "before ticketed", "after ticketed",
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_killed_there_is_taken_over_and_the_run_ends_once(point: str, crew: Crew, opened: Opened, effects: Effects) -> None:
    await killed_at(point, crew, opened, effects)


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_frozen_there_longer_than_a_lease_writes_nothing_when_it_thaws(
    point: str, crew: Crew, opened: Opened, effects: Effects
) -> None:
    async with frozen_at(point, crew, opened, effects) as (runtime, worker):
        before = await everything(runtime)
        worker.go_on()
        await thawed(worker)
        assert await everything(runtime) == before
        await keeps_the_laws(runtime, effects)


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("point", ["after create", "before put", "after put", "after ticketed", "before signal", "after signal"])
async def test_a_submitter_that_dies_or_freezes_there_leaves_a_run_that_a_second_submit_finishes(
    point: str, how: str, crew: Crew, opened: Opened, effects: Effects
) -> None:
    submitter = await crew.start(f"{how}@{point}", act="tests.system.app:submit_journey")
    await submitter.reached(point)
    async with opened(worker=True) as runtime:
        await submit_journey(runtime)
        await ends_right(runtime, effects)
        submitter.go_on()
        assert await submitter.ended() == (-9 if how == "kill" else 0), submitter.log()
        await keeps_the_laws(runtime, effects)


@pytest.mark.parametrize("point", ["after create", "before put", "after put", "before ticketed"])
async def test_a_run_whose_submitter_died_there_is_found_without_being_submitted_again(
    point: str, crew: Crew, opened: Opened, effects: Effects
) -> None:
    submitter = await crew.start(f"kill@{point}", act="tests.system.app:submit_journey")
    assert await submitter.ended() == -9
    async with opened(worker=True) as runtime:
        await runtime.handle("journey", Journey).signal(Journey.go, 7)
        await ends_right(runtime, effects)


async def everything(runtime: Runtime) -> list[tuple[Run, list[Entry]]]:
    """All rows with their journals."""
    rows = await runtime.store.list(RunQuery(limit=1000))
    return [(row, await runtime.store.load(row.run_id, after=-1)) for row in rows]


async def thawed(worker: Child) -> None:
    """It has noticed that it was declared dead, has registered anew, and drains when it is told to."""
    await anyio.sleep(LEASE_S / 2)
    worker.terminate()
    assert await worker.ended() == 0, worker.log()
