"""Scaling without a driver: a signal that samples any queue and run store, and a target that only remembers its number."""

from __future__ import annotations

from collections import Counter, deque
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidSetting, StoreError
from agentkit.ports.queue import Depth
from agentkit.ports.records import RunQuery, RunStatus
from agentkit.ports.scaling import Load, Sample, Scale, Scaled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock
    from agentkit.ports.queue import Queue
    from agentkit.ports.records import WorkerRow
    from agentkit.ports.runs import RunStore

PAGE = 1000  # running runs of one read: some hundred kilobytes
HISTORY = 1000  # changes that a target remembers: days of scaling, and a process that lives for months does not grow


class Beat(NamedTuple):
    """A worker's beat, and when this signal first saw it, on the monotonic clock."""

    number: int
    since: float


class QueueSignal:
    """A `ScalingSignal` of any `Queue` and `RunStore`, for any number of processes to sample.

    In flight is what the queue has leased; where the queue holds no leases (`holds_leases`), and the ticket is finished at the claim, it
    is what the run store calls running. Runs of `Runtime.run` belong to the process that started them and no other replica can help with
    them: with a queue that holds leases they are not counted.

    Args:
        queue: open, as its owner keeps it.
        runs: open too.
        clock: the time of samples and of the watch over beats.
        lease_s: a worker whose beat stood still for so long is not alive. As in the runtime's settings.
        slots_per_worker: runs at a time in one worker: the runtime's `concurrency`. None: the sample tells no slots.
    """

    # 10 s: the default of the runtime's own `lease_s`
    def __init__(
        self, queue: Queue, runs: RunStore, *, clock: Clock = SYSTEM, lease_s: float = 10.0, slots_per_worker: int | None = None
    ) -> None:
        self._queue, self._runs, self._clock = queue, runs, clock
        self._lease_s = max(lease_s, runs.min_lease_s)
        self._slots_per_worker = slots_per_worker
        self._beats: Mapping[str, Beat] = {}
        self._last: Sample | None = None

    async def sample(self) -> Sample:
        """Look now: one round trip to the queue and one to the run store, and where it counts what runs, one more for each 1,000 of it."""
        try:
            # In this order: a ticket that is claimed meanwhile counts twice for a moment, the other way round it would not count at all.
            depths = await self._queue.depth()
            running = Counter[str]() if self._queue.holds_leases else await self._running()
            rows = await self._runs.workers()
        except StoreError as exc:
            self._beats = {}  # nobody could beat either while the store was away: who could not look has seen nobody silent
            return self._without_answer(str(exc))
        now = self._clock.monotonic()
        self._beats = watched(self._beats, rows, now)
        silent = {worker for worker, beat in self._beats.items() if now - beat.since >= self._lease_s}
        self._last = sampled(self._clock.time(), depths, running, alive(rows, silent), self._slots_per_worker)
        return self._last

    def _without_answer(self, problem: str) -> Sample:
        return self._last._replace(problem=problem) if self._last else Sample(self._clock.time(), None, problem=problem)

    async def _running(self) -> Counter[str]:
        """How many runs of each `name@version` are running."""
        kinds = Counter[str]()
        query = RunQuery(status=frozenset({RunStatus.RUNNING}), limit=PAGE)
        while True:
            page = await self._runs.list(query)
            kinds.update(f"{run.kind}@{run.version}" for run in page)
            if len(page) < PAGE:
                return kinds
            query = query._replace(after=page[-1].run_id)


def watched(before: Mapping[str, Beat], rows: Iterable[WorkerRow], now: float) -> dict[str, Beat]:
    """The beats as they are now, each with the time since which it stands still."""
    return {row.worker_id: _beat(before.get(row.worker_id), row.beat, now) for row in rows}


def _beat(before: Beat | None, number: int, now: float) -> Beat:
    return before if before is not None and before.number == number else Beat(number, now)


def alive(rows: Iterable[WorkerRow], silent: AbstractSet[str]) -> list[list[str]]:
    """What each living worker serves. A process that serves nothing only submits."""
    return [row.kinds.split(",") for row in rows if row.kinds and row.worker_id not in silent]


def sampled(
    at: float, depths: Mapping[str, Depth], running: Counter[str], workers: Sequence[Sequence[str]], slots_per_worker: int | None
) -> Sample:
    """The figures of the sources in one sample."""
    served = Counter(kind for kinds in workers for kind in set(kinds))
    loads: dict[str, Load] = {}
    for kind in sorted({*depths, *running, *served}):
        depth = depths.get(kind, Depth())
        loads[kind] = Load(depth.ready, depth.leased + running[kind], depth.delayed, depth.oldest_s, served[kind])
    slots = None if slots_per_worker is None else slots_per_worker * len(workers)
    return Sample(at, loads, len(workers), slots)


class RecordedTarget:
    """A `ScaleTarget` in this process: it has no replicas, only their number, and remembers how that changed.

    For tests and simulations, and for what reads the number and starts the replicas itself. Its methods take effect at once and may be
    called from several threads and event loops.

    Args:
        replicas: how many at the beginning.
        min_replicas: never fewer, 0 or more.
        max_replicas: never more.
        clock: the time of `history`.

    Raises:
        InvalidSetting: the bounds are not in order, or `replicas` is outside of them.
    """

    def __init__(self, replicas: int = 1, *, min_replicas: int = 0, max_replicas: int, clock: Clock = SYSTEM) -> None:
        if not 0 <= min_replicas <= max_replicas:
            raise InvalidSetting("min_replicas", min_replicas, f"must be from 0 to max_replicas, which is {max_replicas}")
        if not min_replicas <= replicas <= max_replicas:
            raise InvalidSetting("replicas", replicas, f"must be from {min_replicas} to {max_replicas}")
        self._replicas, self._min, self._max = replicas, min_replicas, max_replicas
        self._clock = clock
        self._lock = Lock()
        self._history: deque[tuple[float, Scaled]] = deque(maxlen=HISTORY)

    @property
    def history(self) -> list[tuple[float, Scaled]]:
        """The last 1,000 changes, each with its time in seconds since 1970. A `scale` that changed nothing is none."""
        with self._lock:
            return list(self._history)

    async def read(self) -> Scale:
        """The number as it is; all are ready at once."""
        return Scale(self._replicas, self._replicas, self._min, self._max)

    async def scale(self, replicas: int) -> Scaled:
        """Set the number, or the nearest within the bounds. Raises `InvalidSetting` for a negative one: nothing changed."""
        if replicas < 0:
            raise InvalidSetting("replicas", replicas, f"must be 0 or more; this target has {self._min} to {self._max}")
        with self._lock:
            scaled = Scaled(replicas, self._replicas, min(max(replicas, self._min), self._max))
            self._replicas = scaled.after
            if scaled.after != scaled.before:
                self._history.append((self._clock.time(), scaled))
        return scaled
