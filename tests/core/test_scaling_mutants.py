"""For each law of scaling an adapter that drops it, and the test of the suite that fails on it."""

from __future__ import annotations

from functools import partial

import pytest

from agentkit.errors import StoreUnavailable
from agentkit.inmemory.scaling import QueueSignal, RecordedTarget
from agentkit.ports.records import RunQuery, RunStatus
from agentkit.ports.scaling import Load, Sample, Scale, Scaled
from agentkit.testing.clock import FakeClock
from agentkit.testing.scaling import SERVED, ScaleTargetContract, ScalingSignalContract, Sources, Watched
from tests.core.mutants import Broken, assert_only_the_mutant_breaks, laws_without_a_mutant, named

LEASE_S = ScalingSignalContract.lease_s


class Changed(QueueSignal):
    """A signal that says something else of each kind than what it read."""

    async def sample(self) -> Sample:
        sample = await super().sample()
        return sample if sample.loads is None else sample._replace(loads={kind: self.load(load) for kind, load in sample.loads.items()})

    def load(self, load: Load) -> Load:
        return load


class SeesOnlyWhatWaits(Changed):
    """What most scalers of queues count: the busy are idle."""

    def load(self, load: Load) -> Load:
        return load._replace(in_flight=0)


class SeesOnlyWhatIsTaken(Changed):
    def load(self, load: Load) -> Load:
        return load._replace(waiting=0)


class TellsNoAge(Changed):
    def load(self, load: Load) -> Load:
        return load._replace(oldest_s=0.0)


class TakesTheDelayedForWaiting(Changed):
    def load(self, load: Load) -> Load:
        return load._replace(waiting=load.waiting + load.delayed, delayed=0)


class ForgetsWorkers(Changed):
    def load(self, load: Load) -> Load:
        return load._replace(workers=0)


class AddsUpAllKinds(QueueSignal):
    async def sample(self) -> Sample:
        sample = await super().sample()
        return sample._replace(loads={SERVED: Load(*map(sum, zip(*(sample.loads or {}).values(), strict=True)))} if sample.loads else {})


class CountsRunsOfState(QueueSignal):
    state = RunStatus.PARKED

    async def sample(self) -> Sample:
        sample = await super().sample()
        runs = await self._runs.list(RunQuery(status=frozenset({self.state})))
        load = (sample.loads or {}).get(SERVED, Load())
        return sample._replace(loads={**(sample.loads or {}), SERVED: load._replace(in_flight=load.in_flight + len(runs))})


class CountsEndedRuns(CountsRunsOfState):
    state = RunStatus.COMPLETED


class CountsDeadLetters(QueueSignal):
    async def sample(self) -> Sample:
        sample, dead = await super().sample(), await self._queue.dead()
        load = (sample.loads or {}).get(SERVED, Load())
        return sample._replace(loads={**(sample.loads or {}), SERVED: load._replace(waiting=load.waiting + len(dead))})


class CountsWorkersByKind(QueueSignal):
    """One that serves two kinds is two workers."""

    async def sample(self) -> Sample:
        sample = await super().sample()
        return sample._replace(workers=sum(load.workers for load in (sample.loads or {}).values()))


class CountsEveryRegistration(QueueSignal):
    """Who only submits, too."""

    async def sample(self) -> Sample:
        return (await super().sample())._replace(workers=len(await self._runs.workers()))


class RemembersWorkers(QueueSignal):
    """Counts all that ever registered."""

    async def sample(self) -> Sample:
        sample = await super().sample()
        return sample._replace(workers=max(1, sample.workers))


class BelievesEveryRow(QueueSignal):
    """A worker is alive until somebody declares it dead, which nobody does in a fleet of none."""

    async def sample(self) -> Sample:
        self._beats = {}
        return await super().sample()


