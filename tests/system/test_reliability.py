"""What every store promises for the tasks of real workers: none is lost, none is done twice, none can end processes for ever."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from agentkit import Runtime, Settings
from agentkit.errors import RunBuried, StoreUnavailable
from agentkit.plugins import open_url
from agentkit.ports.queue import Lease, Queue
from agentkit.ports.records import RunStatus
from agentkit.testing.clock import FakeClock
from agentkit.testing.contract import as_time_passes
from agentkit.testing.crash import Child, Crew, until
from tests.system import proof
from tests.system.app import Effects, Slow
from tests.system.conftest import MARKS
from tests.system.reliability_app import AGENTS, Hangs
from tests.system.stores import SERVERS, Place, place

pytestmark = MARKS

SHORT_S = 1.5  # a lease that tests wait for: workers renew it every third, so they may stand still for a second
LONG_S = 60.0  # a lease that only a test's own clock lives through
IN_FLIGHT = 100
MAX_DELIVERIES = 2
SERVED = frozenset({"hangs@1"})


@pytest.fixture(params=["sqlite", *SERVERS])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store on a server of this test process."""
    url = f"sqlite:///{tmp_path}/agents.db" if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")
    return Place(url, url)


def crew_at(where: Place, folder: Path, *, lease_s: float = SHORT_S, **settings: object) -> Crew:
    return Crew(folder, "tests.system.reliability_app:runtime", where.state, lease_s=lease_s, settings=settings)


@asynccontextmanager
async def open_at(where: Place, *, worker: bool = False) -> AsyncGenerator[Runtime]:
    settings = Settings.model_validate({"lease_s": SHORT_S, "grace_s": 2.0, **where.settings})
    runtime = Runtime(agents=AGENTS, worker=worker, settings=settings)
    runtime.store.min_lease_s = SHORT_S  # the adapter's own is for slow machines; see `Crew`
    async with runtime:
        yield runtime


@asynccontextmanager
async def queue_at(where: Place, clock: FakeClock) -> AsyncGenerator[Queue]:
    queue: Queue = open_url("queue", where.queue, clock)
    await queue.open()
    try:
        yield queue
    finally:
        await queue.aclose()


async def taken(queue: Queue, clock: FakeClock) -> list[Lease]:
    """What a worker gets that waits at a queue where nothing else happens, until 1.25 leases of those who had it before are over."""
    got: list[Lease] = []
    while len(got) < IN_FLIGHT and (left_s := 1.25 * LONG_S - clock.monotonic()) > 0:
        ask = partial(queue.lease, IN_FLIGHT, wait_s=left_s, lease_s=10 * LONG_S, kinds=SERVED)
        leases, _ = await as_time_passes(clock.advance, left_s, ask)
        got += leases
    return got


async def test_a_hundred_tasks_of_a_killed_worker_are_delivered_again_within_a_quarter_lease_more_and_none_is_lost(
    there: Place, tmp_path: Path, effects: Effects
) -> None:
    ids = [f"run-{n}" for n in range(IN_FLIGHT)]

    async def in_flight() -> bool:
        return len(effects.lines()) == IN_FLIGHT

    async with open_at(there) as runtime:
        await runtime.submit_many(Hangs, dict.fromkeys(ids))
    async with crew_at(there, tmp_path, lease_s=LONG_S, concurrency=IN_FLIGHT) as crew:
        worker = await crew.start()
        await until("the worker has them all", in_flight)
        worker.kill()
        await worker.ended()
    clock = FakeClock(time.time())
    async with queue_at(there, clock) as queue:
        again = await taken(queue, clock)
        assert sorted(lease.ticket.run_id for lease in again) == sorted(ids)
        assert {lease.deliveries for lease in again} == {2}
        assert clock.monotonic() > LONG_S / 2, "not before the worker's leases were over"
        assert await queue.give_back(again) == [True] * IN_FLIGHT
    async with open_at(there, worker=True) as runtime:
        assert {await proof.result_of(runtime, run_id, Hangs) for run_id in ids} == {2}
        assert await proof.faults(runtime.store, ids, effects.lines()) == []


async def test_a_task_longer_than_its_lease_runs_once(there: Place, tmp_path: Path, effects: Effects) -> None:
    async with open_at(there) as runtime, crew_at(there, tmp_path) as crew:
        for _ in range(2):
            await crew.start()
        await runtime.submit(Slow, 2.25 * SHORT_S, run_id="long")
        assert await proof.result_of(runtime, "long", Slow) == 2
        row, _ = await proof.history(runtime.store, "long")
        assert (row.fence, row.crashes) == (1, 0)
        assert [proof.made(effects.lines(), f"long:{step}#1") for step in ("plan", "linger", "last")] == [1, 1, 1]


async def test_a_task_that_kills_each_process_it_is_delivered_to_is_buried_after_max_deliveries(
    there: Place, tmp_path: Path, effects: Effects
) -> None:
    async with open_at(there) as runtime, crew_at(there, tmp_path, max_deliveries=MAX_DELIVERIES) as crew:
        handle = await runtime.submit(Hangs, None, run_id="poison")

        async def over(worker: Child) -> bool:
            return worker.code is not None or (await handle.info()).status == "buried"

        while (await handle.info()).status != "buried":
            # Before anybody can have claimed it, so that nothing but its deliveries is counted.
            worker = await crew.start("kill@before claim")
            await until("the worker dies of it, or it is buried", partial(over, worker))
        with pytest.raises(RunBuried, match=f"delivered {MAX_DELIVERIES} times without an answer"):
            await handle.result()
        killed = [worker.code for worker in crew.children if worker.code is not None]
        # A sweep that misses the ticket while a dead worker has it puts another, whose deliveries begin anew.
        assert MAX_DELIVERIES <= len(killed) <= 2 * MAX_DELIVERIES

        async def laid_aside() -> bool:
            return [dead.ticket.run_id for dead in await runtime.tickets.dead()] == ["poison"]

        await until("its ticket follows the run, which is buried first", laid_aside)
        assert effects.lines() == []


@pytest.fixture(params=SERVERS)
async def lasting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """A server of the test's own that keeps what it acknowledges."""
    async with place(request.param, tmp_path) as where:
        yield where


async def test_a_server_that_is_stopped_and_started_ends_no_worker_and_no_finished_task_runs_again(
    lasting: Place, tmp_path: Path, effects: Effects
) -> None:
    ids = [f"run-{n}" for n in range(40)]
    [server] = lasting.servers
    async with open_at(lasting) as runtime, crew_at(lasting, tmp_path, concurrency=5) as crew:

        async def finished() -> list[str]:
            try:
                rows = await runtime.store.get(ids)
            except StoreUnavailable:
                return []
            return [row.run_id for row in rows if row is not None and row.status == RunStatus.COMPLETED]

        workers = [await crew.start() for _ in range(2)]
        await runtime.submit_many(Slow, dict.fromkeys(ids, 0.2))
        before = await until("some have ended", finished)
        await anyio.to_thread.run_sync(server.stop)
        await anyio.to_thread.run_sync(server.start)
        await until("the test's own connections are new", finished)
        assert {await proof.result_of(runtime, run_id, Slow, patience_s=60.0) for run_id in ids} == {2}
        assert await proof.faults(runtime.store, ids, effects.lines()) == []
        assert {proof.made(effects.lines(), f"{run_id}:linger#1") for run_id in before} == {1}
        assert [worker.code for worker in workers] == [None, None]
