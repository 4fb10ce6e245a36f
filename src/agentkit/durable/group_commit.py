"""Group commit: one ordered writer for the journals of all runs of a worker.

A lane has one batch in flight. While it is on its way, what other runs hand in gathers, and becomes the next batch: no timer, so an idle
system commits at once and a busy one commits what arrived during the last sync. Durability is a prefix per run: entry n is never
durable without n - 1.

The one unknown is a connection lost at COMMIT. The lane then sends the very same batch again until it is answered, and takes nothing
else meanwhile: a claim whose last write is open must not be used (a model checker finds two live owners otherwise). An entry that the
store refuses is found by halving the batch by run; it fails alone, the later entries of its run are withheld, all others go on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio
import anyio.lowlevel

from agentkit.errors import ClaimLost, StoreBusy, StoreRefused, StoreUnavailable, WorkerFenced
from agentkit.ports.records import TOLD, Entry, EntryKind, Join, Release, RunWrite
from agentkit.tasks import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentkit.clock import Clock
    from agentkit.ports.records import Written
    from agentkit.ports.runs import RunStore
    from agentkit.tasks import Gate

log = logging.getLogger("agentkit.lane")
MAX_ROWS = 500  # a batch of 1 KB rows then stays near the time of one sync
MAX_BYTES = 1_000_000
LEAST_SHARE = 4  # runs: with fewer a second round trip costs more than what is computed meanwhile
HIGH_WATER_ROWS = 20_000  # 40 full batches: seconds of a slow disk; more would only move the queue into memory
_LAGGING = frozenset({EntryKind.RESULT, EntryKind.ERROR, EntryKind.TIMER, EntryKind.VOID}) | (TOLD - {EntryKind.STATUS})

Durability = Literal["memory", "relaxed", "durable", "strict"]


class Claim:
    """A claim in memory: the right to write one run's journal, from `claim` to its release."""

    __slots__ = (
        "acked",
        "clear_crashes",
        "closed",
        "durability",
        "error",
        "fence",
        "inbox_seq",
        "joins",
        "lazy",
        "on_inbox",
        "on_lost",
        "pending",
        "queued",
        "release",
        "released",
        "run_id",
        "seq",
        "sync",
        "takes",
        "waiters",
    )

    def __init__(
        self, run_id: str, fence: int, *, seq: int = 0, inbox_seq: int = 0, crashed: bool = False, durability: Durability = "durable"
    ) -> None:
        self.run_id, self.fence, self.durability = run_id, fence, durability
        self.seq = self.acked = seq
        self.inbox_seq = inbox_seq
        self.clear_crashes = crashed
        self.lazy = durability == "memory"
        self.pending: list[Entry] = []
        self.takes: list[tuple[str, int]] = []
        self.joins: list[Join] = []
        self.release: Release | None = None
        self.released: Literal["ok", "moved"] | None = None
        self.closed = self.queued = self.sync = False
        self.error: Exception | None = None
        self.waiters: list[tuple[int, Gate]] = []
        self.on_inbox: Callable[[], None] | None = None
        self.on_lost: Callable[[], None] | None = None

    def discard(self) -> int:
        """Forget what was handed in lazily and never had to be written; returns how many entries that were."""
        if not self.lazy or self.takes or self.joins:
            return 0
        dropped, self.pending = len(self.pending), []
        self.seq -= dropped
        return dropped

    def close(self, release: Release) -> None:
        """Nothing may follow the release."""
        self.release, self.released = release, None
        self.closed = self.sync = True

    def ahead(self) -> int:
        """Entries handed in and not yet acknowledged."""
        return self.seq - self.acked


Batch: TypeAlias = list[tuple[Claim, RunWrite]]


