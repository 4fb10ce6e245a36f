"""The laws of crashes on servers, alone and mixed: a state here and its tickets there, with a kill between the two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from agentkit import Runtime
from agentkit.errors import StoreUnavailable
from agentkit.ports.records import RunStatus
from agentkit.testing.crash import Crew, until
from tests.system import proof
from tests.system.app import Charged, Effects, Slow
from tests.system.conftest import LEASE_S, MARKS, Opened, open_runtime
from tests.system.journeys import frozen_at, killed_at
from tests.system.stores import MIXED, SERVERS, Place, place

pytestmark = MARKS

POINTS = [
    "before put", "after put", "after claim", "after write INTENT", "inside step charge, after its effect", "after write CHILD",
    "after create children", "after write PARKED", "before tell", "after write SIGNAL", "after write COMPLETED", "before finish",
]  # fmt: skip
FROZEN = ["before write RESULT", "after step charge", "before write PARKED", "before write COMPLETED", "before finish"]
RUNS = 24


def open_at(where: Place, *, worker: bool = False) -> AbstractAsyncContextManager[Runtime]:
    return open_runtime(where.state, worker=worker, queue=where.queue)


def crew_at(where: Place, folder: Path) -> Crew:
    return Crew(folder, "tests.system.app:runtime", where.state, lease_s=LEASE_S, settings={"queue": where.queue})


@pytest.fixture(params=[*SERVERS, *MIXED])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Empty stores on the servers of this test process, which go on while workers die."""
    urls = {"sqlite": f"sqlite:///{tmp_path}/agents.db"}
    kinds = request.param.split("+")
    found = [urls.get(kind) or request.getfixturevalue(f"{kind}_url") for kind in kinds]
    return Place(found[0], found[-1])


@pytest.fixture
async def crew(there: Place, tmp_path: Path, effects: Effects) -> AsyncIterator[Crew]:
    async with crew_at(there, tmp_path) as crew:
        yield crew


@pytest.fixture
def opened(there: Place, effects: Effects) -> Opened:
    return partial(open_at, there)


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_killed_there_is_taken_over_and_the_run_ends_once(point: str, crew: Crew, opened: Opened, effects: Effects) -> None:
    await killed_at(point, crew, opened, effects)


@pytest.mark.parametrize("point", FROZEN)
async def test_a_worker_frozen_there_longer_than_a_lease_writes_nothing_when_it_thaws(
    point: str, crew: Crew, opened: Opened, effects: Effects
) -> None:
    async with frozen_at(point, crew, opened, effects) as (runtime, worker):
        before = await proof.history(runtime.store, "journey")
        worker.go_on()
        await anyio.sleep(LEASE_S)
        assert await proof.history(runtime.store, "journey") == before
        assert worker.code is None


async def test_a_run_whose_ticket_is_lost_between_the_two_stores_is_found_by_recovery(
    there: Place, opened: Opened, effects: Effects
) -> None:
    async with opened() as runtime:
        await runtime.submit(Charged, "rerun 1", run_id="run-1")
        for lease in await runtime.tickets.lease(10, wait_s=1.0, kinds=set(runtime.registry.kinds()), lease_s=LEASE_S):
            await runtime.tickets.finish([lease])  # as a broker does that forgets
        async with opened(worker=True):
            assert await proof.result_of(runtime, "run-1", Charged) == 2
        assert await proof.faults(runtime.store, ["run-1"], effects.lines()) == []


@pytest.mark.parametrize("name", [*SERVERS, *MIXED])
async def test_servers_killed_in_the_middle_lose_nothing_and_no_worker_exits(name: str, tmp_path: Path, effects: Effects) -> None:
    async with place(name, tmp_path) as where, open_at(where) as runtime, crew_at(where, tmp_path) as crew:
        workers = [await crew.start() for _ in range(2)]
        ids = [f"run-{n}" for n in range(RUNS)]
        await runtime.submit_many(Slow, dict.fromkeys(ids, 0.5))
        await until("some runs ended", partial(_ended, runtime, ids, 2))
        for server in where.servers:
            await anyio.to_thread.run_sync(server.kill)
        await anyio.sleep(2 * LEASE_S)
        for server in where.servers:
            await anyio.to_thread.run_sync(server.start)
        for run_id in ids:
            assert await proof.result_of(runtime, run_id, Slow, patience_s=60.0) == 2
        assert await proof.faults(runtime.store, ids, effects.lines()) == []
        assert [worker.code for worker in workers] == [None, None]


async def test_a_worker_that_starts_while_its_server_is_down_waits_for_it(tmp_path: Path, effects: Effects) -> None:
    async with place("postgresql", tmp_path) as where, crew_at(where, tmp_path) as crew:
        (server,) = where.servers
        async with open_at(where) as runtime:
            await runtime.submit(Slow, 0.1, run_id="run-1")
        await anyio.to_thread.run_sync(server.stop)
        worker = await crew.start()

        async def waits() -> bool:
            return "waits for its stores" in worker.log()

        await until("it says what it waits for", waits)
        await anyio.to_thread.run_sync(server.start)
        async with open_at(where) as runtime:
            assert await proof.result_of(runtime, "run-1", Slow) == 2
        worker.terminate()
        assert await worker.ended() == 0


async def _ended(runtime: Runtime, ids: list[str], at_least: int) -> bool:
    try:
        rows = await runtime.store.get(ids)
    except StoreUnavailable:
        return False
    return sum(row is not None and row.status == RunStatus.COMPLETED for row in rows) >= at_least
