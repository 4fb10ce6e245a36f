"""`StepContext` and `Context`: what a step may ask for, and the durable verbs that `Agent.run` is handed."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple, overload
from uuid import UUID

import anyio
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from agentkit.agents import children, concurrency, state, waiting
from agentkit.durable.codec import PLAIN
from agentkit.durable.execution import shielded
from agentkit.durable.functions import codec_of, function_of
from agentkit.durable.identity import Scope, current_scope, fingerprint
from agentkit.durable.steps import Call, Done, Effect, perform
from agentkit.errors import Misuse
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from agentkit.agents.base import Agent, Child, Signal
    from agentkit.agents.children import Need, Outcomes
    from agentkit.agents.state import State
    from agentkit.durable.execution import Execution
    from agentkit.runtime.handle import RunHandle

T = TypeVar("T")
R = TypeVar("R")
I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the API
O = TypeVar("O")  # noqa: E741
Ts = TypeVarTuple("Ts")


class StepContext:
    """What a step or a probe may ask for as its first parameter, if it is annotated so."""

    def __init__(self, execution: Execution, key: str = "", attempt: int = 1) -> None:
        self._execution, self._key, self._attempt = execution, key, attempt

    @property
    def run_id(self) -> str:
        return self._execution.run.run_id

    @property
    def tenant(self) -> str:
        return self._execution.run.tenant

    @property
    def attempt(self) -> int:
        """1, and one more for each earlier start of this step that a crash or an operator ended."""
        return self._attempt

    @property
    def idempotency_key(self) -> str:
        """Run and step: the same in every attempt, so that a target can tell a repetition."""
        return f"{self.run_id}:{self._key}"

    @property
    def fence(self) -> int:
        """Rises with each owner of the run: a target that keeps the highest can refuse a frozen one that thawed."""
        return self._execution.claim.fence

    @property
    def remaining_s(self) -> float:
        """Seconds until the run's deadline; infinite without one."""
        deadline = self._execution.run.deadline
        return float("inf") if deadline is None else max(0.0, deadline - self._execution.store_now())

    def get(self, kind: type[T], /) -> T:
        """The app's own resource of that type, from `lifespan`."""
        found = self._execution.host.resources.get(kind)
        if not isinstance(found, kind):
            known = ", ".join(sorted(k.__qualname__ for k in self._execution.host.resources)) or "none"
            raise Misuse(f"no resource of type {kind.__qualname__} (lifespan gave: {known}): yield it from Runtime(lifespan=…)")
        return found

    async def progress(self, data: BaseModel | Any, /) -> None:
        """Tell whoever follows the run. The event is shown once it is durable; a body that runs again tells again."""
        body = PLAIN.encode(to_jsonable_python(data), "progress")
        self._execution.journal.append(EntryKind.PROGRESS, self._key, body, attempt=self._attempt)


