"""The journal of one activation: what is known already, and the hand-in of what is new."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from agentkit.durable.codec import PLAIN
from agentkit.durable.identity import preview, same_call
from agentkit.errors import JournalMismatch
from agentkit.ports.records import TOLD, Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from agentkit.durable.group_commit import Claim, Lane

_OUTCOMES = (EntryKind.RESULT, EntryKind.ERROR, EntryKind.SIGNAL)
_OPENINGS = (EntryKind.TIMER, EntryKind.CHILD, EntryKind.APPROVAL)


class Append(Protocol):
    """`Lane.append` for one claim."""

    def __call__(self, kind: EntryKind, key: str, body: bytes = b"", *, attempt: int = 1, fp: str = "", took_us: int = 0) -> int: ...


class Record:
    """What the journal holds under one key."""

    __slots__ = ("asked", "attempts", "intent", "opening", "outcome")

    def __init__(self) -> None:
        self.asked = False
        self.outcome: Entry | None = None
        self.intent: Entry | None = None
        self.opening: Entry | None = None
        self.attempts = 0

    def add(self, entry: Entry) -> None:
        if entry.kind in _OUTCOMES:
            self.outcome = entry
        elif entry.kind == EntryKind.INTENT:
            self.intent, self.attempts = entry, max(self.attempts, entry.attempt)
        elif entry.kind == EntryKind.VOID:
            self.intent = None
        elif entry.kind in _OPENINGS:
            self.opening = entry


class Journal:
    """Records by key while replaying, and the way to the lane.

    Args:
        entries: what `load` gave, oldest first.
        lenient: the run was started under an older version that today's code continues; arguments and dropped effects may differ.
    """

    __slots__ = ("_claim", "_lane", "_lenient", "_records", "_run_id", "append", "cancel", "snapshot")

    def __init__(self, claim: Claim, lane: Lane, entries: Iterable[Entry], *, lenient: bool = False) -> None:
        self._claim, self._lane, self._run_id, self._lenient = claim, lane, claim.run_id, lenient
        self.append: Append = partial(lane.append, claim)
        """Hand in an entry; returns its seq."""
        self._records: dict[str, Record] = {}
        self.cancel: Entry | None = None
        self.snapshot: Entry | None = None
        for entry in entries:
            self._index(entry)

    def _index(self, entry: Entry) -> None:
        if entry.kind == EntryKind.SNAPSHOT:
            self._records.clear()
            self.snapshot = entry
        elif entry.kind == EntryKind.CANCEL:
            self.cancel = entry
        elif entry.kind not in TOLD:
            self._records.setdefault(entry.key, Record()).add(entry)

    @property
    def replaying(self) -> bool:
        """Whether something recorded was not asked for yet."""
        return any(not record.asked for record in self._records.values())

    def known(self, key: str, fp: str = "") -> Record | None:
        """What is recorded under `key`; asking consumes it once it has an outcome. Raises `JournalMismatch` when it was another call."""
        record = self._records.get(key)
        if record is None:
            return None
        entry = record.outcome or record.intent or record.opening
        if entry is not None and not self._lenient and not same_call(entry.fp, fp):
            raise JournalMismatch(self._run_id, key, preview(entry.fp), preview(fp))
        record.asked = True
        if record.outcome is not None and "=" not in key:
            del self._records[key]
        return record

    def remember(self, key: str, kind: EntryKind, body: bytes, fp: str) -> None:
        """Keep a live outcome: a step with `key=` may be asked for again."""
        record = self._records.setdefault(key, Record())
        record.asked = True
        record.add(Entry(self._claim.seq, kind, key, 1, fp, 0, body, 0, 0))

    def under(self, prefix: str) -> dict[str, Record]:
        """What is recorded below a path and was not asked for yet, without asking."""
        return {key: record for key, record in self._records.items() if key.startswith(prefix)}

    def forget(self, prefix: str) -> None:
        """Drop what branches recorded that lost a `ctx.first`."""
        for key in [k for k in self._records if k.startswith(prefix)]:
            del self._records[key]

    def check_end(self) -> None:
        """Raises `JournalMismatch` when a recorded effect was not asked for again."""
        if self._lenient:
            return
        for key, record in self._records.items():
            if record.intent is not None and not record.asked:
                raise JournalMismatch(self._run_id, key, preview(record.intent.fp), "nothing: a recorded effect was dropped")

    def note(self, kind: EntryKind, key: str, what: object) -> int:
        """Hand in an entry with a small plain body of our own."""
        return self.append(kind, key, PLAIN.encode(what, key))

    def settled(self, seq: int | None = None) -> Awaitable[None]:
        """Wait until the entry (default: everything handed in) is durable."""
        return self._lane.settled(self._claim, seq)
