"""One durable step: answer from the journal, or run the body under its crash policy and journal what came of it."""

from __future__ import annotations

import time
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from agentkit import telemetry
from agentkit.durable.codec import PLAIN
from agentkit.durable.execution import logger, shielded, time_limits
from agentkit.durable.identity import Scope, current_scope, short_name
from agentkit.durable.secrets import without_secrets
from agentkit.errors import (
    AmbiguousStep,
    ClaimLost,
    EntryTooLarge,
    JournalMismatch,
    NotSerialisable,
    PermissionDenied,
    RunCancelled,
    RunError,
    StepError,
    StoreUnavailable,
    WorkerFenced,
)
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentkit.durable.codec import Codec
    from agentkit.durable.execution import Execution
    from agentkit.durable.journal import Record
    from agentkit.ports.records import Entry

T = TypeVar("T")
Effect = Literal["rerun", "ask", "fail"]

INTENTS = 3  # of one attempt: an outage costs one, and a time limit shorter than a commit shall fail, not go round for ever
NOT_JOURNALLED = (StoreUnavailable, WorkerFenced, ClaimLost, JournalMismatch, AmbiguousStep, RunCancelled)
"""Errors that say nothing about the step: on the next activation it may well succeed, or the run itself is at fault."""


class Done(Generic[T]):
    """A probe's answer: the effect did happen, and this is its value."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


Probe: TypeAlias = "Callable[..., Awaitable[Done[Any] | None]]"
Gate: TypeAlias = "Callable[[Execution, Call, Record | None], Awaitable[Done[Any] | None]]"
"""Asked before a step starts that has no outcome yet: raise, answer in the body's place, or None: go ahead."""


