"""The laws of the `ScalingSignal` and `ScaleTarget` ports as tests. An adapter's test file is a subclass with one fixture:

class TestMySignal(ScalingSignalContract):
    @pytest.fixture
    def watched(self, clock):
        sources = Sources(clock)
        return Watched(MySignal(sources.queue, sources.runs, clock=clock, lease_s=self.lease_s), sources.queue, sources.runs, sources.cut)

class TestMyTarget(ScaleTargetContract):
    @pytest.fixture
    def target(self):
        return MyTarget(replicas=3, min_replicas=1, max_replicas=10)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from agentkit.clock import Clock
from agentkit.errors import InvalidSetting, StoreUnavailable
from agentkit.inmemory.queue import InMemoryQueue
from agentkit.inmemory.runs import InMemoryRuns
from agentkit.ports.queue import Depth, Lease, Queue, Ticket
from agentkit.ports.records import Run, RunQuery, WorkerRow
from agentkit.ports.runs import RunStore
from agentkit.ports.scaling import Load, Sample, Scale, Scaled, ScaleTarget, ScalingSignal
from agentkit.testing.contract import Advance, Contract, needs
from agentkit.testing.runs_base import KIND, VERSION, claim, completed, create, parked, register, release

SERVED = f"{KIND}@{VERSION}"
OLDER = f"{KIND}@2"
MANY = 50


class Watched(NamedTuple):
    """A signal, and what it watches."""

    signal: ScalingSignal
    queue: Queue
    runs: RunStore
    cut: Callable[[bool], None]
    """True: from now on nothing that the signal reads answers. False: it answers again."""


class CutQueue(InMemoryQueue):
    """A queue in memory whose depth can be out of reach."""

    is_cut = False

    async def depth(self) -> dict[str, Depth]:
        if self.is_cut:
            raise StoreUnavailable("queue", "the test cut it off")
        return await super().depth()


class CutRuns(InMemoryRuns):
    """Runs in memory whose lists can be out of reach."""

    is_cut = False

    async def workers(self) -> list[WorkerRow]:
        self._answer()
        return await super().workers()

    async def list(self, query: RunQuery) -> list[Run]:
        self._answer()
        return await super().list(query)

    def _answer(self) -> None:
        if self.is_cut:
            raise StoreUnavailable("runs", "the test cut it off")


class Sources:
    """A queue and runs in memory, for a signal that samples any."""

    def __init__(self, clock: Clock) -> None:
        self.queue, self.runs = CutQueue(clock), CutRuns(clock)

    def cut(self, off: bool) -> None:
        self.queue.is_cut = self.runs.is_cut = off


def known(sample: Sample) -> Mapping[str, Load]:
    """The figures of a sample that must have some, of now."""
    assert sample.fresh, sample.problem
    assert sample.loads is not None
    return sample.loads


class ScalingSignalContract(Contract):
    """Every law of a signal. Needs the fixture `watched`: the signal, which takes a worker for dead after `lease_s`, and the open, empty
    queue and runs that it watches, all with the time of `clock`. A signal that reads neither makes `cut` cut off what it reads.
    """

    async def load(self, watched: Watched, kind: str = SERVED) -> Load:
        return known(await watched.signal.sample()).get(kind, Load())

    @pytest.fixture
    def second(self, watched: Watched) -> Watched:
        """The same, watched by another signal, as another process would have it."""
        return watched

    async def put(self, watched: Watched, count: int, *, name: str = "run", kind: str = SERVED, delay_s: float = 0.0) -> None:
        agent, _, version = kind.partition("@")
        await watched.queue.put([Ticket(f"{name}-{n}", agent, version) for n in range(count)], delay_s=delay_s)

    async def take(self, watched: Watched, count: int) -> list[Lease]:
        leases = await watched.queue.lease(count, wait_s=0.0, lease_s=self.lease_s, kinds={SERVED})
        assert len(leases) == count
        return leases

    async def test_what_waits_is_counted_for_each_version_with_the_age_of_the_oldest(self, watched: Watched, advance: Advance) -> None:
        await self.put(watched, 1)
        await advance(self.lease_s / 2)
        await self.put(watched, 2, name="later")
        await self.put(watched, MANY, name="old", kind=OLDER)
        new, old = await self.load(watched), await self.load(watched, OLDER)
        assert (new.waiting, old.waiting) == (3, MANY)
        assert new.oldest_s == pytest.approx(self.lease_s / 2, abs=0.2 * self.lease_s)
        assert old.oldest_s < new.oldest_s

    async def test_work_in_flight_counts_until_it_is_answered_though_nothing_waits(self, watched: Watched) -> None:
        await self.put(watched, 3)
        leases = await self.take(watched, 3)
        assert (await self.load(watched))[:2] == (0, 3)
        await watched.queue.finish(leases[:1])
        await watched.queue.give_back(leases[1:2])
        assert (await self.load(watched))[:2] == (1, 1)

    async def test_work_of_a_worker_that_went_silent_still_counts(self, watched: Watched, advance: Advance) -> None:
        await self.put(watched, 2)
        await self.take(watched, 2)
        await advance(1.25 * self.lease_s)
        load = await self.load(watched)
        assert load.waiting + load.in_flight == 2

    async def test_what_is_delayed_is_told_apart_until_it_is_due_though_no_worker_asks_for_it(
        self, watched: Watched, advance: Advance
    ) -> None:
        needs(watched.queue.supports_delay, "supports_delay")
        await self.put(watched, 2)
        await self.put(watched, 5, name="later", delay_s=self.lease_s)
        assert (await self.load(watched))[:3] == (2, 0, 5)
        await advance(1.25 * self.lease_s)
        assert (await self.load(watched))[:3] == (7, 0, 0)

    async def test_parked_and_ended_runs_count_nowhere(self, watched: Watched) -> None:
        worker = await register(watched.runs)
        for name, how in (("asks", None), ("done", completed())):
            await create(watched.runs, name)
            await watched.queue.put([Ticket(name, KIND, VERSION)])
            leases = await self.take(watched, 1)
            run = await claim(watched.runs, worker, name)
            assert (await self.load(watched)).in_flight >= 1
            await release(watched.runs, worker, run, how or parked(run))
            await watched.queue.finish(leases)
        assert (await self.load(watched))[:3] == (0, 0, 0)

    async def test_dead_letters_count_nowhere(self, watched: Watched) -> None:
        await self.put(watched, 2)
        await watched.queue.bury(await self.take(watched, 2), "poison")
        assert (await self.load(watched))[:3] == (0, 0, 0)

    async def test_a_living_worker_counts_once_for_each_kind_that_it_serves(self, watched: Watched) -> None:
        await watched.runs.register("both", f"{SERVED},{OLDER}", "host-1")
        await watched.runs.register("one", SERVED, "host-2")
        sample = await watched.signal.sample()
        loads = known(sample)
        assert (loads[SERVED].workers, loads[OLDER].workers, sample.workers) == (2, 1, 2)

    async def test_a_process_that_only_submits_is_no_worker(self, watched: Watched) -> None:
        await watched.runs.register("web", "", "host-1")
        sample = await watched.signal.sample()
        assert (dict(known(sample)), sample.workers) == ({}, 0)

    async def test_a_worker_that_retired_is_not_alive(self, watched: Watched) -> None:
        await watched.runs.register("done", SERVED, "host-1")
        await watched.runs.retire("done")
        sample = await watched.signal.sample()
        assert ((await self.load(watched)).workers, sample.workers) == (0, 0)

    async def test_a_worker_whose_beat_stood_still_for_a_lease_is_not_alive_until_it_beats(
        self, watched: Watched, advance: Advance
    ) -> None:
        for name in ("silent", "beats"):
            await watched.runs.register(name, SERVED, name)
        assert (await self.load(watched)).workers == 2
        await advance(0.75 * self.lease_s)
        await watched.runs.beat("beats")
        assert (await self.load(watched)).workers == 2
        await advance(0.5 * self.lease_s)
        await watched.runs.beat("beats")
        sample = await watched.signal.sample()
        assert (known(sample)[SERVED].workers, sample.workers) == (1, 1)
        await watched.runs.beat("silent")
        assert (await self.load(watched)).workers == 2

    async def test_nobody_is_silent_because_the_sources_were_away(self, watched: Watched, advance: Advance) -> None:
        await watched.runs.register("worker", SERVED, "host-1")
        assert (await self.load(watched)).workers == 1
        watched.cut(True)
        await watched.signal.sample()
        await advance(1.25 * self.lease_s)
        watched.cut(False)
        assert (await self.load(watched)).workers == 1

    async def test_no_work_is_a_figure_of_now_too(self, watched: Watched) -> None:
        assert dict(known(await watched.signal.sample())) == {}
        await register(watched.runs)
        assert known(await watched.signal.sample())[SERVED] == Load(workers=1)

    async def test_a_first_sample_that_could_not_be_taken_has_no_figures(self, watched: Watched) -> None:
        await self.put(watched, 2)
        watched.cut(True)
        sample = await watched.signal.sample()
        assert sample.loads is None
        assert sample.free_slots is None
        assert not sample.fresh
        assert sample.problem

    async def test_a_sample_that_could_not_be_taken_tells_the_last_figures_with_their_own_time(
        self, watched: Watched, advance: Advance
    ) -> None:
        await self.put(watched, 3)
        await self.take(watched, 1)
        good = await watched.signal.sample()
        watched.cut(True)
        for _ in range(3):
            await advance(self.lease_s)
            stale = await watched.signal.sample()
            assert not stale.fresh
            assert stale._replace(problem="") == good

    async def test_figures_are_of_now_again_when_the_sources_answer(self, watched: Watched, advance: Advance) -> None:
        await self.put(watched, 1)
        good = await watched.signal.sample()
        watched.cut(True)
        await watched.signal.sample()
        await advance(self.lease_s)
        await self.put(watched, 4, name="old", kind=OLDER)
        watched.cut(False)
        sample = await watched.signal.sample()
        assert (known(sample)[SERVED].waiting, known(sample)[OLDER].waiting) == (1, 4)
        assert sample.at > good.at

    async def test_whoever_samples_is_told_the_same(self, watched: Watched, second: Watched) -> None:
        await self.put(watched, MANY)
        await self.take(watched, 2)
        await watched.runs.register("worker", SERVED, "host-1")
        for each in (watched, second, watched):
            assert (await self.load(each))._replace(oldest_s=0.0) == Load(waiting=MANY - 2, in_flight=2, workers=1)

    async def test_sampling_changes_nothing(self, watched: Watched) -> None:
        await self.put(watched, 3)
        await watched.runs.register("worker", SERVED, "host-1")
        await self.take(watched, 1)
        workers = await watched.runs.workers()
        for _ in range(MANY):
            await watched.signal.sample()
        assert (await watched.queue.depth())[SERVED][:4] == Depth(ready=2, leased=1)[:4]
        assert await watched.runs.workers() == workers

    async def test_free_slots_are_those_that_no_work_in_flight_holds(self, watched: Watched) -> None:
        await watched.runs.register("worker", SERVED, "host-1")
        idle = await watched.signal.sample()
        await self.put(watched, MANY)
        await self.take(watched, 1)
        busy = await watched.signal.sample()
        if idle.slots is None:
            assert (idle.free_slots, busy.free_slots) == (None, None)
        else:
            assert (idle.free_slots, busy.free_slots) == (idle.slots, max(0, idle.slots - 1))
            assert idle.slots == busy.slots


class ScaleTargetContract(Contract):
    """Every law of a target. Needs the fixture `target`: one that has 3 replicas, at least 1 and at most 10.

    Override `second` with another client of the same target where there can be one.
    """

    @pytest.fixture
    def second(self, target: ScaleTarget) -> ScaleTarget:
        """Another client of the same target, as another process would have it."""
        return target

    async def test_read_tells_the_number_and_its_bounds(self, target: ScaleTarget) -> None:
        scale = await target.read()
        assert scale == Scale(3, scale.ready, 1, 10)
        assert scale.ready >= 0

    @pytest.mark.parametrize("replicas", [1, 2, 7, 10])
    async def test_read_after_scale_sees_it_whoever_reads(self, target: ScaleTarget, second: ScaleTarget, replicas: int) -> None:
        assert await target.scale(replicas) == Scaled(replicas, 3, replicas)
        assert (await target.read()).desired == replicas
        assert (await second.read()).desired == replicas
        assert await second.scale(5) == Scaled(5, replicas, 5)
        assert (await target.read()).desired == 5

    @pytest.mark.parametrize(("asked", "given"), [(0, 1), (11, 10), (1_000_000, 10)])
    async def test_scale_stays_within_the_bounds_and_says_so(self, target: ScaleTarget, asked: int, given: int) -> None:
        assert await target.scale(asked) == Scaled(asked, 3, given)
        assert (await target.read()).desired == given

    async def test_scaling_to_what_is_there_changes_nothing(self, target: ScaleTarget, second: ScaleTarget) -> None:
        before = await target.read()
        assert await target.scale(3) == Scaled(3, 3, 3)
        assert await second.scale(3) == Scaled(3, 3, 3)
        assert await target.read() == before

    @pytest.mark.parametrize("replicas", [-1, -10])
    async def test_a_negative_number_is_refused_and_nothing_changes(self, target: ScaleTarget, replicas: int) -> None:
        before = await target.read()
        with pytest.raises(InvalidSetting) as refused:
            await target.scale(replicas)
        assert refused.value.value == replicas
        assert await target.read() == before

    async def test_the_bounds_stay_as_they_are(self, target: ScaleTarget) -> None:
        for replicas in (0, 4, 1000):
            await target.scale(replicas)
            assert (await target.read())[2:] == (1, 10)
