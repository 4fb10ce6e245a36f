"""Who dies or freezes while it recovers others: take-over, wakes by signal and by timer."""

from __future__ import annotations

import pytest

from agentkit import Runtime
from agentkit.testing.crash import Crew, until
from tests.system import proof
from tests.system.app import Charged, Effects, Nap, Slow, Waiting
from tests.system.conftest import MARKS, Opened

pytestmark = MARKS

STATEMENTS = [f"inside sweep reap, after statement {n}" for n in (1, 2, 3, 4)]
"""Of the transaction that frees a dead worker's runs: its beat is gone, it is marked dead, its runs are found, they are freed."""
SWEEPING = ["before sweep reap", *STATEMENTS, "after sweep reap", "after sweep tickets"]


async def a_dead_owner(crew: Crew, runtime: Runtime) -> None:
    """A run whose worker was killed in its second step."""
    await runtime.submit(Slow, 0.2, run_id="slow")
    owner = await crew.start("kill@inside step linger")
    assert await owner.ended() == -9


@pytest.mark.parametrize("point", SWEEPING)
async def test_a_crash_there_in_a_take_over_is_finished_by_the_next_sweep(point: str, crew: Crew, opened: Opened, effects: Effects) -> None:
    async with opened() as runtime:
        await a_dead_owner(crew, runtime)
    second = await crew.start(f"kill@{point}")
    assert await second.ended() == -9, second.log()
    async with opened(worker=True) as runtime:
        assert await proof.result_of(runtime, "slow", Slow) == 2
        assert await proof.faults(runtime.store, ["slow"], effects.lines()) == []


@pytest.mark.parametrize("point", SWEEPING)
async def test_a_process_that_freezes_there_in_a_take_over_does_no_harm_when_it_thaws(
    point: str, crew: Crew, opened: Opened, effects: Effects
) -> None:
    async with opened() as runtime:
        await a_dead_owner(crew, runtime)
    second = await crew.start(f"stop@{point}")
    await second.reached(point)
    await second.stopped()
    if point in STATEMENTS:  # it holds the write lock: nobody can write, and nobody is to be declared dead for it
        second.go_on()
    async with opened(worker=True) as runtime:
        assert await proof.result_of(runtime, "slow", Slow) == 2
        second.go_on()
        second.terminate()
        assert await second.ended() == 0, second.log()
        assert await proof.faults(runtime.store, ["slow"], effects.lines()) == []


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("point", ["before signal", "after signal", "before put", "after put"])
async def test_a_park_never_sleeps_through_a_signal_whose_sender_died_or_froze_there(
    point: str, how: str, crew: Crew, opened: Opened, effects: Effects
) -> None:
    async with opened(worker=True) as runtime:
        handle = await runtime.submit(Waiting, 3, run_id="waiting")

        async def parked() -> bool:
            return (await handle.info()).status == "waiting"

        await until("the run parks", parked)
        sender = await crew.start(f"{how}@{point}", act="tests.system.app:wake_waiting")
        await sender.reached(point)
        if point == "before signal":
            await handle.signal(Waiting.go, 7, id="go")  # the sender repeats what it does not know to be done
        assert await proof.result_of(runtime, "waiting", Waiting) == 10
        sender.go_on()
        await sender.ended()
        assert await proof.faults(runtime.store, ["waiting"], []) == []


@pytest.mark.parametrize("point", ["after sweep tickets", "before put", "after put"])
async def test_a_timer_fires_once_although_the_process_that_woke_the_run_died_there(
    point: str, crew: Crew, opened: Opened, effects: Effects
) -> None:
    async with opened() as runtime:
        await runtime.submit(Nap, 1.5, run_id="nap")
    worker = await crew.start(f"kill@{point}")
    assert await worker.ended() == -9, worker.log()
    async with opened(worker=True) as runtime:
        assert await proof.result_of(runtime, "nap", Nap) == 2
        assert await proof.faults(runtime.store, ["nap"], effects.lines()) == []
        assert proof.made(effects.lines(), "nap:charge#1") == 1


async def test_a_run_that_ends_its_process_each_time_is_buried_and_its_neighbours_are_not(
    crew: Crew, opened: Opened, effects: Effects
) -> None:
    async with opened() as runtime:
        handle = await runtime.submit(Slow, 0.3, run_id="poison")
        for n in range(5):
            await runtime.submit(Charged, f"rerun {n}", run_id=f"neighbour-{n}")
        for _ in range(4):
            worker = await crew.start("kill@before step linger of poison")

            async def over(worker: object = worker) -> bool:
                return crew.children[-1].code is not None or (await handle.info()).status == "buried"

            await until("the worker dies of it, or the run is buried", over)
            if (await handle.info()).status == "buried":
                break
        info = await handle.info()
        assert (info.status, info.crashes) == ("buried", runtime.settings.max_crashes)
        async with opened(worker=True):
            for n in range(5):
                assert await proof.result_of(runtime, f"neighbour-{n}", Charged) == 2 * n
