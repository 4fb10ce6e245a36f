"""Runs as Redis keeps them: names of keys, columns, and entries packed into bytes."""

from __future__ import annotations

import json
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from agentkit.errors import InvalidKey
from agentkit.ports.queue import Ticket
from agentkit.ports.records import Entry, Message, Run, RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.ports.records import NewRun

_ENTRY = Struct("<BBIQQQII")  # kind, codec, attempt, at_ms, took_us, fence, and the lengths of key and fingerprint
_MESSAGE = Struct(">QI")  # seq, and the length of the topic; scripts read it too
_FIXED = ("run_id", "kind", "version", "priority", "tenant", "key", "parent_id", "parent_key", "idx", "depth", "seed", "deadline", "keep_s",
          "trace", "meta")  # fmt: skip
"""Columns that never change, kept as one JSON list."""


class Row(NamedTuple):
    """A run with what a `Run` has no column for."""

    run: Run
    turn: int
    """How often the run's claims were ended by a take-over, finished or not."""
    untaken: int
    """Messages not yet taken."""
    hint: str
    """Under which it was put on the list of READY runs without a ticket."""
    ticketed_at: float | None
    window: bool
    """It has a place in its join's window, or had one."""


def utf8(text: str) -> bytes:
    """Raises `InvalidKey` for half of a surrogate pair, which is no text."""
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidKey(text, "has no UTF-8 form: it holds half of a pair") from exc


def compact(value: Any) -> bytes:
    """JSON that a script decodes."""
    return utf8(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def fixed(new: NewRun) -> bytes:
    """What never changes about a run."""
    return compact([getattr(new, name) for name in _FIXED])


def pack(entry: Entry, fence: int) -> bytes:
    """An entry as one value of the journal's stream; its seq is the id there."""
    key, fp = utf8(entry.key), utf8(entry.fp)
    head = _ENTRY.pack(entry.kind, entry.codec, entry.attempt, entry.at_ms, entry.took_us, fence, len(key), len(fp))
    return b"".join((head, key, fp, entry.body))


def unpack(row: Sequence[Any]) -> Entry:
    """An entry of the stream."""
    [seq, [_, packed]] = row
    kind, codec, attempt, at_ms, took_us, fence, key_size, fp_size = _ENTRY.unpack_from(packed)
    fp_at = _ENTRY.size + key_size
    body_at = fp_at + fp_size
    key, fp = packed[_ENTRY.size : fp_at].decode(), packed[fp_at:body_at].decode()
    return Entry(int(seq[:-2]), kind, key, attempt, fp, codec, packed[body_at:], at_ms, took_us, fence)


def to_messages(inbox: Sequence[bytes]) -> list[Message]:
    """The fields of an inbox: `m` and an id for each message, `t` and its id for the seq of the entry that took it."""
    fields = dict(zip(inbox[::2], inbox[1::2], strict=True))
    messages: list[Message] = []
    for field, packed in fields.items():
        if field.startswith(b"m"):
            seq, size = _MESSAGE.unpack_from(packed)
            taken = fields.get(b"t" + field[1:])
            body_at = _MESSAGE.size + size
            topic = packed[_MESSAGE.size : body_at].decode()
            messages.append(Message(seq, field[1:].decode(), topic, packed[body_at:], None if taken is None else int(taken)))
    return sorted(messages)


def to_row(found: Sequence[Any] | None) -> Row | None:
    """What `look` and `create` answer about one run: its columns; what is fixed, its input and its result (empty where not asked)."""
    if not found:
        return None
    columns, body = found
    of = dict(zip(columns[::2], columns[1::2], strict=True))
    known = dict(zip(_FIXED, json.loads(body[0]), strict=True))
    run = Run(
        **known,
        status=RunStatus(int(of[b"status"])),
        owner=of[b"owner"].decode() or None,
        fence=int(of[b"fence"]),
        wake=int(of[b"wake"]),
        inbox_seq=int(of[b"inbox"]),
        ticketed=bool(of[b"ticketed"]),
        crashes=int(of[b"crashes"]),
        notify=of[b"notify"] == b"1",
        wake_at=_time(of[b"wake_at"]),
        waiting_for=of[b"waits"].decode(),
        input=body[1] if len(body) > 1 else b"",
        result=body[2] if len(body) > 1 else b"",
        created_at=float(of[b"created"]),
        updated_at=float(of[b"updated"]),
        expires_at=_time(of[b"expires"]),
    )
    return Row(run, int(of[b"turn"]), int(of[b"untaken"]), of[b"hint"].decode(), _time(of[b"ticketed"]), of[b"window"] == b"1")


def ticket_of(run: Run) -> Ticket:
    """What the queue carries for this run as it stands."""
    return Ticket(run.run_id, run.kind, run.version, run.wake, run.tenant, run.priority, run.key, run.trace)


def woken(wake: Any, known: bytes) -> Ticket:
    """The ticket of a run that a script has just made READY."""
    of = dict(zip(_FIXED, json.loads(known), strict=True))
    return Ticket(of["run_id"], of["kind"], of["version"], int(wake), of["tenant"], of["priority"], of["key"], of["trace"])


def _time(text: bytes) -> float | None:
    return float(text) if text else None
