"""What happens in a run, as events: read from its journal, so they are durable, in order, and resume from an offset."""

from __future__ import annotations

import math
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

import anyio
from pydantic import BaseModel, Field

from agentkit.durable.codec import PLAIN
from agentkit.errors import RunNotFound
from agentkit.ports.records import EntryKind, RunStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pydantic import JsonValue

    from agentkit.ports.records import Entry, Run
    from agentkit.ports.runs import RunStore
    from agentkit.runtime.hub import Hub, Watcher

if not TYPE_CHECKING:
    JsonValue = Any  # at run time it is only shown, and pydantic's own name for it takes long to import

Status: TypeAlias = Literal["queued", "running", "waiting", "done", "failed", "cancelled", "buried"]
Phase: TypeAlias = Literal["started", "finished", "failed", "retrying"]
ToolPhase: TypeAlias = Literal["called", "returned", "failed"]
ENDED = frozenset({"done", "failed", "cancelled", "buried"})
PUBLIC: dict[RunStatus, Status] = {
    RunStatus.READY: "queued",
    RunStatus.RUNNING: "running",
    RunStatus.PARKED: "waiting",
    RunStatus.COMPLETED: "done",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
    RunStatus.BURIED: "buried",
}


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


class TextDelta(Event, frozen=True, defer_build=True):
    """The next piece of what a model says.

    `position` is how many characters of this answer came before it. After a crash the answer is made again from its beginning: a piece at
    a position that was there already replaces all from there on.
    """

    type: Literal["text"] = "text"
    step: str
    text: str
    position: int


class ToolEvent(Event, frozen=True, defer_build=True):
    """A tool was called, and what came of it."""

    type: Literal["tool"] = "tool"
    step: str
    tool: str
    phase: ToolPhase


class ApprovalEvent(Event, frozen=True, defer_build=True):
    """A tool with `approve=True` waits for a human's leave, or got it. Answer with `handle.resolve(step, …)`.

    `arguments` are those of the call, with secrets as their type; of a very long call, its beginning.
    """

    type: Literal["approval"] = "approval"
    step: str
    granted: bool = False
    arguments: JsonValue = None


class BudgetEvent(Event, frozen=True, defer_build=True):
    """An account passed its soft limit: once in its life, and once more after its budget was extended."""

    type: Literal["budget"] = "budget"
    account: str
    usd: float | None = None
    tokens: int | None = None
    soft: float


RunEvent: TypeAlias = Annotated[
    StatusChanged | StepEvent | TextDelta | ToolEvent | ApprovalEvent | Progress | BudgetEvent, Field(discriminator="type")
]


def event_of(run_id: str, entry: Entry) -> RunEvent | None:
    """The event an entry stands for; None for what only the runtime needs."""
    common: dict[str, Any] = {"offset": entry.seq, "at": datetime.fromtimestamp(entry.at_ms / 1000, UTC), "run_id": run_id}
    if entry.kind == EntryKind.STATUS:
        said = PLAIN.decode(entry.body, "status")
        return StatusChanged(**common, status=said["status"], waiting_for=said.get("for"), worker=said.get("worker"))
    if entry.kind == EntryKind.PROGRESS:
        return Progress(**common, step=entry.key, attempt=entry.attempt, data=PLAIN.decode(entry.body, "progress"))
    if entry.kind in (EntryKind.TEXT, EntryKind.TOOL):
        made = TextDelta if entry.kind == EntryKind.TEXT else ToolEvent
        return made(**common, step=entry.key, **PLAIN.decode(entry.body, made.__name__))
    if entry.kind == EntryKind.APPROVAL:
        said = PLAIN.decode(entry.body, "approval")
        return ApprovalEvent(**common, step=entry.key, granted=said.get("granted", False), arguments=said.get("arguments"))
    if entry.kind == EntryKind.BUDGET:
        said = PLAIN.decode(entry.body, "budget")
        return BudgetEvent(**common, account=said["account"], **said["limit"])
    phase = _phase(entry)
    return None if phase is None else StepEvent(**common, step=entry.key, phase=phase, attempt=entry.attempt)


def is_end(event: RunEvent) -> bool:
    """Whether it tells that the run has ended."""
    return event.type == "status" and event.status in ENDED


def _phase(entry: Entry) -> Phase | None:
    if entry.kind == EntryKind.INTENT:
        return "retrying" if entry.attempt > 1 else "started"
    if entry.kind in (EntryKind.RESULT, EntryKind.SIGNAL):
        return "finished"
    return "failed" if entry.kind == EntryKind.ERROR else None


class EventStream:
    """The events of a run from an offset on, until it has ended. Use it as a context manager to stop earlier; iterate it once."""

    def __init__(self, store: RunStore, hub: Hub, run_id: str, after: int) -> None:
        self._store, self._hub, self._run_id, self._after = store, hub, run_id, after
        self._closed = False
        self._events: AsyncIterator[RunEvent] | None = None
        self._watcher: Watcher | None = None
        self._watching = ExitStack()

    def __aiter__(self) -> AsyncIterator[RunEvent]:
        if self._events is None:
            self._events = self._follow()
        return self._events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()
        self._close()

    async def read(self, timeout_s: float | None = None) -> list[RunEvent] | None:
        """The events that nobody has read yet, in order; without any, the next ones. To read beside other work: inside `async with`.

        An empty list when none came within `timeout_s` seconds (0: only what is there already), None when the run has ended and all was
        told. Raises `RunNotFound`, or the store's `StoreError`: read again to go on where it was.
        """
        if self._closed:
            return None
        if self._watcher is None:
            self._watcher = self._watching.enter_context(self._hub.watch(self._run_id, journal=True))
        end = math.inf if timeout_s is None else anyio.current_time() + timeout_s
        events, ended = await self._look()
        while not events and not ended and (left_s := end - anyio.current_time()) > 0:
            if await self._watcher.next(left_s):
                events, ended = await self._look()
        if ended:
            self._close()
        return events if events or not ended else None

    async def _look(self) -> tuple[list[RunEvent], bool]:
        """What the journal holds since the last look, and whether it was the last one that is needed."""
        (row,) = await self._store.get([self._run_id])
        if row is None:
            raise RunNotFound(self._run_id)
        entries = await self._store.load(self._run_id, after=self._after or -1)
        events = [event for entry in entries if (event := event_of(self._run_id, entry)) is not None]
        if entries:
            self._after = entries[-1].seq
        if row.status.ended and not (events and is_end(events[-1])):
            events += await self._end_by_others(row)
        return events, row.status.ended

    async def _end_by_others(self, row: Run) -> list[RunEvent]:
        """The last event of a run that was cancelled before it started, or given up: nobody wrote it into its journal.

        Its offset is the one behind the journal, so that who goes on from there is not told twice. In the journal of a run that is revived
        that place is taken by "running", which who goes on does not hear.
        """
        if self._after:
            told = await self._store.load(row.run_id, after=self._after - 1 or -1)
            if not told or told[-1].seq != self._after:
                return []
            last = event_of(row.run_id, told[-1])
            if last is not None and is_end(last):
                return []
        self._after += 1
        at = datetime.fromtimestamp(row.updated_at, UTC)
        return [StatusChanged(offset=self._after, at=at, run_id=row.run_id, status=PUBLIC[row.status])]

    async def _follow(self) -> AsyncIterator[RunEvent]:
        try:
            while (events := await self.read()) is not None:
                for event in events:
                    yield event
        finally:
            self._close()

    def _close(self) -> None:
        self._closed, self._watcher = True, None
        self._watching.close()