class NeverForgives(QueueSignal):
    """Who was silent once is dead for good."""

    async def sample(self) -> Sample:
        sample = await super().sample()
        self._dead: set[str] = getattr(self, "_dead", set())
        self._dead |= {worker for worker, beat in self._beats.items() if self._clock.monotonic() - beat.since >= LEASE_S}
        loads = {kind: load._replace(workers=2 - len(self._dead)) for kind, load in (sample.loads or {}).items()}
        return sample._replace(loads=loads, workers=2 - len(self._dead))


class WatchesThroughOutages(QueueSignal):
    async def sample(self) -> Sample:
        beats = self._beats
        sample = await super().sample()
        if not sample.fresh:
            self._beats = beats
        return sample


class TakesNothingForUnknown(QueueSignal):
    async def sample(self) -> Sample:
        sample = await super().sample()
        return sample if sample.loads else sample._replace(loads=None, problem="no data")


class ReportsZero(QueueSignal):
    """What a lost metric reads as in many a scaler: it takes a busy fleet down."""

    async def sample(self) -> Sample:
        sample = await super().sample()
        return sample if sample.fresh else Sample(self._clock.time(), {})


class ReportsZeroAndSaysWhy(QueueSignal):
    async def sample(self) -> Sample:
        sample = await super().sample()
        return sample if sample.fresh else sample._replace(loads={})


class Raises(QueueSignal):
    async def sample(self) -> Sample:
        sample = await super().sample()
        if not sample.fresh:
            raise StoreUnavailable("queue", sample.problem)
        return sample


class HidesThatItIsStale(QueueSignal):
    async def sample(self) -> Sample:
        return (await super().sample())._replace(problem="")


class MakesOldFiguresNew(QueueSignal):
    async def sample(self) -> Sample:
        return (await super().sample())._replace(at=self._clock.time())


class StaysStale(QueueSignal):
    """After one failure it answers from memory."""

    async def sample(self) -> Sample:
        last: Sample | None = getattr(self, "_failed", None)
        sample = last or await super().sample()
        self._failed = None if sample.fresh else sample
        return sample


class LooksByLeasing(QueueSignal):
    """It takes what waits to see what there is, and gives it back later."""

    async def sample(self) -> Sample:
        sample = await super().sample()
        leases = await self._queue.lease(1, wait_s=0.0, lease_s=LEASE_S, kinds={SERVED})
        await self._queue.give_back(leases, delay_s=LEASE_S)
        return sample


class KeepsWhatItSees(QueueSignal):
    """It beats for the workers that it finds, and so keeps dead ones alive."""

    async def sample(self) -> Sample:
        sample = await super().sample()
        if sample.fresh:
            for row in await self._runs.workers():
                await self._runs.beat(row.worker_id)
        return sample


class TellsWhatIsNew(QueueSignal):
    """The first who asks is told all, the next what came since."""

    async def sample(self) -> Sample:
        sample = await super().sample()
        told = getattr(self, "_told", 0)
        load = (sample.loads or {}).get(SERVED, Load())
        self._told = load.waiting
        return sample._replace(loads={**(sample.loads or {}), SERVED: load._replace(waiting=load.waiting - told)})


class TakesAllSlotsForFree(QueueSignal):
    async def sample(self) -> Sample:
        sample = await super().sample()
        busy = sum(load.in_flight for load in (sample.loads or {}).values())
        return sample._replace(slots=(sample.slots or 0) + busy)


