"""The signal of any queue and the recorded target keep the laws of the ports, and what is their own: which source tells what."""

from __future__ import annotations

import pytest

from agentkit.errors import InvalidSetting
from agentkit.inmemory import scaling
from agentkit.inmemory.queue import InMemoryQueue
from agentkit.inmemory.runs import InMemoryRuns
from agentkit.inmemory.scaling import QueueSignal, RecordedTarget
from agentkit.ports.queue import Depth, Ticket
from agentkit.ports.records import Run, RunQuery, WorkerRow
from agentkit.ports.scaling import Sample, Scaled
from agentkit.testing.clock import FakeClock
from agentkit.testing.runs_base import claim, create, park, register
from agentkit.testing.scaling import SERVED, ScaleTargetContract, ScalingSignalContract, Sources, Watched, known

SLOTS = 4


class TestQueueSignal(ScalingSignalContract):
    @pytest.fixture
    def watched(self, clock: FakeClock) -> Watched:
        sources = Sources(clock)
        signal = QueueSignal(sources.queue, sources.runs, clock=clock, lease_s=self.lease_s, slots_per_worker=SLOTS)
        return Watched(signal, sources.queue, sources.runs, sources.cut)

    @pytest.fixture
    def second(self, watched: Watched, clock: FakeClock) -> Watched:
        return watched._replace(signal=QueueSignal(watched.queue, watched.runs, clock=clock, lease_s=self.lease_s))


class TestQueueSignalThatKnowsNoSlots(TestQueueSignal):
    @pytest.fixture
    def watched(self, clock: FakeClock) -> Watched:
        sources = Sources(clock)
        signal = QueueSignal(sources.queue, sources.runs, clock=clock, lease_s=self.lease_s)
        return Watched(signal, sources.queue, sources.runs, sources.cut)


class TestRecordedTarget(ScaleTargetContract):
    @pytest.fixture
    def target(self) -> RecordedTarget:
        return RecordedTarget(3, min_replicas=1, max_replicas=10)


class HoldsNoLeases(InMemoryQueue):
    """A queue whose ticket is finished right after the claim."""

    holds_leases = False


class Asked:
    """How often a signal asks, and for what."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        asked = self.calls

        class Tickets(InMemoryQueue):
            async def depth(self) -> dict[str, Depth]:
                asked.append("depth")
                return await super().depth()

        class Runs(InMemoryRuns):
            async def workers(self) -> list[WorkerRow]:
                asked.append("workers")
                return await super().workers()

            async def list(self, query: RunQuery) -> list[Run]:
                asked.append("list")
                return await super().list(query)

        self.queue, self.runs = Tickets(), Runs()


async def running(runs: InMemoryRuns, *names: str) -> None:
    worker = await register(runs)
    for name in names:
        await create(runs, name)
        await claim(runs, worker, name)


@pytest.mark.parametrize("waiting", [0, 500])
async def test_a_sample_asks_each_source_once_however_much_waits(waiting: int) -> None:
    asked = Asked()
    await asked.queue.put([Ticket(f"run-{n}", "review", "3") for n in range(waiting)])
    await QueueSignal(asked.queue, asked.runs).sample()
    assert asked.calls == ["depth", "workers"]


async def test_where_the_queue_holds_no_leases_running_runs_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "PAGE", 2)
    runs = InMemoryRuns()
    await running(runs, *(f"run-{n}" for n in range(5)))
    await park(runs, "parked")
    await create(runs, "ready")
    for queue, expected in ((HoldsNoLeases(), 5), (InMemoryQueue(), 0)):
        loads = known(await QueueSignal(queue, runs).sample())
        assert loads[SERVED].in_flight == expected


async def test_a_ticket_taken_while_a_sample_is_made_is_seen_in_one_place_or_the_other() -> None:
    """It was waiting when the depth was read, or else it is running when the runs are read: never neither."""
    runs = InMemoryRuns()

    class TakenMeanwhile(HoldsNoLeases):
        async def depth(self) -> dict[str, Depth]:
            depths = await super().depth()
            leases = await self.lease(1, wait_s=0, lease_s=30, kinds={SERVED})
            if leases:
                await running(runs, leases[0].ticket.run_id)
                await self.finish(leases)
            return depths

    queue = TakenMeanwhile()
    await queue.put([Ticket("run-1", "review", "3")])
    signal = QueueSignal(queue, runs)
    for _ in range(2):
        load = known(await signal.sample())[SERVED]
        assert load.waiting + load.in_flight >= 1


@pytest.mark.parametrize("source", ["queue", "runs"])
async def test_half_of_the_figures_are_no_figures(source: str) -> None:
    sources = Sources(FakeClock())
    signal = QueueSignal(sources.queue, sources.runs)
    (sources.queue if source == "queue" else sources.runs).is_cut = True
    sample = await signal.sample()
    assert sample.loads is None
    assert sample.problem == f"{source}: the test cut it off"


async def test_the_shortest_lease_of_the_store_bounds_who_is_taken_for_dead() -> None:
    clock = FakeClock()
    runs = InMemoryRuns(clock)
    runs.min_lease_s = 60.0
    signal = QueueSignal(InMemoryQueue(clock), runs, clock=clock, lease_s=1.0)
    await register(runs)
    workers: list[int] = []
    for _ in range(3):
        workers.append((await signal.sample()).workers)
        await clock.advance(40.0)
    assert workers == [1, 1, 0]


async def test_slots_are_those_of_the_living_workers() -> None:
    runs = InMemoryRuns()
    await register(runs)
    await register(runs)
    sample = await QueueSignal(InMemoryQueue(), runs, slots_per_worker=SLOTS).sample()
    assert (sample.slots, sample.free_slots) == (2 * SLOTS, 2 * SLOTS)


def test_a_sample_without_figures_has_no_free_slots_either() -> None:
    assert Sample(0.0, None, slots=4).free_slots is None


async def test_the_target_remembers_its_changes_with_their_time_and_nothing_else() -> None:
    clock = FakeClock(start=100.0)
    target = RecordedTarget(2, max_replicas=5, clock=clock)
    for replicas in (2, 9, 7, 0):
        await target.scale(replicas)
        await clock.advance(1.0)
    with pytest.raises(InvalidSetting):
        await target.scale(-1)
    assert target.history == [(101.0, Scaled(9, 2, 5)), (103.0, Scaled(0, 5, 0))]
    assert (await target.read()).desired == 0


@pytest.mark.parametrize(("replicas", "least", "most"), [(1, 2, 5), (6, 2, 5), (0, -1, 5), (3, 5, 2)])
def test_bounds_out_of_order_are_refused(replicas: int, least: int, most: int) -> None:
    with pytest.raises(InvalidSetting, match="must be from"):
        RecordedTarget(replicas, min_replicas=least, max_replicas=most)
