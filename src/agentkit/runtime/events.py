"""What happens in a run, as events: read from its journal, so they are durable, in order, and resume from an offset."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, Field

from agentkit.durable.codec import PLAIN
from agentkit.errors import RunNotFound
from agentkit.ports.records import EntryKind
from agentkit.runtime.hub import POLL_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pydantic import JsonValue

    from agentkit.ports.records import Entry
    from agentkit.ports.runs import RunStore
    from agentkit.runtime.hub import Hub

if not TYPE_CHECKING:
    JsonValue = Any  # at run time it is only shown, and pydantic's own name for it takes long to import

Status: TypeAlias = Literal["queued", "running", "waiting", "done", "failed", "cancelled", "buried"]
Phase: TypeAlias = Literal["started", "finished", "failed", "retrying"]
ENDED = frozenset({"done", "failed", "cancelled", "buried"})


class Event(BaseModel, frozen=True, defer_build=True):
    """`offset` is the place in the run's journal: go on after it with `handle.events(after=offset)`."""

    offset: int
    at: datetime
    run_id: str


class StatusChanged(Event, frozen=True, defer_build=True):
    """The run waits, runs again after a wait or a take-over, or has ended."""

    type: Literal["status"] = "status"
    status: Status
    waiting_for: str | None = None
    worker: str | None = None


class StepEvent(Event, frozen=True, defer_build=True):
    """A step started (effects only: others are not announced), finished or failed."""

    type: Literal["step"] = "step"
    step: str
    phase: Phase
    attempt: int = 1


class Progress(Event, frozen=True, defer_build=True):
    """What a step told with `step.progress(…)`."""

    type: Literal["progress"] = "progress"
    step: str = ""
    attempt: int = 1
    data: JsonValue


RunEvent: TypeAlias = Annotated[StatusChanged | StepEvent | Progress, Field(discriminator="type")]


def event_of(run_id: str, entry: Entry) -> StatusChanged | StepEvent | Progress | None:
    """The event an entry stands for; None for what only the runtime needs."""
    common: dict[str, Any] = {"offset": entry.seq, "at": datetime.fromtimestamp(entry.at_ms / 1000, UTC), "run_id": run_id}
    if entry.kind == EntryKind.STATUS:
        said = PLAIN.decode(entry.body, "status")
        return StatusChanged(**common, status=said["status"], waiting_for=said.get("for"), worker=said.get("worker"))
    if entry.kind == EntryKind.PROGRESS:
        return Progress(**common, step=entry.key, attempt=entry.attempt, data=PLAIN.decode(entry.body, "progress"))
    phase: Phase
    if entry.kind == EntryKind.INTENT:
        phase = "retrying" if entry.attempt > 1 else "started"
    elif entry.kind in (EntryKind.RESULT, EntryKind.SIGNAL):
        phase = "finished"
    elif entry.kind == EntryKind.ERROR:
        phase = "failed"
    else:
        return None
    return StepEvent(**common, step=entry.key, phase=phase, attempt=entry.attempt)


class EventStream:
    """The events of a run from an offset on, until it has ended. Use it as a context manager to stop earlier; iterate it once."""

    def __init__(self, store: RunStore, hub: Hub, run_id: str, after: int) -> None:
        self._store, self._hub, self._run_id, self._after = store, hub, run_id, after
        self._events: AsyncIterator[StatusChanged | StepEvent | Progress] | None = None

    def __aiter__(self) -> AsyncIterator[StatusChanged | StepEvent | Progress]:
        if self._events is None:
            self._events = self._follow()
        return self._events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()

    async def _follow(self) -> AsyncIterator[StatusChanged | StepEvent | Progress]:
        after = self._after
        with self._hub.watch(self._run_id, journal=True) as watcher:
            while True:
                (row,) = await self._store.get([self._run_id])
                if row is None:
                    raise RunNotFound(self._run_id)
                entries = await self._store.load(self._run_id, after=after or -1)
                for entry in entries:
                    after = entry.seq
                    event = event_of(self._run_id, entry)
                    if event is not None:
                        yield event
                if row.status.ended:
                    return
                await watcher.next(POLL_S)