SIGNALS: list[Broken[QueueSignal]] = [
    (SeesOnlyWhatIsTaken, "what_waits_is_counted_for_each_version_with_the_age_of_the_oldest", {}),
    (AddsUpAllKinds, "what_waits_is_counted_for_each_version_with_the_age_of_the_oldest", {}),
    (TellsNoAge, "what_waits_is_counted_for_each_version_with_the_age_of_the_oldest", {}),
    (SeesOnlyWhatWaits, "work_in_flight_counts_until_it_is_answered_though_nothing_waits", {}),
    (SeesOnlyWhatIsTaken, "work_in_flight_counts_until_it_is_answered_though_nothing_waits", {}),
    (SeesOnlyWhatIsTaken, "work_of_a_worker_that_went_silent_still_counts", {}),
    (TakesTheDelayedForWaiting, "what_is_delayed_is_told_apart_until_it_is_due_though_no_worker_asks_for_it", {}),
    (CountsRunsOfState, "parked_and_ended_runs_count_nowhere", {}),
    (CountsEndedRuns, "parked_and_ended_runs_count_nowhere", {}),
    (CountsDeadLetters, "dead_letters_count_nowhere", {}),
    (ForgetsWorkers, "a_living_worker_counts_once_for_each_kind_that_it_serves", {}),
    (CountsWorkersByKind, "a_living_worker_counts_once_for_each_kind_that_it_serves", {}),
    (CountsEveryRegistration, "a_process_that_only_submits_is_no_worker", {}),
    (RemembersWorkers, "a_worker_that_retired_is_not_alive", {}),
    (BelievesEveryRow, "a_worker_whose_beat_stood_still_for_a_lease_is_not_alive_until_it_beats", {}),
    (NeverForgives, "a_worker_whose_beat_stood_still_for_a_lease_is_not_alive_until_it_beats", {}),
    (WatchesThroughOutages, "nobody_is_silent_because_the_sources_were_away", {}),
    (TakesNothingForUnknown, "no_work_is_a_figure_of_now_too", {}),
    (ReportsZero, "a_first_sample_that_could_not_be_taken_has_no_figures", {}),
    (ReportsZeroAndSaysWhy, "a_first_sample_that_could_not_be_taken_has_no_figures", {}),
    (Raises, "a_first_sample_that_could_not_be_taken_has_no_figures", {}),
    (HidesThatItIsStale, "a_first_sample_that_could_not_be_taken_has_no_figures", {}),
    (ReportsZero, "a_sample_that_could_not_be_taken_tells_the_last_figures_with_their_own_time", {}),
    (ReportsZeroAndSaysWhy, "a_sample_that_could_not_be_taken_tells_the_last_figures_with_their_own_time", {}),
    (HidesThatItIsStale, "a_sample_that_could_not_be_taken_tells_the_last_figures_with_their_own_time", {}),
    (MakesOldFiguresNew, "a_sample_that_could_not_be_taken_tells_the_last_figures_with_their_own_time", {}),
    (StaysStale, "figures_are_of_now_again_when_the_sources_answer", {}),
    (TellsWhatIsNew, "whoever_samples_is_told_the_same", {}),
    (LooksByLeasing, "sampling_changes_nothing", {}),
    (KeepsWhatItSees, "sampling_changes_nothing", {}),
    (TakesAllSlotsForFree, "free_slots_are_those_that_no_work_in_flight_holds", {}),
    (SeesOnlyWhatWaits, "free_slots_are_those_that_no_work_in_flight_holds", {}),
]


class TakesAnyNumber(RecordedTarget):
    async def scale(self, replicas: int) -> Scaled:
        if replicas >= 0:
            return await super().scale(replicas)
        scaled = Scaled(replicas, self._replicas, 0)
        self._replicas = 0
        return scaled


class RefusesTooLate(RecordedTarget):
    async def scale(self, replicas: int) -> Scaled:
        if replicas < 0:
            self._replicas = 0
        return await super().scale(replicas)


class TakesNegativeForTheLeast(RecordedTarget):
    async def scale(self, replicas: int) -> Scaled:
        return await super().scale(max(0, replicas))


class KnowsNoBounds(RecordedTarget):
    async def scale(self, replicas: int) -> Scaled:
        scaled = Scaled(replicas, (await super().scale(replicas)).before, replicas)
        self._replicas = replicas
        return scaled


class KeepsNoLeast(RecordedTarget):
    async def scale(self, replicas: int) -> Scaled:
        scaled = await super().scale(replicas)
        self._replicas = min(replicas, scaled.after)
        return scaled._replace(after=self._replicas)


