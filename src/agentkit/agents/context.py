"""`Context`: the durable verbs that `Agent.run` is handed."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple, overload
from uuid import UUID

import anyio

from agentkit.agents import children, concurrency, state, waiting
from agentkit.agents.bounded import under
from agentkit.agents.services import services_of
from agentkit.agents.step_context import StepContext
from agentkit.durable.execution import shielded
from agentkit.durable.functions import codec_of, function_of, inner
from agentkit.durable.identity import Scope, current_scope, fingerprint
from agentkit.durable.steps import Call, Done, Effect, perform
from agentkit.later import Later

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from agentkit.agents import allowance, generation
    from agentkit.agents import execute as plans
    from agentkit.agents.base import Agent, AnyAgent, Child, Signal
    from agentkit.agents.children import Need, Outcomes
    from agentkit.agents.session import Session
    from agentkit.agents.state import State
    from agentkit.agents.tool import AnyTool
    from agentkit.durable.execution import Execution
    from agentkit.inference.budgets import Budget
    from agentkit.inference.models import Reply
    from agentkit.plan.model import Plan, PlanResult
    from agentkit.ports.messages import Prompt
    from agentkit.resilience.policy import Policy
    from agentkit.runtime.handle import RunHandle
else:
    allowance, generation = Later("agentkit.agents.allowance"), Later("agentkit.agents.generation")
    plans = Later("agentkit.agents.execute")

T = TypeVar("T")
R = TypeVar("R")
I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the API
O = TypeVar("O")  # noqa: E741
Ts = TypeVarTuple("Ts")


class Context(StepContext):
    """The durable verbs. Each takes its name first; a name and its ordinal (or `key=`) are its identity in the journal."""

    def __init__(self, execution: Execution, scope: Scope | None = None, policy: Policy | None = None) -> None:
        super().__init__(execution)
        self._scope, self._policy = Scope("", None) if scope is None else scope, policy
        self._random: random.Random | None = None

    def _take(self, name: str, key: str | None = None) -> str:
        """The key of a verb called now. Nested calls are named under the step whose body makes them."""
        scope, nesting = self._scope, current_scope.get()
        if nesting is not None and (inner := nesting.inside()).path.startswith(scope.path):
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
        policy: Policy | None = None,
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
        policy: Policy | None = None,
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
        policy: Policy | None = None,
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
        policy: Policy | None = None,
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
            policy: what bounds the body: each of its attempts is one run of it, all within this one step. Default: the agent's `policy`.
            returns: the type of the result, where `fn` does not declare it.
            fingerprint: what identifies the call instead of its arguments, e.g. an id instead of a big document.

        Raises:
            StepError: the body failed (now, or when it was recorded). Its effect may have happened.
        """
        info = function_of(fn, STEP_CONTEXTS)
        call_key = self._take(name, key)
        tool = inner(fn) if info.is_tool else None
        if tool is not None and fingerprint is None:
            fingerprint = tool.by_name(fn, args)
        identity = fingerprint_of(name, info.name, tool or fn, args if fingerprint is None else fingerprint)
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
        if tool is not None:
            return perform(self._execution, tool.as_step(self._execution, call, policy, self._policy))
        if policy is None:
            policy = self._policy
        return perform(self._execution, call if policy is None or policy.bounds_nothing else under(self._execution, policy, call))

    def _for_step(self, call: Call, attempt: int) -> StepContext:
        return StepContext(self._execution, call.key, attempt)

    async def run(
        self,
        name: str,
        agent: type[Agent[I, O]],
        input: I,
        /,
        *,
        key: str | None = None,
        policy: Policy | None = None,
        budget: Budget | None = None,
    ) -> O:
        """Run another agent as a durable child and return its result. Raises `RunError` when it ends without one.

        Args:
            policy: its `timeout_s` is the child's deadline, all attempts together; its `retry` makes another child when one has failed by
                an error in `on`, for instance `Retry(on=(RunError,))`. Its other parts hold something while they wait, which a parent must
                not: give them to the child's own steps (`Agent.policy`); here they raise `InvalidSetting`.
            budget: of the child and all under it; what it spends counts in the budgets above it too.
        """
        return await children.run_one(self._execution, self._take(name, key), agent.of(input, budget=budget), policy)

    @overload
    async def map(
        self,
        name: str,
        agent: type[Agent[I, O]],
        inputs: Iterable[I],
        /,
        *,
        key: Callable[[I], str] | None = None,
        max_parallel: int = 16,
        policy: Policy | None = None,
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
        policy: Policy | None = None,
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
        policy: Policy | None = None,
    ) -> list[O] | Outcomes[O]:
        """Run an agent over many inputs as durable children, at most `max_parallel` at a time.

        Returns their results in order; with `need`, the `Outcomes` once the need is met. Raises `RunError` when it cannot be met
        (without `need`: when any child fails); the others are then cancelled. Of a policy only `timeout_s` applies: the deadline of all.
        """
        return await children.run_map(
            self._execution, self._take(name), agent, list(inputs), need=need, key_of=key, max_parallel=max_parallel, policy=policy
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
        return Context(self._execution, Scope(path, None), self._policy)

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
    def policy(self) -> Policy | None:
        """What bounds its steps, where they name no policy of their own: the agent's."""
        return self._policy

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

    @overload
    async def generate(
        self, prompt: Prompt, /, *, model: str = "default", tools: Sequence[AnyTool] = (), key: str | None = None
    ) -> Reply[str]: ...
    @overload
    async def generate(
        self, prompt: Prompt, /, *, output: type[T], model: str = "default", tools: Sequence[AnyTool] = (), key: str | None = None
    ) -> Reply[T]: ...
    async def generate(
        self, prompt: Prompt, /, *, output: Any = str, model: str = "default", tools: Sequence[AnyTool] = (), key: str | None = None
    ) -> Reply[Any]:
        """Ask a model. Each call of it, and of the tools that it uses, is a step of its own: `model#1`, `look_up#1`, `model#2`.

        Args:
            output: the type of the answer. The model is given its JSON schema; an answer that does not fit is asked for once more, and the
                model is told what was wrong.
            model: a name that `Runtime(models=…)` knows.
            tools: what the model may call before it answers.
            key: names the calls instead of their order, for calls from several tasks.

        Raises:
            StepError: the call failed (`kind` is the type of its error), `OutputInvalid`: the second answer does not fit either,
                `TooManyRounds`: the model went on calling tools.
        """
        return await generation.generate(self, prompt, output=output, model=model, tools=tools, key=key)

    async def execute(
        self, plan: Plan, /, *, tools: Sequence[AnyTool] = (), agents: Sequence[AnyAgent] = (), max_parallel: int = 16
    ) -> PlanResult:
        """Carry out a plan: each step durable, side by side as their order allows, at most `max_parallel` at a time.

        When a step fails, those under way end, and the finished effects that say how are taken back, the last one first; the same before
        a cancel of the run, or a `ctx.timeout` around the plan, goes on its way. Whether the plan succeeded is in the result's `failed`.

        Raises:
            PlanInvalid: with all faults of the plan. Nothing was started.
        """
        return await plans.execute_plan(self, self._take("plan"), plan, tools, agents, max_parallel=max_parallel)

    async def extend_budget(self, budget: Budget, /) -> None:
        """Allow so much more in the run's own budget, or where it has none in the nearest above it: once, whatever crashes.

        Where nothing is limited nothing changes; a budget in dollars is not extended by tokens.
        """
        await allowance.extend_budget(self, budget)

    async def durable(self) -> None:
        """Return once everything so far is durable. Nothing is journalled here, so a cancel strikes in the next call, as in a replay."""
        ex = self._execution
        ex.waits.busy += 1  # by hand what `working` does: this is called as often as a step
        try:
            await ex.host.lane.settled(ex.claim)
        finally:
            ex.idle()

    @property
    def session(self) -> Session[Any] | None:
        """The session that the run belongs to. Its verbs are durable steps here: `session.get#1`, `session.history#1`."""
        return services_of(self._execution).sessions.of(self._execution, self)

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
