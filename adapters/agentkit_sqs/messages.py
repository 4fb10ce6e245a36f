"""What a message says: one ticket, as a small JSON object that an operator can read.

Fields at their default are left out, and those that are not known are passed over: an older process reads what a newer one wrote.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from agentkit.errors import InvalidKey, StoreCorrupt
from agentkit.ports.queue import Ticket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_BATCH = 10  # messages of one request
MAX_BATCH_BYTES = 262_144  # of one request, all messages together: the least that any SQS allows

_encode = json.JSONEncoder(separators=(",", ":")).encode  # ASCII alone: SQS refuses some control characters
_TYPES: dict[str, Any] = {name: type(value) for name, value in Ticket("", "", "")._asdict().items()}


class Message(NamedTuple):
    """A ticket, and what its message knows beside it."""

    ticket: Ticket
    had: int = 0
    """Deliveries without an answer of the messages that this one replaces."""
    reason: str = ""
    """Of a dead letter."""
    deliveries: int = 0
    """Of a dead letter: those that it had."""
    died_at: float = 0.0

    def write(self) -> str:
        """The body. Raises `InvalidKey` when it is more than a message may hold."""
        ticket = {name: value for name, value in self.ticket._asdict().items() if value != Ticket._field_defaults.get(name)}
        own = {name: value for name, value in self._asdict().items() if name != "ticket" and value}
        body = _encode(ticket | own)
        if len(body) > MAX_BATCH_BYTES:
            raise InvalidKey(self.ticket.run_id, f"its ticket is {len(body)} bytes, and SQS takes {MAX_BATCH_BYTES}: shorten its tenant")
        return body


def read(body: str) -> Message:
    """What a body says. Raises `StoreCorrupt` where that is no ticket."""
    try:
        said: Any = json.loads(body)
        known = {name: said[name] for name in Ticket._fields if name in said}
        ticket = Ticket(**known)
        beside = {name: said[name] for name in Message._fields[1:] if name in said}
    except (ValueError, TypeError) as exc:
        raise StoreCorrupt("sqs", f"a message that is no ticket: {body[:200]!r} ({exc})") from exc
    wrong = [name for name, kind in _TYPES.items() if type(getattr(ticket, name)) is not kind]
    if wrong:
        raise StoreCorrupt("sqs", f"a message whose ticket has a wrong {', '.join(wrong)}: {body[:200]!r}")
    return Message(ticket, **beside)


def batches(bodies: Iterable[str]) -> Iterator[list[str]]:
    """In their order, as one request takes them: ten, and not too many bytes."""
    batch: list[str] = []
    size = 0
    for body in bodies:
        if batch and (len(batch) == MAX_BATCH or size + len(body) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += len(body)
    if batch:
        yield batch
