"""The plain records that cross the `RunStore` port: rows of runs, entries of journals, batches and their verdicts."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentkit.ports.queue import Ticket


class RunStatus(IntEnum):
    """Where a run stands. The numbers are stored: never renumber."""

    READY = 1
    RUNNING = 2
    PARKED = 3
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6
    BURIED = 7

    @property
    def ended(self) -> bool:
        """Nothing more will happen to the run (a buried one may be revived by an operator)."""
        return self >= RunStatus.COMPLETED


class EntryKind(IntEnum):
    """What a journal entry says. The numbers are stored: never renumber."""

    RESULT = 1
    ERROR = 2
    INTENT = 3
    VOID = 4
    CHILD = 5
    TIMER = 6
    SIGNAL = 7
    CANCEL = 8
    SNAPSHOT = 9
    PROGRESS = 10
    STATUS = 11
    TEXT = 12
    TOOL = 13
    APPROVAL = 14
    """Somebody is asked whether a step may start, and then: it may (`{"granted": true}`)."""
    BUDGET = 15


TOLD = frozenset({EntryKind.PROGRESS, EntryKind.STATUS, EntryKind.TEXT, EntryKind.TOOL, EntryKind.BUDGET})
"""What is only told to whoever follows the run: a replay does not read it."""


class Entry(NamedTuple):
    """One line of a journal. A tuple: thousands are made a second, and drivers bind them as they are."""

    seq: int
    """1, 2, 3 … without a gap inside a run."""
    kind: int
    key: str
    attempt: int
    fp: str
    """Fingerprint: digest, function name and a preview of the arguments; empty where nothing is compared."""
    codec: int
    """How `body` is packed: 0 plain JSON, 1 zlib."""
    body: bytes
    at_ms: int
    """Wall clock of the writer, milliseconds since 1970. For people; nothing is decided by it."""
    took_us: int
    fence: int = 0
    """The claim that wrote it. Filled in by `load`."""


class NewRun(NamedTuple):
    """A run to create."""

    run_id: str
    kind: str
    version: str
    input: bytes
    tenant: str = ""
    priority: int = 1
    key: str = ""
    parent_id: str | None = None
    parent_key: str = ""
    idx: int = 0
    depth: int = 0
    seed: int = 0
    deadline: float | None = None
    """Store time, seconds since 1970, after which the run fails."""
    delay_s: float = 0.0
    keep_s: float = 7 * 86_400.0
    trace: str = ""
    meta: str = ""
    held: bool = False
    """The creator starts it itself: it is stored as ticketed although no ticket is put."""
    entries: Sequence[Entry] = ()
    """A copied prefix (fork). A run that has one starts at fence 1, so its first claim has fence 2."""


class Run(NamedTuple):
    """A stored run."""

    run_id: str
    kind: str
    version: str
    status: RunStatus
    owner: str | None
    fence: int
    wake: int
    inbox_seq: int
    ticketed: bool
    crashes: int
    priority: int
    tenant: str
    key: str
    parent_id: str | None
    parent_key: str
    idx: int
    notify: bool
    depth: int
    seed: int
    deadline: float | None
    wake_at: float | None
    waiting_for: str
    keep_s: float
    input: bytes
    result: bytes
    """Of a completed run its result; of a failed, cancelled or buried one `{"kind", "message", …}`."""
    trace: str
    meta: str
    created_at: float
    updated_at: float
    expires_at: float | None


Creation = Literal["created", "exists", "conflict", "refused"]


class Created(NamedTuple):
    """What became of one `NewRun`. `refused`: its parent has ended, was claimed anew, or has a cancel not yet taken."""

    answer: Creation
    run: Run | None


class ParentClaim(NamedTuple):
    """The parent's claim, checked in the statement that creates its children."""

    run_id: str
    owner: str
    fence: int


ClaimRefusal = Literal["gone", "ended", "taken", "unknown", "suspect", "fenced"]
"""gone: no such run. ended. taken: running or parked. unknown: kind or version not served. suspect: crashed twice or more, must be
claimed alone. fenced: the claimer itself is dead."""


class Claimed(NamedTuple):
    """A granted claim: the row as it stands after the claim, and the store's clock."""

    run: Run
    store_now: float


class Message(NamedTuple):
    """A signal in a run's inbox."""

    seq: int
    id: str
    topic: str
    body: bytes
    taken_seq: int | None


class Join(NamedTuple):
    """A group of children that a parent waits for, written with the parent's CHILD entry."""

    key: str
    total: int
    need_good: int
    """Wake the parent when so many children completed."""
    max_bad: int
    """Wake the parent when more than so many did not."""
    window: int
    """How many children may be READY or RUNNING at a time; the rest wait PARKED and an ending sibling wakes the next."""


class Release(NamedTuple):
    """The last write of a claim. `status` READY (drain), PARKED, or an end."""

    status: RunStatus
    seen: int | None = None
    """PARKED only: park only if `inbox_seq` is still this."""
    wake_at: float | None = None
    waiting_for: str = ""
    result: bytes = b""
    ticketed: bool = False
    """READY only: the ticket is given back to the queue right after, so recovery need not put one."""


class RunWrite(NamedTuple):
    """What one run adds to a batch."""

    run_id: str
    fence: int
    entries: Sequence[Entry]
    takes: Sequence[tuple[str, int]] = ()
    """(message id, seq of the SIGNAL entry in `entries`)."""
    joins: Sequence[Join] = ()
    clear_crashes: bool = False
    release: Release | None = None


class Written(NamedTuple):
    """The verdict on one `RunWrite`. `lost`: not my claim, nothing of it was written. `moved`: entries written, but the inbox moved
    on, so the run was not parked and stays claimed.
    """

    verdict: Literal["ok", "lost", "moved"]
    inbox_seq: int


class Signalled(NamedTuple):
    """`ticket` is set when the signal woke a parked run: put it."""

    answer: Literal["accepted", "ended", "unknown", "duplicate"]
    ticket: Ticket | None = None
    ended_now: bool = False
    """A cancel that struck a run which had not started: it is CANCELLED, tell its parent."""


class Beat(NamedTuple):
    """The answer to an accepted beat: the runs of this worker that have messages not yet taken."""

    moved: Sequence[str]


class WorkerRow(NamedTuple):
    """A worker that nobody declared dead."""

    worker_id: str
    kinds: str
    """What it serves: `review@4,embed@1`."""
    host: str
    beat: int


class TakenOver(NamedTuple):
    """A run freed from a dead worker by a sweep."""

    run_id: str
    owner: str
    crashes: int
    buried: bool


class Swept(NamedTuple):
    """What one bounded sweep found."""

    beats: Mapping[str, int]
    taken_over: Sequence[TakenOver] = ()
    tickets: Sequence[Ticket] = ()
    """READY runs that have no ticket, or lost theirs."""
    untold: Sequence[str] = ()
    """Ended children whose parent was not told."""
    next_timer_s: float | None = None
    more: bool = False


class RunQuery(NamedTuple):
    """A page of runs, in order of `run_id` (children of one join: of `idx`). All conditions hold together."""

    kind: str | None = None
    version: str | None = None
    tenant: str | None = None
    status: frozenset[RunStatus] | None = None
    parent_id: str | None = None
    parent_key: str | None = None
    idle_s: float | None = None
    after: str = ""
    after_idx: int = -1
    limit: int = 200


Level = Literal["ok", "note", "warn", "fail"]


class Finding(NamedTuple):
    """One thing looked at, as `agentkit doctor` shows it. `do` is the way out, when there is something to do."""

    level: Level
    what: str
    says: str
    do: str = ""