class Lane:
    """The ordered writer of one registration. `followed`: what to call when something of a run is durable, for runs that are followed."""

    def __init__(
        self,
        store: RunStore,
        worker_id: str,
        clock: Clock,
        *,
        lease_s: float,
        on_dead: Callable[[], None],
        on_flush: Callable[[int, float], None],
        followed: Mapping[str, Callable[[], None]] = MappingProxyType({}),
    ) -> None:
        self.worker_id = worker_id
        self.rows = 0
        self._store, self._clock, self._lease_s = store, clock, lease_s
        self._on_dead, self._on_flush, self._followed = on_dead, on_flush, followed
        self._home = Home()
        self._queue: deque[Claim] = deque()
        self._wake: anyio.Event | None = None
        self._room: anyio.Event | None = None
        self._closing = False
        self._dead = False
        self._said_at = -lease_s
        self._sent = 0
        self._remote: bool = getattr(store, "remote", False)

    def append(
        self,
        claim: Claim,
        kind: EntryKind,
        key: str,
        body: bytes = b"",
        *,
        attempt: int = 1,
        fp: str = "",
        took_us: int = 0,
        codec: int = 0,
    ) -> int:
        """Hand in an entry and return its seq; it is encoded already, so a later change of the value cannot reach the journal."""
        if claim.closed or claim.error is not None:
            raise claim.error or ClaimLost(claim.run_id, claim.fence)
        claim.seq = seq = claim.seq + 1
        claim.pending.append(Entry(seq, int(kind), key, attempt, fp, codec, body, int(self._clock.time() * 1000), took_us))
        self.rows += 1
        if claim.durability != "relaxed" or kind not in _LAGGING:
            claim.sync = True
        if not claim.lazy:
            self._enqueue(claim)
        return seq

    def take(self, claim: Claim, message_id: str, seq: int) -> None:
        """Mark a message as taken by the entry `seq`, handed in just before: both are written together or neither."""
        claim.takes.append((message_id, seq))

    def join(self, claim: Claim, join: Join) -> None:
        """Open a join with the CHILD entry handed in just before."""
        claim.joins.append(join)

    async def settled(self, claim: Claim, seq: int | None = None) -> None:
        """Wait until entry `seq` (default: all handed in) is durable. Raises `ClaimLost`, `StoreRefused`, `WorkerFenced`."""
        seq = claim.seq if seq is None else seq
        if claim.lazy and claim.pending:
            self._enqueue(claim)
        while claim.acked < seq:
            if claim.error is not None:
                raise claim.error
            gate = self._home.gate()
            claim.waiters.append((seq, gate))
            await gate.wait()
        if claim.error is not None:
            raise claim.error

    async def release(self, claim: Claim, release: Release) -> Literal["ok", "moved"]:
        """The claim's last write. `moved`: the inbox moved on, the run was not parked and the claim stays open."""
        claim.close(release)
        self._enqueue(claim)
        while claim.released is None and claim.error is None:
            gate = self._home.gate()
            claim.waiters.append((-1, gate))
            await gate.wait()
        if claim.error is not None:
            raise claim.error
        if claim.released == "moved":
            claim.closed = False
        return claim.released or "ok"

    @property
    def full(self) -> bool:
        """Over the high-water mark: no new step body should start."""
        return self.rows > HIGH_WATER_ROWS

    async def room(self) -> None:
        """Wait until the lane is under its high-water mark."""
        while self.full and not self._dead:
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()

    def abandon(self) -> None:
        """The registration is dead: everything not acknowledged is lost, and everybody who waits is told."""
        self._dead = True
        for claim in list(self._queue):
            self._fail(claim, WorkerFenced(self.worker_id))
        self._nudge()

    def close(self) -> None:
        """Let `run` end once everything handed in is written."""
        self._closing = True
        self._nudge()

    async def run(self) -> None:
        """Write batches until closed or dead."""
        while not self._dead:
            if not self._queue:
                if self._closing:
                    return
                self._sent = 0  # they may be back in the queue by the next batch, and must not count twice
                self._wake = anyio.Event()
                await self._wake.wait()
                continue
            with anyio.CancelScope(shield=True):
                await self._write_queued()

    async def _write_queued(self) -> None:
        """Batch after batch until nothing is left."""
        while self._queue and not self._dead:
            sync, batch = self._gather()
            await self._commit(batch, sync=sync)
            if not self._remote:
                # Whom this batch woke hands in next. Gathered before that, one early run and 49 others would commit by turns for ever.
                await anyio.lowlevel.checkpoint()
            if self._room is not None and not self.full:
                self._room.set()
                self._room = None

    def _enqueue(self, claim: Claim) -> None:
        if not claim.queued:
            claim.queued = True
            self._queue.append(claim)
            if self._wake is not None:
                self._nudge()
        if self._dead:
            self._fail(claim, WorkerFenced(self.worker_id))

    def _nudge(self) -> None:
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    def _gather(self) -> tuple[bool, Batch]:
        """Whole runs in the order they came, up to the caps; a run that did not fit goes to the back of the line.

        With it, whether to sync: a batch has the strictest class among its rows.
        """
        batch: Batch = []
        rows = size = 0
        sync = False
        for _ in range(self._share()):
            if rows >= MAX_ROWS or size >= MAX_BYTES:
                break
            claim = self._queue.popleft()
            entries, claim.pending = claim.pending, []
            cut, weight = (1, len(entries[0].body)) if len(entries) == 1 else _fitting(entries, MAX_ROWS - rows, MAX_BYTES - size)
            whole = cut == len(entries)
            if not whole:
                entries, claim.pending = entries[:cut], entries[cut:]
            rows += cut
            size += weight
            claim.queued = not whole
            sync = sync or claim.sync
            if claim.queued:
                self._queue.append(claim)
            batch.append((claim, _run_write(claim, entries, whole=whole)))
        self._sent = len(batch)
        return sync, batch

    def _share(self) -> int:
        """How many runs go now. On a server half of those at work, so that the others compute while it writes, and then by turns."""
        queued = len(self._queue)
        half = (queued + self._sent + 1) // 2
        return min(queued, half) if self._remote and half >= LEAST_SHARE else queued

    async def _commit(self, batch: Batch, *, sync: bool) -> None:
        """Send a batch and settle each run by its verdict."""
        began = time.perf_counter()
        try:
            verdicts = await self._send([write for _, write in batch], sync=sync)
        except StoreRefused as refused:
            await self._isolate(batch, refused, sync=sync)
            return
        except WorkerFenced as fenced:
            self._on_dead()
            for claim, _ in batch:
                self._fail(claim, fenced)
            return
        self._on_flush(sum(len(write.entries) for _, write in batch), time.perf_counter() - began)
        for (claim, write), verdict in zip(batch, verdicts, strict=True):
            self._settle(claim, write, verdict)

    async def _send(self, writes: Sequence[RunWrite], *, sync: bool) -> Sequence[Written]:
        """Send until answered: an unknown outcome is settled by sending the very same batch again.

        What stays unknown for a lease ends the registration, not single runs.
        """
        unknown_since: float | None = None
        wait_s = 0.02
        while True:
            try:
                return await self._store.write(self.worker_id, writes, sync=sync)
            except StoreBusy as busy:
                self._say_busy(busy)  # nothing was written, so nothing is unknown: our beat is not accepted either, and we wait
            except StoreUnavailable as exc:
                unknown_since = self._clock.monotonic() if unknown_since is None else unknown_since
                if self._clock.monotonic() - unknown_since > self._lease_s:
                    raise WorkerFenced(self.worker_id) from exc
            if self._dead or self._closing:
                raise WorkerFenced(self.worker_id)
            await anyio.sleep(wait_s)
            wait_s = min(1.0, wait_s * 2)

    def _say_busy(self, busy: StoreBusy) -> None:
        """Once a lease: a full disk or a locked file shall be seen in the log, not fill it."""
        now = self._clock.monotonic()
        if now - self._said_at > self._lease_s:
            self._said_at = now
            log.warning("journals wait: %s", busy)

    async def _isolate(self, batch: Batch, refused: StoreRefused, *, sync: bool) -> None:
        """Halve by run, then by entry, until the guilty entry stands alone."""
        if len(batch) > 1:
            half = len(batch) // 2
            await self._commit(batch[:half], sync=sync)
            await self._commit(batch[half:], sync=sync)
            return
        claim, write = batch[0]
        if len(write.entries) <= 1:
            self.rows -= len(write.entries)
            self._fail(claim, refused)
            return
        for one in _split(write):
            if claim.error is None:
                await self._commit([(claim, one)], sync=sync)
            else:
                self.rows -= len(one.entries)

    def _settle(self, claim: Claim, write: RunWrite, verdict: Written) -> None:
        self.rows -= len(write.entries)
        if verdict.verdict == "lost":
            self._fail(claim, ClaimLost(claim.run_id, claim.fence))
            return
        if write.entries:
            claim.acked = write.entries[-1].seq
        if write.release is not None:
            claim.released = "moved" if verdict.verdict == "moved" else "ok"
        if verdict.inbox_seq > claim.inbox_seq and claim.on_inbox is not None:
            claim.on_inbox()
        if claim.waiters:
            _wake(claim)
        if self._followed and (tell := self._followed.get(claim.run_id)) is not None:
            tell()

    def _fail(self, claim: Claim, error: Exception) -> None:
        if claim.error is None:
            claim.error = error
        self.rows -= len(claim.pending)
        claim.pending = []
        for _, gate in claim.waiters:
            gate.set()
        claim.waiters = []
        if claim.on_lost is not None:
            claim.on_lost()