class Call:
    """What the user asked for."""

    __slots__ = ("args", "codec", "effect", "fn", "fp", "gate", "inner", "is_async", "key", "name", "probe", "timeout_s", "with_context")

    def __init__(
        self,
        key: str,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        codec: Codec,
        is_async: bool,
        fp: str,
        with_context: Callable[[Call, int], Any] | None = None,
        effect: Effect | None = None,
        probe: Probe | None = None,
        timeout_s: float | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.key, self.name, self.fn, self.args = key, name, fn, args
        self.codec, self.is_async, self.fp, self.with_context = codec, is_async, fp, with_context
        self.effect: Effect | None = effect
        self.probe, self.timeout_s, self.gate = probe, timeout_s, gate
        self.inner: Scope | None = None

    def inside(self) -> Scope:
        """The scope of the steps that its body takes; few do."""
        if self.inner is None:
            self.inner = Scope(self.key + "/", None)
        return self.inner


async def perform(ex: Execution, call: Call) -> Any:
    """The value of a step, recorded or made now. Raises `StepError` when it failed, now or when it was recorded."""
    record = ex.journal.known(call.key, call.fp)
    if record is not None and record.outcome is not None:
        await ex.replayed()
        return _recall(ex, call, record.outcome)
    crowded = ex.crowded
    if crowded or time_limits.get():
        ex.check_open()
    attempt = 1
    if record is not None or call.gate is not None:
        settled = await _settled_before(ex, call, record)
        if settled is not None:
            return settled.value
        attempt, crowded = 1 if record is None else record.attempts + 1, True
    ex.waits.busy += 1
    try:
        if call.effect is None and not ex.strict:
            if crowded:
                await ex.admit()
            return await _body(ex, call, attempt, None)
        return await _body(ex, call, attempt, await _intend(ex, call, attempt))
    finally:
        ex.idle()


async def _settled_before(ex: Execution, call: Call, record: Record | None) -> Done[Any] | None:
    """What makes the body needless: an answer about an effect that may have happened, or the gate's. None: run it."""
    if record is not None and record.intent is not None:
        return await _unknown(ex, call, record)
    return None if call.gate is None else await call.gate(ex, call, record)


async def _intend(ex: Execution, call: Call, attempt: int) -> float:
    """Journal the intent of an effect, wait until it is durable, and return the loop time at which the body must be over.

    A store that was away for half of that time leaves too little of it: nothing has started, so the intent is taken back and made anew.
    """
    timeout_s = call.timeout_s or ex.host.limits.effect_timeout_s
    for _ in range(INTENTS - 1):
        deadline = await _intend_once(ex, call, attempt, timeout_s)
        if deadline - anyio.current_time() > timeout_s / 2:
            return deadline
        ex.journal.append(EntryKind.VOID, call.key, attempt=attempt)
    return await _intend_once(ex, call, attempt, timeout_s)


async def _intend_once(ex: Execution, call: Call, attempt: int, timeout_s: float) -> float:
    await ex.admit()
    deadline = anyio.current_time() + timeout_s
    body = PLAIN.encode({"deadline": ex.store_now() + timeout_s, "effect": call.effect or "rerun"}, call.key)
    seq = ex.journal.append(EntryKind.INTENT, call.key, body, attempt=attempt, fp=call.fp)
    try:
        await ex.journal.settled(seq)
        await ex.admit()
    except BaseException:
        if ex.claim.error is None and not ex.claim.closed:
            ex.journal.append(EntryKind.VOID, call.key, attempt=attempt)  # it did not start, so nobody need be asked about it
        raise
    return deadline


async def _body(ex: Execution, call: Call, attempt: int, deadline: float | None) -> Any:
    """Run the body once and journal what came of it."""
    if deadline is None and call.timeout_s is not None:
        deadline = anyio.current_time() + call.timeout_s
    began = time.perf_counter()
    scope = ex.new_scope() if deadline is None else anyio.CancelScope(deadline=deadline)
    call.inner, nested = None, current_scope.set(call)
    if not shielded.get():
        ex.bodies.add(scope)
    value: Any = None
    try:
        with scope:
            if call.is_async and call.with_context is None and ex.host.on_step is None and not telemetry.enabled():
                value = await call.fn(*call.args)  # what `_invoke` comes to when nobody looks on, without its three frames
            else:
                value = await _invoke(ex, call, attempt)
    except NOT_JOURNALLED:
        raise
    except Exception as exc:
        exc = without_secrets(exc, call.fn, call.args)
        raise _failed(ex, call, attempt, began, exc) from exc
    finally:
        ex.bodies.discard(scope)
        current_scope.reset(nested)
    if scope.cancelled_caught:
        raise _cut(ex, call, attempt, began)
    return _keep(ex, call, attempt, began, value)


async def _invoke(ex: Execution, call: Call, attempt: int) -> Any:
    if ex.host.on_step is None:
        return await _traced(ex, call, attempt)
    await ex.host.on_step(ex.run.run_id, call.key, "begin")
    value = await _traced(ex, call, attempt)
    await ex.host.on_step(ex.run.run_id, call.key, "end")
    return value


async def _traced(ex: Execution, call: Call, attempt: int) -> Any:
    args = call.args if call.with_context is None else (call.with_context(call, attempt), *call.args)
    if not telemetry.enabled():
        return await invoke(ex, call, args)
    with telemetry.span(
        telemetry.STEP,
        {
            telemetry.STEP_KEY: call.key,
            telemetry.RUN_ID: ex.run.run_id,
            telemetry.ATTEMPT: attempt,
            telemetry.EFFECT: call.effect or "none",
        },
    ):
        return await invoke(ex, call, args)


async def invoke(ex: Execution, call: Call, args: tuple[Any, ...]) -> Any:
    """Run a step's function once: a sync one on a thread. What it raises is cleaned here, before policies and spans see it."""
    try:
        return await _invoked(ex, call, args)
    except Exception as exc:
        cleaned = without_secrets(exc, call.fn, args)
        if cleaned is exc:
            raise
        raise cleaned from None


async def _invoked(ex: Execution, call: Call, args: tuple[Any, ...]) -> Any:
    if call.is_async:
        return await call.fn(*args)
    # A thread cannot be stopped: a pure one may run on unseen, an effect must be over before the run is let go.
    value = await anyio.to_thread.run_sync(partial(call.fn, *args), abandon_on_cancel=call.effect is None, limiter=ex.host.threads)
    return await value if isawaitable(value) else value


def _keep(ex: Execution, call: Call, attempt: int, began: float, value: Any) -> Any:
    """Journal a result and return what a replay would return."""
    try:
        body = call.codec.encode(value, call.key)
        if len(body) > ex.host.limits.max_entry_bytes:  # asked here too: the hot path saves a call and a string
            ex.check_size(f"the result of step {call.key!r}", body)
        value = call.codec.decode(body, call.key)
    except NotSerialisable as exc:
        named = NotSerialisable(f"the result of step {call.key!r}", exc.path, exc.problem)
        raise _failed(ex, call, attempt, began, named) from exc
    except EntryTooLarge as exc:
        raise _failed(ex, call, attempt, began, exc) from exc
    took_us = int((time.perf_counter() - began) * 1e6)
    ex.journal.append(EntryKind.RESULT, call.key, body, attempt=attempt, fp=call.fp, took_us=took_us)
    if telemetry.enabled():
        _count(ex, "ok", took_us)
    if "=" in call.key:
        _remember(ex, call, EntryKind.RESULT, body)
    return value


def _failed(ex: Execution, call: Call, attempt: int, began: float, exc: Exception) -> StepError:
    kind = exc.kind if isinstance(exc, RunError) else type(exc).__name__
    message = exc.message if isinstance(exc, RunError) else str(exc)
    return fail(ex, call, kind, message[:10_000], attempt=attempt, took_us=int((time.perf_counter() - began) * 1e6))


def _cut(ex: Execution, call: Call, attempt: int, began: float) -> Exception:
    """The body was cut short: by a cancel of the run, or by its own time limit."""
    if ex.cancelled is not None:
        body = PLAIN.encode({"kind": "RunCancelled", "message": ex.cancelled}, call.key)
        ex.journal.append(EntryKind.ERROR, call.key, body, attempt=attempt, fp=call.fp)
        _count(ex, "cancelled", int((time.perf_counter() - began) * 1e6))
        return RunCancelled(ex.run.run_id, ex.cancelled)
    return _failed(ex, call, attempt, began, TimeoutError(f"no end within {call.timeout_s or ex.host.limits.effect_timeout_s:g} s"))


def fail(ex: Execution, call: Call, kind: str, message: str, *, attempt: int = 1, took_us: int = 0) -> StepError:
    """Journal a step's failure and return the error to raise."""
    body = PLAIN.encode({"kind": kind, "message": message}, call.key)
    ex.journal.append(EntryKind.ERROR, call.key, body, attempt=attempt, fp=call.fp, took_us=took_us)
    _count(ex, "error", took_us)
    if "=" in call.key:
        _remember(ex, call, EntryKind.ERROR, body)
    return _step_error(ex, call, kind, message)


def _step_error(ex: Execution, call: Call, kind: str, message: str) -> StepError:
    if kind == "PermissionDenied":
        return PermissionDenied(message, call.key, ex.run.run_id)
    return StepError(kind, message, call.key, ex.run.run_id)


def _count(ex: Execution, outcome: str, took_us: int) -> None:
    if telemetry.enabled():
        attributes = {telemetry.AGENT: ex.run.kind, telemetry.OUTCOME: outcome}
        telemetry.STEPS.add(1, attributes)
        telemetry.STEP_SECONDS.record(took_us / 1e6, attributes)


def _remember(ex: Execution, call: Call, kind: EntryKind, body: bytes) -> None:
    ex.journal.remember(call.key, kind, body, call.fp)


def _recall(ex: Execution, call: Call, outcome: Entry) -> Any:
    if outcome.kind != EntryKind.ERROR:
        return call.codec.decode(outcome.body, call.key)
    said = PLAIN.decode(outcome.body, call.key)
    if said["kind"] == "RunCancelled":
        raise RunCancelled(ex.run.run_id, said["message"])
    raise _step_error(ex, call, said["kind"], said["message"])


async def _unknown(ex: Execution, call: Call, record: Record) -> Done[Any] | None:
    """An earlier owner meant to start this effect and nobody knows whether it did. None: run it (again).

    The policy does not act before the deadline in the intent: an owner that is only cut off from the store may still be at it.
    """
    if record.intent is None:
        return None
    intent = PLAIN.decode(record.intent.body, call.key)
    if (call.effect == "rerun" and call.probe is None) or call.effect is None:
        return None
    await ex.wait(f"effect:{short_name(call.key)}", until=float(intent["deadline"]))
    if call.probe is not None:
        try:
            with ex.working():
                done = await call.probe(*call.args)
        except Exception:  # noqa: BLE001 - what a probe cannot say, the policy decides
            logger.exception("probe of step %s failed; its policy %r decides", call.key, call.effect)
        else:
            return None if done is None else Done(_keep(ex, call, record.attempts, time.perf_counter(), done.value))
    if call.effect == "rerun":
        return None
    if call.effect == "fail":
        raise fail(ex, call, "EffectUnknown", "a crash left unknown whether it happened, and its policy is 'fail'", attempt=record.attempts)
    return await ask(ex, call, AFTER_A_CRASH)


class Question(NamedTuple):
    """What somebody outside is asked about a step, and what is journalled when the answer is to go ahead, or to fail."""

    word: str
    go: tuple[EntryKind, bytes]
    failed: tuple[str, str]


AFTER_A_CRASH = Question("operator", (EntryKind.VOID, b""), ("EffectFailed", "an operator said that it failed"))


async def ask(ex: Execution, call: Call, question: Question) -> Done[Any] | None:
    """Park until somebody says what becomes of the step: it was done (its value), it failed (raised), or None: run it."""
    message = await ex.wait(f"{question.word}:{short_name(call.key)}", topic=f"{question.word}:{call.key}")
    if message is None:
        return None
    said = PLAIN.decode(message.body, call.key)
    if said["answer"] == "rerun":
        kind, body = question.go
        ex.take(message, kind, call.key, body, fp=call.fp)
        return None
    if said["answer"] == "fail":
        kind_of_error, why = question.failed
        why = f"{why}: {said['result']}" if said.get("result") else why
        body = PLAIN.encode({"kind": kind_of_error, "message": why}, call.key)
        ex.take(message, EntryKind.ERROR, call.key, body, fp=call.fp)
        raise _step_error(ex, call, kind_of_error, why)
    body = PLAIN.encode(said.get("result"), call.key)
    try:
        value = call.codec.decode(body, call.key)
    except NotSerialisable as exc:  # the operator's slip is not the run's failure: say so to whoever follows it, and ask again
        ex.take(message, EntryKind.PROGRESS, call.key, PLAIN.encode({"refused": str(exc)}, call.key))
        return await ask(ex, call, question)
    ex.take(message, EntryKind.RESULT, call.key, body, fp=call.fp)
    return Done(value)
