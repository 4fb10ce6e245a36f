"""Verbs that wait: a signal, a while, the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from agentkit.durable.codec import PLAIN
from agentkit.errors import Misuse, SignalTimeout
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    from agentkit.agents.base import Signal
    from agentkit.durable.execution import Execution
    from agentkit.durable.journal import Record

T = TypeVar("T")


async def wait_for(ex: Execution, key: str, signal: Signal[T], signal_key: str, timeout_s: float | None) -> T:
    """The next message of the signal, taken once; or `SignalTimeout`, journalled."""
    record = ex.journal.known(key)
    if record is not None and record.outcome is not None:
        await ex.replayed()
        if record.outcome.kind == EntryKind.ERROR:
            raise SignalTimeout(signal.name, timeout_s or 0.0)
        return _typed(signal, record.outcome.body)
    ex.check_open()
    until = None if timeout_s is None else await begin(ex, key, record, timeout_s)
    message = await ex.wait(f"signal:{signal.name}" + (f":{signal_key}" if signal_key else ""), topic=signal.topic(signal_key), until=until)
    if message is None:
        ex.journal.note(EntryKind.ERROR, key, {"kind": "SignalTimeout", "message": signal.name})
        raise SignalTimeout(signal.name, timeout_s or 0.0)
    value = _typed(signal, message.body)
    ex.take(message, EntryKind.SIGNAL, key, message.body)
    return value


def _typed(signal: Signal[T], body: bytes) -> T:
    value: T = signal.codec.decode(body, f"signal {signal.name!r}")
    return value


async def begin(ex: Execution, key: str, record: Record | None, seconds: float) -> float:
    """Store time at which a timer fires, from the journal or set now and made durable: a restart does not start it anew."""
    if record is not None and record.opening is not None:
        return float(PLAIN.decode(record.opening.body, key)["until"])
    until = ex.store_now() + seconds
    with ex.working():
        await ex.journal.settled(ex.journal.note(EntryKind.TIMER, key, {"until": until}))
    return until


async def sleep(ex: Execution, key: str, seconds: float) -> None:
    """Wait until the timer fires; that it did is journalled, for a cancel must not strike a sleep that ended before it."""
    if not 0 <= seconds < 1e9:
        raise Misuse(f"ctx.sleep({seconds!r}): seconds must be a number from 0 to 1e9")
    record = ex.journal.known(key)
    if record is not None and record.outcome is not None:
        await ex.replayed()
        return
    ex.check_open()
    until = await begin(ex, key, record, seconds)
    await ex.wait(f"timer:{key}", until=until)
    ex.journal.append(EntryKind.RESULT, key, b"null")


async def now(ex: Execution, key: str) -> float:
    """The store's clock, journalled."""
    record = ex.journal.known(key)
    if record is not None and record.outcome is not None:
        await ex.replayed()
        return float(PLAIN.decode(record.outcome.body, key))
    ex.check_open()
    moment = ex.store_now()
    ex.journal.note(EntryKind.RESULT, key, moment)
    return moment