class Context(StepContext):
    """The durable verbs. Each takes its name first; a name and its ordinal (or `key=`) are its identity in the journal."""

    def __init__(self, execution: Execution, scope: Scope | None = None) -> None:
        super().__init__(execution)
        self._scope = Scope("", None) if scope is None else scope
        self._random: random.Random | None = None

    def _take(self, name: str, key: str | None = None) -> str:
        """The key of a verb called now. Nested calls are named under the step whose body makes them."""
        inner = current_scope.get()
        scope = self._scope
        if inner is not None and inner.path.startswith(scope.path) and inner is not scope:
            scope = inner
        return scope.take(name, key, self._execution.home.task())

    @overload
    def step(
        self,
        name: str,
        fn: Callable[[StepContext, *Ts], Awaitable[R]],
        /,
        *args: *Ts,
        key: str | None = None,
        effect: Effect | None = None,
        probe: Callable[[*Ts], Awaitable[Done[R] | None]] | None = None,
        timeout_s: float | None = None,
        returns: type[R] | None = None,
        fingerprint: object = None,
    ) -> Awaitable[R]: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[[*Ts], Awaitable[R]],
        /,
        *args: *Ts,
        key: str | None = None,
        effect: Effect | None = None,
        probe: Callable[[*Ts], Awaitable[Done[R] | None]] | None = None,
        timeout_s: float | None = None,
        returns: type[R] | None = None,
        fingerprint: object = None,
    ) -> Awaitable[R]: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[[*Ts], R],
        /,
        *args: *Ts,
        key: str | None = None,
        effect: Effect | None = None,
        probe: Callable[[*Ts], Awaitable[Done[R] | None]] | None = None,
        timeout_s: float | None = None,
        returns: type[R] | None = None,
        fingerprint: object = None,
    ) -> Awaitable[R]: ...
    def step(  # type: ignore[misc]  # mypy does not see that Any takes what *Ts stands for
        self,
        name: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        key: str | None = None,
        effect: Effect | None = None,
        probe: Callable[..., Awaitable[Done[Any] | None]] | None = None,
        timeout_s: float | None = None,
        returns: Any = None,
        fingerprint: object = None,
    ) -> Awaitable[Any]:
        """Run `fn(*args)` once and remember its result under this name.

        A plain function on purpose: its ordinal is taken now, when it is called, not when it is awaited.

        Args:
            name: durable; together with its ordinal, or `key`, the step's identity.
            fn: async, or sync (then it runs on a thread); may want a `StepContext` first. Positional arguments only: use functools.partial.
            effect: it touches the outside world; if a crash leaves unknown whether it did: run it again, ask an operator, or fail.
            probe: gets the same arguments and says `Done(value)` if the effect happened, None if not. Asked before `effect` decides.
            timeout_s: after it the body is cancelled and the step fails; for an effect also the time before which nobody repeats it.
            returns: the type of the result, where `fn` does not declare it.
            fingerprint: what identifies the call instead of its arguments, e.g. an id instead of a big document.

        Raises:
            StepError: the body failed (now, or when it was recorded). Its effect may have happened.
        """
        info = function_of(fn, STEP_CONTEXTS)
        call_key = self._take(name, key)
        identity = fingerprint_of(name, info.name, fn, args if fingerprint is None else fingerprint)
        codec = info.codec if returns is None else codec_of(returns, name)
        if probe is not None and function_of(probe, STEP_CONTEXTS).wants_context:
            probe = partial(probe, StepContext(self._execution, call_key))
        call = Call(
            call_key,
            name,
            fn,
            args,
            codec=codec,
            is_async=info.is_async,
            fp=identity,
            with_context=self._for_step if info.wants_context else None,
            effect=effect,
            probe=probe,
            timeout_s=timeout_s,
        )
        return perform(self._execution, call)

    def _for_step(self, call: Call, attempt: int) -> StepContext:
        return StepContext(self._execution, call.key, attempt)

    async def run(self, name: str, agent: type[Agent[I, O]], input: I, /, *, key: str | None = None) -> O:
        """Run another agent as a durable child and return its result. Raises `RunError` when it ends without one."""
        return await children.run_one(self._execution, self._take(name, key), agent, input)

    @overload
    async def map(
        self, name: str, agent: type[Agent[I, O]], inputs: Iterable[I], /, *, key: Callable[[I], str] | None = None, max_parallel: int = 16
    ) -> list[O]: ...
    @overload
    async def map(
        self,
        name: str,
        agent: type[Agent[I, O]],
        inputs: Iterable[I],
        /,
        *,
        need: Need,
        key: Callable[[I], str] | None = None,
        max_parallel: int = 16,
    ) -> Outcomes[O]: ...
    async def map(
        self,
        name: str,
        agent: type[Agent[I, O]],
        inputs: Iterable[I],
        /,
        *,
        need: Need | None = None,
        key: Callable[[I], str] | None = None,
        max_parallel: int = 16,
    ) -> list[O] | Outcomes[O]:
        """Run an agent over many inputs as durable children, at most `max_parallel` at a time.

        Returns their results in order; with `need`, the `Outcomes` once the need is met. Raises `RunError` when it cannot be met
        (without `need`: when any child fails); the others are then cancelled.
        """
        return await children.run_map(
            self._execution, self._take(name), agent, list(inputs), need=need, key_of=key, max_parallel=max_parallel
        )

    @overload
    async def join(self, children: Mapping[str, Child[O]], /, *, max_parallel: int = 16) -> dict[str, O]: ...
    @overload
    async def join(self, children: Mapping[str, Child[O]], /, *, need: Need, max_parallel: int = 16) -> Outcomes[O]: ...
    async def join(
        self, children: Mapping[str, Child[O]], /, *, need: Need | None = None, max_parallel: int = 16
    ) -> dict[str, O] | Outcomes[O]:
        """Run different agents side by side as durable children, by key. Raises as `map` does."""
        return await run_join(self._execution, self._take("join"), children, need=need, max_parallel=max_parallel)

    async def start(self, name: str, agent: type[Agent[I, O]], input: I, /, *, key: str | None = None) -> RunHandle[O]:
        """Start a run that outlives this one."""
        handle: RunHandle[O] = await children.start(self._execution, self._take(name, key), agent, input)
        return handle

    async def wait_for(self, signal: Signal[T], /, *, key: str = "", timeout_s: float | None = None) -> T:
        """Wait for a signal; while nothing else runs, the run parks and holds no slot. Raises `SignalTimeout`."""
        return await waiting.wait_for(
            self._execution, self._take(f"wait:{signal.name}" + (f":{key}" if key else "")), signal, key, timeout_s
        )

    async def sleep(self, seconds: float, /) -> None:
        """Sleep by the store's clock, also over restarts."""
        await waiting.sleep(self._execution, self._take("sleep"), seconds)

    async def gather(self, *branches: Callable[[Context], Awaitable[R]], max_parallel: int = 16) -> list[R]:
        """Run branches side by side, each with names of its own. All run to their end; then the first error in order is raised."""
        return await concurrency.gather(self, self._take("gather"), branches, max_parallel)

    async def first(self, *branches: Callable[[Context], Awaitable[R]]) -> R:
        """The result (or error) of the branch that ends first; which one it was is journalled, the others are cancelled."""
        return await concurrency.first(self, self._take("first"), branches)

    def branch(self, key: str, /) -> Context:
        """A context for a task of your own: the first task that uses it owns it."""
        return self.branch_at(f"{self._scope.path}branch={key}/")

    def branch_at(self, path: str) -> Context:
        """A context whose scope is `path`, for verbs that make branches."""
        return Context(self._execution, Scope(path, None))

    @property
    def execution(self) -> Execution:
        """The activation this context belongs to."""
        return self._execution

    def timeout(self, seconds: float, /) -> AbstractAsyncContextManager[None]:
        """Raise TimeoutError inside after `seconds` of store time; that it struck is journalled, so a replay takes the same path."""
        return concurrency.timeout(self._execution, self._take("timeout"), seconds)

    @overload
    def on_end(self, name: str, fn: Callable[[StepContext, *Ts], Awaitable[object]], /, *args: *Ts) -> None: ...
    @overload
    def on_end(self, name: str, fn: Callable[[*Ts], Awaitable[object]], /, *args: *Ts) -> None: ...
    def on_end(  # type: ignore[misc]  # mypy does not see that Any takes what *Ts stands for
        self, name: str, fn: Callable[..., Awaitable[object]], /, *args: Any
    ) -> None:
        """Durable clean-up: runs as a step when the run ends, however it ends, last registered first. `finally` runs at every park."""
        self._execution.endings.append((name, fn, args))

    @asynccontextmanager
    async def shield(self) -> AsyncGenerator[None]:
        """Inside it steps run although the run is cancelled."""
        ex = self._execution
        token, scope = shielded.set(True), anyio.CancelScope(shield=ex.leaving is None)
        ex.shields.add(scope)
        try:
            with scope:
                yield
        finally:
            ex.shields.discard(scope)
            shielded.reset(token)

    @property
    def leaving(self) -> Literal["park", "drain", "cancel"] | None:
        """Why the frames are being unwound, in a `finally`; None while the run goes on."""
        ex = self._execution
        return ex.leaving or ("cancel" if ex.cancelled is not None else None)

    async def state(self, initial: T, /) -> State[T]:
        """A value carried from save to save: after `save()` a replay starts there and older entries are not read again."""
        return await state.restore(self._execution, self._take("state"), self._scope, initial)

    async def now(self) -> datetime:
        """The store's clock, journalled."""
        return datetime.fromtimestamp(await waiting.now(self._execution, self._take("now")), UTC)

    def random(self) -> random.Random:
        """Chance that repeats in a replay: from the run's seed and this scope."""
        if self._random is None:
            self._random = self._execution.random_for(self._scope.path)
        return self._random

    def uuid4(self) -> UUID:
        """A random UUID that repeats in a replay."""
        return UUID(int=self.random().getrandbits(128), version=4)

    async def durable(self) -> None:
        """Return once everything so far is durable."""
        ex = self._execution
        ex.check_open()
        ex.waits.busy += 1  # by hand what `working` does: this is called as often as a step
        try:
            await ex.host.lane.settled(ex.claim)
        finally:
            ex.idle()

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that is silent while replaying."""
        return _RunLog(logging.getLogger(f"agentkit.run.{self._execution.run.kind}"), {"run_id": self.run_id}, self._execution)


class _RunLog(logging.LoggerAdapter[logging.Logger]):
    def __init__(self, logger: logging.Logger, extra: dict[str, object], execution: Execution) -> None:
        super().__init__(logger, extra)
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:
        return not self._execution.journal.replaying and super().isEnabledFor(level)


def fingerprint_of(name: str, function: str, fn: Callable[..., Any], args: object) -> str:
    """The fingerprint of a call; a partial's own arguments belong to it."""
    while isinstance(fn, partial):
        args, fn = (fn.args, args, fn.keywords), fn.func
    return fingerprint(name, function, args)


run_join = children.run_join
STEP_CONTEXTS = (StepContext, Context)  # what a first parameter is annotated with that wants one
