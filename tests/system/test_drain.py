"""SIGTERM: a worker lets go of its runs and ends with 0; a crash on the way loses nothing."""

from __future__ import annotations

import signal

import pytest

from agentkit.ports.records import RunStatus
from agentkit.testing.crash import Crew, until
from tests.system import proof
from tests.system.app import Effects, Slow, Waiting
from tests.system.conftest import MARKS, Opened

pytestmark = MARKS

INSIDE = "inside step linger"
LEAVING = ["before write READY", "after write READY", "before give_back", "after give_back", "before retire", "after retire"]


async def test_a_drained_worker_ends_its_steps_releases_its_runs_and_ends_with_0(crew: Crew, opened: Opened, effects: Effects) -> None:
    async with opened() as runtime:
        await runtime.submit(Slow, 0.5, run_id="slow")
        worker = await crew.start(f"tell@{INSIDE}")
        await worker.reached(INSIDE)
        worker.terminate()
        assert await worker.ended() == 0, worker.log()
        row, entries = await proof.history(runtime.store, "slow")
        assert (row.status, row.owner, row.crashes) == (RunStatus.READY, None, 0)
        assert "linger#1" in [entry.key for entry in entries]
        assert len(await runtime.store.workers()) == 1  # the test's own
        (lease,) = await runtime.tickets.lease(1, wait_s=5, lease_s=1, kinds={"slow@1"})
        assert lease.deliveries == 1  # the one that was given back does not count
        await runtime.tickets.give_back([lease])
        async with opened(worker=True):
            assert await proof.result_of(runtime, "slow", Slow) == 2
        assert proof.made(effects.lines(), "slow:linger#1") == 1
        assert await proof.faults(runtime.store, ["slow"], effects.lines()) == []


async def test_a_second_signal_cuts_the_grace_and_the_run_is_released_all_the_same(crew: Crew, opened: Opened, effects: Effects) -> None:
    async with opened() as runtime:
        handle = await runtime.submit(Slow, 3600.0, run_id="slow")
        worker = await crew.start(f"tell@{INSIDE}")
        await worker.reached(INSIDE)
        worker.terminate()
        worker.send(signal.SIGINT)  # two of one kind may arrive as one

        async def over() -> bool:
            return worker.code is not None

        await until("the worker ends", over, patience_s=15)  # its grace is 20 s
        assert await worker.ended() == 0, worker.log()
        assert (await handle.info()).status == "queued"
        assert proof.made(effects.lines(), "slow:last#1") == 0


async def test_a_parked_run_stays_parked_when_its_worker_drains(crew: Crew, opened: Opened, effects: Effects) -> None:
    async with opened() as runtime:
        handle = await runtime.submit(Waiting, 1, run_id="waiting")
        worker = await crew.start("tell@after write PARKED")
        await worker.reached("after write PARKED")
        worker.terminate()
        assert await worker.ended() == 0, worker.log()
        assert (await handle.info()).status == "waiting"
        await handle.signal(Waiting.go, 2)
        async with opened(worker=True):
            assert await proof.result_of(runtime, "waiting", Waiting) == 3


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("point", LEAVING)
async def test_a_worker_that_dies_or_freezes_there_while_draining_loses_nothing(
    point: str, how: str, crew: Crew, opened: Opened, effects: Effects
) -> None:
    async with opened() as runtime:
        await runtime.submit(Slow, 0.3, run_id="slow")
        worker = await crew.start(f"tell@{INSIDE}", f"{how}@{point}")
        await worker.reached(INSIDE)
        worker.terminate()
        await worker.reached(point)
        async with opened(worker=True):
            assert await proof.result_of(runtime, "slow", Slow) == 2
        worker.go_on()
        assert await worker.ended() == (-9 if how == "kill" else 0), worker.log()
        assert await proof.faults(runtime.store, ["slow"], effects.lines()) == []