def _wake(claim: Claim) -> None:
    (seq, gate), *others = claim.waiters
    if not others and 0 <= seq <= claim.acked:
        claim.waiters = []
        gate.set()
        return
    later: list[tuple[int, Gate]] = []
    for seq, gate in claim.waiters:
        if (seq >= 0 and claim.acked >= seq) or (seq < 0 and claim.released is not None):
            gate.set()
        else:
            later.append((seq, gate))
    claim.waiters = later


def _fitting(entries: Sequence[Entry], rows: int, size: int) -> tuple[int, int]:
    """How many of `entries` fit, and their bytes; at least one, for an entry bigger than a whole batch must go too."""
    fit = weight = 0
    for entry in entries[:rows]:
        if fit and weight + len(entry.body) > size:
            break
        weight += len(entry.body)
        fit += 1
    return fit, weight


def _run_write(claim: Claim, entries: Sequence[Entry], *, whole: bool) -> RunWrite:
    """What goes with these entries: takes and joins belong to an entry among them; a release only goes with the last.

    Nothing of the claim's own lists is handed out: a take that is added while the batch is on its way would be written without its
    entry, and a crash in between would lose the message.
    """
    if whole and not (claim.takes or claim.joins or claim.clear_crashes or claim.release):
        claim.sync = False
        return RunWrite(claim.run_id, claim.fence, entries)
    takes: tuple[tuple[str, int], ...] = ()
    joins: tuple[Join, ...] = ()
    release = None
    if claim.takes and entries:
        last = entries[-1].seq
        takes = tuple(take for take in claim.takes if take[1] <= last)
        claim.takes = [take for take in claim.takes if take[1] > last]
    clear = claim.clear_crashes and any(e.kind == EntryKind.RESULT for e in entries)
    if clear:
        claim.clear_crashes = False
    if whole:
        if claim.joins:
            joins, claim.joins = tuple(claim.joins), []
        release, claim.release, claim.sync = claim.release, None, False
    return RunWrite(claim.run_id, claim.fence, entries, takes, joins, clear, release)


def _split(write: RunWrite) -> list[RunWrite]:
    """One write per entry, in order; takes go with their entry, joins and the release with the last."""
    out: list[RunWrite] = []
    for entry in write.entries:
        is_last = entry is write.entries[-1]
        takes = [t for t in write.takes if t[1] == entry.seq]
        clear = write.clear_crashes and entry.kind == EntryKind.RESULT
        out.append(
            RunWrite(write.run_id, write.fence, [entry], takes, write.joins if is_last else (), clear, write.release if is_last else None)
        )
    return out