class SaysWhatWasAsked(RecordedTarget):
    """It stays within the bounds, and does not tell."""

    async def scale(self, replicas: int) -> Scaled:
        return (await super().scale(replicas))._replace(after=replicas)


class ReadsTheStart(RecordedTarget):
    """A copy that nobody renews."""

    async def read(self) -> Scale:
        self._seen = getattr(self, "_seen", None) or await super().read()
        return self._seen


class ScalesLater(RecordedTarget):
    async def scale(self, replicas: int) -> Scaled:
        before, last = self._replicas, getattr(self, "_asked", self._replicas)
        self._asked = replicas
        scaled = await super().scale(last)
        return scaled._replace(asked=replicas, before=before, after=replicas)


class AddsInstead(RecordedTarget):
    """It takes the number for a difference where it is the number that is there."""

    async def scale(self, replicas: int) -> Scaled:
        return await super().scale(replicas + (replicas == self._replicas))


class WidensItsBounds(RecordedTarget):
    async def scale(self, replicas: int) -> Scaled:
        scaled = await super().scale(replicas)
        self._max = max(self._max, replicas)
        return scaled


class TellsOtherBounds(RecordedTarget):
    async def read(self) -> Scale:
        return (await super().read())._replace(min_replicas=0)


TARGETS: list[Broken[RecordedTarget]] = [
    (TellsOtherBounds, "read_tells_the_number_and_its_bounds", {}),
    (ReadsTheStart, "read_after_scale_sees_it_whoever_reads", {"replicas": 7}),
    (ScalesLater, "read_after_scale_sees_it_whoever_reads", {"replicas": 7}),
    (KnowsNoBounds, "scale_stays_within_the_bounds_and_says_so", {"asked": 11, "given": 10}),
    (KeepsNoLeast, "scale_stays_within_the_bounds_and_says_so", {"asked": 0, "given": 1}),
    (SaysWhatWasAsked, "scale_stays_within_the_bounds_and_says_so", {"asked": 11, "given": 10}),
    (AddsInstead, "scaling_to_what_is_there_changes_nothing", {}),
    (TakesAnyNumber, "a_negative_number_is_refused_and_nothing_changes", {"replicas": -1}),
    (RefusesTooLate, "a_negative_number_is_refused_and_nothing_changes", {"replicas": -1}),
    (TakesNegativeForTheLeast, "a_negative_number_is_refused_and_nothing_changes", {"replicas": -1}),
    (WidensItsBounds, "the_bounds_stay_as_they_are", {}),
]


def watched_by(signal: type[QueueSignal], clock: FakeClock) -> Watched:
    sources = Sources(clock)
    made = signal(sources.queue, sources.runs, clock=clock, lease_s=LEASE_S, slots_per_worker=4)
    return Watched(made, sources.queue, sources.runs, sources.cut)


def target(kind: type[RecordedTarget], clock: FakeClock) -> RecordedTarget:
    return kind(3, min_replicas=1, max_replicas=10, clock=clock)


@pytest.mark.parametrize(("mutant", "law", "given"), named(SIGNALS))
async def test_the_suite_notices_a_signal_that(mutant: type[QueueSignal], law: str, given: dict[str, object]) -> None:
    right, wrong = partial(watched_by, QueueSignal), partial(watched_by, mutant)
    await assert_only_the_mutant_breaks(ScalingSignalContract, law, right, wrong, **given)


@pytest.mark.parametrize(("mutant", "law", "given"), named(TARGETS))
async def test_the_suite_notices_a_target_that(mutant: type[RecordedTarget], law: str, given: dict[str, object]) -> None:
    await assert_only_the_mutant_breaks(ScaleTargetContract, law, partial(target, RecordedTarget), partial(target, mutant), **given)


def test_each_law_of_scaling_has_a_mutant_that_breaks_it() -> None:
    assert laws_without_a_mutant(ScalingSignalContract, SIGNALS) == []
    assert laws_without_a_mutant(ScaleTargetContract, TARGETS) == []
