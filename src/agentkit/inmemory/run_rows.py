"""The rows behind `InMemoryRuns`, with the indexes that find what a sweep or a purge looks for without reading every row."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Any

from agentkit.inmemory.heap import LazyHeap
from agentkit.ports.queue import Ticket
from agentkit.ports.records import Entry, EntryKind, Join, Message, Run, RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock


def ticket_for(run: Run) -> Ticket:
    """What the queue carries for this run as it stands."""
    return Ticket(run.run_id, run.kind, run.version, run.wake, run.tenant, run.priority, run.key, run.trace)


class JoinState:
    """A join of a parent, and how far its children are."""

    __slots__ = ("active", "bad", "fired", "good", "rule", "waiting")

    def __init__(self, rule: Join) -> None:
        self.rule = rule
        self.good = self.bad = 0
        self.active = 0
        """Children let through the window that have not ended."""
        self.fired = False
        self.waiting: LazyHeap[Row] = LazyHeap(lambda _, row: row.run.waiting_for == "window")
        """Children outside the window, by `idx`."""

    @property
    def holds(self) -> bool:
        """Whether the condition that the parent waits for holds."""
        ended = self.good + self.bad
        return self.good >= self.rule.need_good or self.bad > self.rule.max_bad or ended >= self.rule.total


class Row:
    """A run with its journal, its inbox and what hangs on it."""

    __slots__ = ("children", "closed", "in_window", "inbox", "joins", "journal", "put_at", "run", "snapshot", "told", "untaken")

    def __init__(self, run: Run, entries: Sequence[Entry], in_window: bool) -> None:
        self.run = run
        self.journal: list[Entry] = []
        self.snapshot = 0
        """Position of the newest SNAPSHOT in `journal`."""
        self.inbox: dict[str, Message] = {}
        self.untaken = 0
        self.joins: dict[str, JoinState] = {}
        self.children: dict[str, list[tuple[int, str]]] = {}
        """(idx, run id) of the children of each `parent_key`, in order."""
        self.in_window = in_window
        self.told = False
        """Its end was counted in its parent's join: a revived child is not counted again."""
        self.closed: tuple[str, int] | None = None
        """Owner and fence of the last claim that ended with a release."""
        self.put_at = 0.0
        """When a ticket was last put, on the clock that never goes back."""
        self.extend(entries)

    def held_by(self, owner: str, fence: int) -> bool:
        return self.run.owner == owner and self.run.fence == fence

    def unwritten(self, entries: Sequence[Entry], fence: int) -> list[Entry] | None:
        """Those of `entries` that are not here yet; None where they leave a gap or differ from what is here."""
        fresh: list[Entry] = []
        first = self.journal[0].seq if self.journal else 1
        following = first + len(self.journal)
        for entry in entries:
            mine = Entry(*entry[:9], fence)
            if entry.seq == following + len(fresh):
                fresh.append(mine)
            elif not first <= entry.seq < following or self.journal[entry.seq - first] != mine:
                return None
        return fresh

    def extend(self, entries: Sequence[Entry]) -> None:
        for position, entry in enumerate(entries, len(self.journal)):
            if entry.kind == EntryKind.SNAPSHOT:
                self.snapshot = position
        self.journal.extend(entries)

    def read(self, after: int) -> list[Entry]:
        """Entries from the newest SNAPSHOT, or those beyond `after`."""
        if not after or not self.journal:
            return self.journal[self.snapshot :]
        return self.journal[max(0, after + 1 - self.journal[0].seq) :]

    def receive(self, message_id: str, topic: str, body: bytes) -> None:
        self.inbox[message_id] = Message(self.run.inbox_seq + 1, message_id, topic, body, None)
        self.untaken += 1

    def take(self, message_id: str, seq: int) -> None:
        message = self.inbox.get(message_id)
        if message is not None and message.taken_seq is None:
            self.inbox[message_id] = message._replace(taken_seq=seq)
            self.untaken -= 1

    @property
    def cancelled(self) -> bool:
        """A cancel waits in the inbox."""
        return bool(self.untaken) and any(m.topic == "cancel" and m.taken_seq is None for m in self.inbox.values())


