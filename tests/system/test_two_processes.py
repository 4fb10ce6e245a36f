"""Several processes on one file: nobody's live run is stolen, whatever stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from agentkit import Runtime
from agentkit.runtime.engine import ticket_of
from agentkit.testing.crash import Child, Crew, until
from tests.system import proof
from tests.system.app import Blocking, Charged, Effects, Slow
from tests.system.conftest import MARKS, Opened, open_runtime

pytestmark = MARKS

LONG_LEASE_S = 2.0  # here a machine too slow for its lease would fail the test: the other tests only gain a take-over by it


@pytest.fixture
async def pair(tmp_path: Path, url: str, effects: Effects) -> AsyncIterator[Crew]:
    async with Crew(tmp_path, "tests.system.app:runtime", url, lease_s=LONG_LEASE_S) as crew:
        yield crew


async def workers_of(runtime: Runtime) -> set[str]:
    return {row.worker_id for row in await runtime.store.workers()}


async def test_a_second_process_never_steals_a_live_run_even_with_a_ticket_delivered_twice(pair: Crew, url: str, effects: Effects) -> None:
    async with open_runtime(url, lease_s=LONG_LEASE_S) as runtime:
        await runtime.submit(Slow, 3 * LONG_LEASE_S, run_id="slow")
        owner = await pair.start("tell@inside step linger")
        await owner.reached("inside step linger")
        async with open_runtime(url, lease_s=LONG_LEASE_S, worker=True):
            (row,) = await runtime.store.get(["slow"])
            assert row is not None
            await runtime.tickets.put([ticket_of(row)])
            assert await proof.result_of(runtime, "slow", Slow) == 2
        row, _ = await proof.history(runtime.store, "slow")
        assert (row.fence, row.crashes) == (1, 0)
        assert proof.made(effects.lines(), "slow:linger#1") == 1


async def test_a_worker_whose_loop_is_blocked_for_three_leases_keeps_its_runs(pair: Crew, url: str, effects: Effects) -> None:
    async with open_runtime(url, lease_s=LONG_LEASE_S) as runtime:
        await runtime.submit(Blocking, 3 * LONG_LEASE_S, run_id="blocking")
        owner = await pair.start("tell@inside step block")
        await owner.reached("inside step block")
        before = await workers_of(runtime)
        async with open_runtime(url, lease_s=LONG_LEASE_S, worker=True):
            assert await proof.result_of(runtime, "blocking", Blocking) == 2
        row, _ = await proof.history(runtime.store, "blocking")
        assert (row.fence, row.crashes) == (1, 0)
        assert proof.made(effects.lines(), "blocking:block#1") == 1
        assert await workers_of(runtime) == before


async def test_a_loop_blocked_for_longer_than_its_stall_limit_loses_its_runs(
    tmp_path: Path, url: str, effects: Effects, opened: Opened
) -> None:
    async with opened() as runtime, Crew(tmp_path, "tests.system.app:runtime", url, lease_s=1.0, settings={"stall_limit_s": 1.0}) as crew:
        await runtime.submit(Blocking, 20.0, run_id="blocking")
        owner = await crew.start("tell@inside step block")
        await owner.reached("inside step block")
        async with opened(worker=True):
            assert await proof.result_of(runtime, "blocking", Blocking) == 2
        row, _ = await proof.history(runtime.store, "blocking")
        assert row.fence == 2
        assert proof.made(effects.lines(), "blocking:block#1") == 2


async def test_after_a_sleep_of_the_whole_machine_nobody_is_declared_dead(pair: Crew, url: str, effects: Effects) -> None:
    async with open_runtime(url, lease_s=LONG_LEASE_S) as runtime:
        await runtime.submit(Slow, 4 * LONG_LEASE_S, run_id="slow")
    workers: list[Child] = [await pair.start("tell@inside step linger") for _ in range(2)]

    async def begun() -> bool:
        return any("inside step linger" in worker.said for worker in workers)

    await until("one has the run", begun)
    async with open_runtime(url, lease_s=LONG_LEASE_S) as runtime:
        await until("both are there", lambda: _registered(runtime, 3))
        before = await workers_of(runtime) - {runtime.engine.worker_id}
    for worker in workers:
        worker.stop()
    for worker in workers:
        await worker.stopped()
    await anyio.sleep(3 * LONG_LEASE_S)
    for worker in workers:
        worker.go_on()
    # Only now an observer of ours: while they slept all processes of the machine slept.
    async with open_runtime(url, lease_s=LONG_LEASE_S) as runtime:
        assert await proof.result_of(runtime, "slow", Slow) == 2
        row, _ = await proof.history(runtime.store, "slow")
        assert (row.fence, row.crashes) == (1, 0)
        assert proof.made(effects.lines(), "slow:linger#1") == 1
        assert await workers_of(runtime) - {runtime.engine.worker_id} == before


async def test_two_workers_share_a_queue_and_every_run_is_made_once(pair: Crew, url: str, effects: Effects) -> None:
    runs = {f"run-{n}": f"fail {n}" for n in range(200)}
    async with open_runtime(url, lease_s=LONG_LEASE_S) as runtime:
        workers = [await pair.start("tell@after claim") for _ in range(2)]
        await until("both are there", lambda: _registered(runtime, 3))
        await runtime.submit_many(Charged, runs)
        for n, run_id in enumerate(runs):
            assert await proof.result_of(runtime, run_id, Charged) == 2 * n
        assert await proof.faults(runtime.store, list(runs), effects.lines()) == []
        assert len(effects.lines()) == len(runs)
        assert {line["pid"] for line in effects.lines()} == {worker.pid for worker in workers}


async def _registered(runtime: Runtime, n: int) -> bool:
    return len(await runtime.store.workers()) >= n
