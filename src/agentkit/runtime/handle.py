"""`RunHandle`: a run as seen from outside, wherever it runs."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel

from agentkit import telemetry
from agentkit.agents.base import output_codec
from agentkit.durable.approval import APPROVAL
from agentkit.durable.codec import PLAIN, fields_of
from agentkit.durable.identity import short_name
from agentkit.durable.steps import AFTER_A_CRASH
from agentkit.errors import (
    InvalidInput,
    NotSerialisable,
    RunBuried,
    RunCancelled,
    RunEnded,
    RunError,
    RunNotFound,
    RunTimeout,
    StepError,
    StoreError,
)
from agentkit.inference.usage import own_usage, whole_usage
from agentkit.ports.messages import Usage
from agentkit.ports.records import EntryKind, RunStatus
from agentkit.runtime.events import PUBLIC, EventStream, Status
from agentkit.runtime.hub import POLL_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import JsonValue

    from agentkit.agents.base import AnyAgent, Signal
    from agentkit.ports.records import Entry, Run
    from agentkit.runtime.engine import Engine
    from agentkit.runtime.hub import Hub

O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")
log = logging.getLogger("agentkit.runtime")

REMIND_S = 60.0


class RunInfo(BaseModel, frozen=True, defer_build=True):
    """A run at a glance."""

    run_id: str
    agent: str
    version: str
    tenant: str
    status: Status
    waiting_for: str | None
    attempts: int
    """Claims so far: one, and one more for each park and each take-over."""
    crashes: int
    parent_id: str | None
    created_at: datetime
    updated_at: datetime
    error: str | None
    usage: Usage
    """What its own calls of models took so far, as the engines say it: tokens, and dollars where the model has a price. Children have
    theirs, so the runs of a list add up; `RunHandle.usage` is with all below it.
    """


def info_of(row: Run, usage: Usage) -> RunInfo:
    """The public view of a stored run."""
    error = None
    if row.status.ended and row.status != RunStatus.COMPLETED:
        said = fields_of(row.result)
        error = f"{said.get('kind', row.status.name)}: {said.get('message') or said.get('reason', '')}"
    return RunInfo(
        run_id=row.run_id,
        agent=row.kind,
        version=row.version,
        tenant=row.tenant,
        status=PUBLIC[row.status],
        waiting_for=row.waiting_for or None,
        attempts=row.fence,
        crashes=row.crashes,
        parent_id=row.parent_id,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        updated_at=datetime.fromtimestamp(row.updated_at, UTC),
        error=error,
        usage=usage,
    )


def error_of(row: Run) -> Exception:
    """What `result()` raises for a run that ended without one."""
    said = fields_of(row.result)
    kind, message = str(said.get("kind", "RunError")), str(said.get("message") or said.get("reason") or "")
    if row.status == RunStatus.CANCELLED:
        return RunCancelled(row.run_id, message)
    if row.status == RunStatus.BURIED:
        return RunBuried(kind, message, row.run_id)
    if kind == "RunTimeout":
        return RunTimeout(kind, message, row.run_id)
    if said.get("step"):
        return StepError(kind, message, said["step"], row.run_id)
    return RunError(kind, message, row.run_id)


def asking_steps(entries: Iterable[Entry]) -> dict[str, str]:
    """The steps that somebody may have to answer for, by key, each with the word of its question."""
    asking: dict[str, str] = {}
    for entry in entries:
        if entry.kind == EntryKind.INTENT:
            asking[entry.key] = AFTER_A_CRASH.word
        elif entry.kind == EntryKind.APPROVAL and not fields_of(entry.body).get("granted"):
            asking[entry.key] = APPROVAL.word
        elif entry.kind in (EntryKind.RESULT, EntryKind.ERROR, EntryKind.VOID, EntryKind.APPROVAL):
            asking.pop(entry.key, None)
    return asking


class RunHandle(Generic[O_co]):
    """A run by its id. Making one does no I/O; every method asks the store."""

    def __init__(self, engine: Engine, hub: Hub, run_id: str, agent: AnyAgent | None, seen: Run | None = None) -> None:
        self._engine, self._hub, self._run_id, self._agent, self._seen = engine, hub, run_id, agent, seen

    @property
    def run_id(self) -> str:
        return self._run_id

    async def info(self) -> RunInfo:
        """Where it stands. Raises `RunNotFound`, `StoreUnavailable`."""
        row = await self._row()
        (usage,) = await own_usage(self._engine.services.budgets, [self._run_id])
        return info_of(row, usage)

    async def usage(self) -> Usage:
        """What it and all runs below it have spent on models so far: its children, theirs, and what they started with `ctx.start`.

        Raises `StoreUnavailable`.
        """
        return await whole_usage(self._engine.services.budgets, self._run_id)

    async def _row(self) -> Run:
        (row,) = await self._engine.store.get([self._run_id])
        if row is None:
            raise RunNotFound(self._run_id)
        return row

    async def result(self, *, timeout_s: float | None = None) -> O_co:
        """Wait for the end and return the result.

        Raises:
            RunError: it failed (`StepError` when a step did), or was buried (`RunBuried`), or ran out of time (`RunTimeout`).
            RunCancelled: it was cancelled.
            TimeoutError: `timeout_s` passed; the run goes on.
        """
        clock = self._engine.clock
        began, reminded = clock.monotonic(), 0.0
        with self._hub.watch(self._run_id) as watcher:
            row, self._seen = self._seen or await self._row(), None
            if row.status == RunStatus.READY and self._engine.is_local(self._run_id):
                watcher.calm()
            else:
                self._hub.poke((self._run_id,))  # it may have gone on since it was seen, elsewhere
            while not row.status.ended:
                waited = clock.monotonic() - began
                if timeout_s is not None and waited >= timeout_s:
                    raise TimeoutError(f"run {self._run_id!r} has not ended within {timeout_s:g} s; it goes on")
                if waited - reminded >= (REMIND_S if reminded else self._engine.lease_s):
                    reminded = waited
                    await self._remind(row)
                if await watcher.next(POLL_S if timeout_s is None else min(POLL_S, timeout_s - waited)):
                    row = watcher.row or await self._row()
            return self._value(row)

    def _value(self, row: Run) -> O_co:
        if row.status != RunStatus.COMPLETED:
            raise error_of(row)
        codec = PLAIN if self._agent is None else output_codec(self._agent)
        value: O_co = codec.decode(row.result, f"result of run {row.run_id!r}")
        return value

    async def _remind(self, row: Run) -> None:
        """The commonest hang names itself."""
        wanted = f"{row.kind}@{row.version}"
        try:
            workers = await self._engine.store.workers() if row.status == RunStatus.READY else None
        except StoreError:
            return  # who waits through an outage is not to be told of its end by an error
        if workers is not None and not any(wanted in w.kinds.split(",") for w in workers):
            log.warning("run %s waits: no live worker serves %s (start one: agentkit worker module:runtime)", row.run_id, wanted)

    def events(self, *, after: int = 0) -> EventStream:
        """What happened after offset `after`, then what happens, until the run ends."""
        return EventStream(self._engine.store, self._hub, self._run_id, after)

    async def signal(self, signal: Signal[T], value: T, /, *, key: str = "", id: str | None = None) -> None:
        """Send a signal. With an `id` it is delivered once, however often it is sent.

        Raises:
            InvalidInput: the value does not fit the signal's type. Nothing was sent.
            RunNotFound, RunEnded: nobody can take it any more. Nothing was sent.
        """
        try:
            body = signal.codec.encode(value, f"signal {signal.name!r}")
            signal.codec.decode(body, f"signal {signal.name!r}")
        except NotSerialisable as exc:
            raise InvalidInput(f"signal {signal.name}", f"{exc.path or 'the value'}: {exc.problem}") from exc
        # A name space of its own: an id that somebody chose must not hide a cancel or a child's end.
        if await self._send(uuid4().hex if id is None else f"id:{id}", signal.topic(key), body) == "ended":
            raise RunEnded(self._run_id)

    async def cancel(self, reason: str = "", /) -> None:
        """Cancel the run and, level by level, its children. An ended run stays as it is."""
        await self._send("cancel", "cancel", PLAIN.encode({"reason": reason}, "reason"))

    async def resolve(self, step: str, answer: Literal["done", "rerun", "fail"], /, *, result: JsonValue = None) -> None:
        """Answer for a step that asks: `step` by its name or full key.

        Of an effect that a crash left unknown: it was `done` (with its result), `rerun` it, or `fail`. Of a tool with `approve=True`,
        before it starts: `rerun` approves it, `fail` refuses it (the result says why), `done` gives the result of who did it by hand.
        Raises `InvalidInput` when no such step asks.
        """
        topic = await self._asking(step)
        body = json.dumps({"answer": answer, "result": result}).encode()
        await self._send(uuid4().hex, topic, body)

    async def _asking(self, step: str) -> str:
        row = await self._row()
        asking = asking_steps(await self._engine.store.load(row.run_id))
        fits = [key for key in asking if step in (key, short_name(key))]
        if len(fits) != 1:
            listed = ", ".join(asking) or "none"
            raise InvalidInput(f"resolve of run {row.run_id!r}", f"{len(fits)} steps fit {step!r}; open are: {listed}")
        return f"{asking[fits[0]]}:{fits[0]}"

    async def _send(self, message_id: str, topic: str, body: bytes) -> str:
        with telemetry.span(telemetry.SIGNAL, {telemetry.RUN_ID: self._run_id, telemetry.TOPIC: topic}) as span:
            signalled = await self._engine.store.signal(self._run_id, message_id, topic, body)
            span.set_attribute(telemetry.OUTCOME, signalled.answer)
        telemetry.SIGNALS.add(1, {telemetry.OUTCOME: signalled.answer})
        if signalled.answer == "unknown":
            raise RunNotFound(self._run_id)
        if signalled.ticket is not None:
            await self._engine.dispatch([signalled.ticket])
        if signalled.ended_now:
            await self._engine.tell([self._run_id])
        self._engine.poke(self._run_id)
        self._hub.poke((self._run_id,))
        return signalled.answer