class RunTable:
    """All rows. Every change goes through `add`, `change`, `put` or `delete`, which keep the indexes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.rows: dict[str, Row] = {}
        self.owned: dict[str, dict[str, None]] = {}
        """The running runs of each worker."""
        self.unticketed: dict[str, None] = {}
        self.untold: dict[str, None] = {}
        self.put: LazyHeap[Row] = LazyHeap(lambda at, row: row.put_at == at and _has_ticket(row.run))
        self.due: LazyHeap[Row] = LazyHeap(lambda at, row: row.run.wake_at == at and row.run.status is RunStatus.PARKED)
        self.expiring: LazyHeap[Row] = LazyHeap(lambda at, row: row.run.expires_at == at and self.rows.get(row.run.run_id) is row)

    def add(self, row: Row) -> None:
        run = row.run
        self.rows[run.run_id] = row
        parent = self.rows.get(run.parent_id) if run.parent_id is not None else None
        if parent is not None:
            insort(parent.children.setdefault(run.parent_key, []), (run.idx, run.run_id))
        if _has_ticket(run):
            self.note_put(row)
        elif run.status is RunStatus.READY:
            self.unticketed[run.run_id] = None
        if run.wake_at is not None:
            self.due.push(run.wake_at, row)

    def change(self, row: Row, **changes: Any) -> Run:
        """Set columns of a run; returns the run as it now stands."""
        before = row.run
        row.run = run = before._replace(updated_at=self._clock.time(), **changes)
        if before.owner != run.owner:
            self._move(run.run_id, before.owner, run.owner)
        _keep(self.unticketed, run.run_id, wanted=run.status is RunStatus.READY and not run.ticketed)
        _keep(self.untold, run.run_id, wanted=run.notify)
        if run.wake_at is not None and run.wake_at != before.wake_at:
            self.due.push(run.wake_at, row)
        if run.expires_at is not None and run.expires_at != before.expires_at:
            self.expiring.push(run.expires_at, row)
        if _has_ticket(run) and not _has_ticket(before):
            self.note_put(row)
        return run

    def note_put(self, row: Row) -> None:
        """Remember that a ticket of this READY run was put now."""
        row.put_at = self._clock.monotonic()
        self.put.push(row.put_at, row)

    def lost_before(self, at: float) -> Row | None:
        """A READY run whose last ticket was put before `at`."""
        head = self.put.head()
        return head[1] if head is not None and head[0] < at else None

    def due_by(self, now: float) -> Row | None:
        """A parked run whose timer is due."""
        head = self.due.head()
        return head[1] if head is not None and head[0] <= now else None

    def expired_by(self, now: float) -> Row | None:
        """A run whose retention is over."""
        head = self.expiring.head()
        return head[1] if head is not None and head[0] <= now else None

    def family(self, root: Row) -> list[Row]:
        """A run with all its descendants."""
        found = [root]
        for row in found:
            found.extend(self.rows[child] for group in row.children.values() for _, child in group)
        return found

    def delete(self, rows: Sequence[Row]) -> None:
        for row in rows:
            run_id = row.run.run_id
            del self.rows[run_id]
            self.unticketed.pop(run_id, None)
            self.untold.pop(run_id, None)

    def _move(self, run_id: str, before: str | None, after: str | None) -> None:
        if before is not None:
            mine = self.owned[before]
            del mine[run_id]
            if not mine:
                del self.owned[before]
        if after is not None:
            self.owned.setdefault(after, {})[run_id] = None


def _has_ticket(run: Run) -> bool:
    return run.status is RunStatus.READY and run.ticketed


def _keep(index: dict[str, None], run_id: str, *, wanted: bool) -> None:
    if wanted:
        index[run_id] = None
    else:
        index.pop(run_id, None)
