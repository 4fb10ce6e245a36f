"""`Policy`: everything that bounds a call, in one order.

From the outside in, and why each stands around the next:

1. **deadline** around **retry**: `timeout_s` is how long the caller waits, all attempts, waits and lines together.
2. **retry** around **hedge**: a hedge is one attempt that is sent twice; only when both have failed is it made again.
3. **hedge** around **circuit**, **limits** and **call**: a second sending needs its own permit and its own leave, or it would go round
   both.
4. **circuit (asked)** around **limits**: nobody waits in line, or spends tokens, for a backend that is known to be down.
5. **semaphores** around **rates**: what a rate allows is sent at once; tokens taken first and then held in a line would arrive in a burst.
   Several semaphores are passed in the order of their names, so that two policies never wait for each other in a circle.
6. **rates** around **circuit (passed)**: the circuit may have opened while the call waited; and it measures the backend, not our lines.
7. **circuit** around **call**: it sees every attempt, and a stream until its end.

A layer that is left out costs nothing. What retries, limits and circuits know belongs to names and lives in a `PolicyState`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import TypeVarTuple, Unpack

from agentkit import telemetry
from agentkit.errors import DeadlineExceeded
from agentkit.resilience.budget import Budget, Spending
from agentkit.resilience.circuit_breaker import Circuit, CircuitBreaker
from agentkit.resilience.circuit_sharing import SharedCircuit
from agentkit.resilience.deadline import Within
from agentkit.resilience.hedge import Hedge
from agentkit.resilience.passage import Passage
from agentkit.resilience.rate_limit import RateLimit
from agentkit.resilience.retry import Retry, retried
from agentkit.resilience.semaphore import Semaphore
from agentkit.resilience.settings import above_zero, require
from agentkit.resilience.state import PolicyState, current

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from agentkit.resilience.layer import Layer

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class Policy:
    """What bounds calls of one kind: a model's, a tool's, a store's, a child run's.

    It holds settings only and may be made once and used everywhere. The order of its parts is written in `agentkit.resilience.policy`.

    Args:
        name: of whatever is called. Circuit, retry budget and hedge belong to it, so circuit and hedge need one; policies without a name
            share one retry budget.
        timeout_s: for a call as a whole: its attempts, and its waits before and between them. The caller's deadline holds as well.
        retry: which failures are tried again.
        breaker: when to stop calling.
        limits: semaphores and rates.
        hedge: send a slow call a second time. For idempotent calls only: both may take effect.
    """

    def __init__(
        self,
        name: str = "",
        *,
        timeout_s: float | None = None,
        retry: Retry | None = None,
        breaker: CircuitBreaker | None = None,
        limits: Sequence[Semaphore | RateLimit] = (),
        hedge: bool = False,
    ) -> None:
        above_zero("Policy.timeout_s", 1.0 if timeout_s is None else timeout_s)
        for part, given in (("breaker", breaker is not None), ("hedge", hedge)):
            require(f"Policy.{part}", given, bool(name) or not given, "needs Policy(name): its state belongs to the name")
        self.name, self.timeout_s, self.retry, self.breaker, self.hedge = name, timeout_s, retry, breaker, hedge
        semaphores = sorted((limit for limit in limits if isinstance(limit, Semaphore)), key=lambda limit: limit.name)
        self.limits: tuple[Semaphore | RateLimit, ...] = (*semaphores, *(limit for limit in limits if isinstance(limit, RateLimit)))
        self._parts: Parts | None = None

    @property
    def bounds_nothing(self) -> bool:
        """Whether a call under it is the same as without it."""
        return self.timeout_s is None and self.retry is None and self.breaker is None and not self.limits and not self.hedge

    async def call(self, fn: Callable[[Unpack[Ts]], Awaitable[R]], /, *args: *Ts) -> R:
        """Await `fn(*args)` under this policy; each attempt calls it anew.

        Raises:
            NoTimeLeft, Overloaded, CircuitOpen: nothing was sent.
            DeadlineExceeded, PermitLost: cut off; its effect may have happened.
            Exception: what the last attempt raised, as it was.
        """
        parts = self._bound()
        within = parts.within("call", self.timeout_s)
        try:
            async with within:
                once = partial(parts.attempt, within, fn, args)
                return await self._retried(parts, once if parts.hedge is None else partial(parts.hedge.call, once))
        except DeadlineExceeded:
            telemetry.CUT_OFF.say({telemetry.POLICY: self.name})
            raise

    @asynccontextmanager
    async def stream(self, fn: Callable[[Unpack[Ts]], AbstractAsyncContextManager[R]], /, *args: *Ts) -> AsyncGenerator[R]:
        """Enter `fn(*args)`, an async context manager, under this policy, and hold what the policy granted until the block ends.

        Opening is retried, what comes after is not: part of it has been seen. A stream is never hedged. Raises as `call` does.
        """
        parts = self._bound()
        within = parts.within("stream", self.timeout_s)
        try:
            async with within:
                stack, opened = await self._retried(parts, partial(parts.open, within, fn, args))
                async with stack:
                    yield opened
        except DeadlineExceeded:
            telemetry.CUT_OFF.say({telemetry.POLICY: self.name})
            raise

    async def _retried(self, parts: Parts, once: Callable[[], Awaitable[R]]) -> R:
        if self.retry is None:
            return await once()
        with Spending(parts.budget) as spending:
            return await retried(self.retry, self.name, spending, parts.state.clock, once)

    def _bound(self) -> Parts:
        state = current()
        parts = self._parts
        if parts is None or parts.state is not state:
            parts = self._parts = Parts(self, state)
        return parts


class Parts:
    """A policy's layers with the state behind their names."""

    def __init__(self, policy: Policy, state: PolicyState) -> None:
        self.name, self.state = policy.name, state
        self.budget = state.part("retry budget", policy.name, None, Budget)
        self.hedge = state.part("hedge", policy.name, None, partial(Hedge, policy.name, state.clock)) if policy.hedge else None
        self.circuit = None if policy.breaker is None else _circuit(policy.name, policy.breaker, state)
        limits: list[Layer] = [limit.layer(state) for limit in policy.limits]
        self.layers: tuple[Layer, ...] = (*limits, *([self.circuit] if self.circuit else []))
        self.metered = any(isinstance(limit, RateLimit) for limit in policy.limits)
        self.leased = state.limits is not None and any(isinstance(limit, Semaphore) and limit.shared for limit in policy.limits)

    def within(self, what: str, timeout_s: float | None) -> Within:
        """The deadline of one call."""
        return Within(self.name or what, timeout_s, self.state.clock, new_scope=self.state.new_scope)

    async def attempt(self, within: Within, fn: Callable[[Unpack[Ts]], Awaitable[R]], args: tuple[*Ts]) -> R:
        """One attempt of a call."""
        if not self.layers:
            within.sent = True
            return await fn(*args)
        async with self._passage(within):
            return await fn(*args)

    async def open(
        self, within: Within, fn: Callable[[Unpack[Ts]], AbstractAsyncContextManager[R]], args: tuple[*Ts]
    ) -> tuple[AsyncExitStack, R]:
        """One attempt to open a stream; the stack closes it and gives back what was granted."""
        async with AsyncExitStack() as stack:
            passage = await stack.enter_async_context(self._passage(within))
            opened = await stack.enter_async_context(fn(*args))
            passage.opened()
            return stack.pop_all(), opened

    def _passage(self, within: Within) -> Passage:
        return Passage(self.name, self.layers, self.state.clock, within, circuit=self.circuit, leased=self.leased, metered=self.metered)


def _circuit(name: str, breaker: CircuitBreaker, state: PolicyState) -> Circuit:
    if breaker.shared and state.values is not None:
        return state.part("circuit", name, breaker, partial(SharedCircuit, name, breaker, state.clock, state.values))
    return state.part("circuit", name, breaker, partial(Circuit, name, breaker, state.clock))
