"""Hedging: a call that takes longer than nearly all before it is sent a second time, and the first answer wins.

Only for calls that may run twice (idempotent) and have one answer. Never more than a twentieth of all calls is sent again, so that a
backend which has become slow is not asked to do everything twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import anyio

from agentkit import telemetry
from agentkit.clock import Clock, wait_for
from agentkit.resilience.budget import Allowance, Budget, may_pay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

R = TypeVar("R")

SLOWEST = 0.05  # share of the calls that are slow enough to be sent again, and the most that is
STEP = 0.05  # of the estimate, towards each call seen: it follows a change of speed within some hundred calls
LEAST_S = 0.005  # a call that is answered sooner gains nothing by a second one
WARM = 20  # calls, before a twentieth of them means anything
EXTRA = Allowance(ratio=SLOWEST, most=1.0, start=0.0)  # nothing saved up: a burst of hedges is what an overloaded backend needs least


class Seen(NamedTuple):
    """How long calls took: how many were seen, and the time that a twentieth of them exceeds."""

    calls: int = 0
    p95_s: float = 0.0


def saw(seen: Seen, took_s: float) -> Seen:
    """After one more answer. Up by much for a slower one, down by little for a faster: at p95 the two balance."""
    if seen.calls < WARM:
        return Seen(seen.calls + 1, max(seen.p95_s, took_s))
    p95_s = seen.p95_s * (1 + STEP * (1 - SLOWEST) if took_s > seen.p95_s else 1 - STEP * SLOWEST)
    return Seen(seen.calls + 1, p95_s)


def hedge_after_s(seen: Seen, tokens: float) -> float | None:
    """When to send a call again, or None: too little is known, they are all fast, or enough was sent twice lately."""
    return seen.p95_s if seen.calls >= WARM and seen.p95_s >= LEAST_S and may_pay(tokens) else None


class Hedge:
    """What is known of the calls of one name, and how many of them may be sent twice."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name, self.clock = name, clock
        self.seen = Seen()
        self.budget = Budget(EXTRA)

    async def call(self, once: Callable[[], Awaitable[R]]) -> R:
        """Call `once`, and a second time beside it if it is slow. Whichever does not answer is cancelled, and has ended on return."""
        self.budget.earn()
        after_s = hedge_after_s(self.seen, self.budget.tokens)
        began = self.clock.monotonic()
        result = await (once() if after_s is None else self._race(once, after_s))
        self.seen = saw(self.seen, self.clock.monotonic() - began)
        return result

    async def _race(self, once: Callable[[], Awaitable[R]], after_s: float) -> R:
        race: Race[R] = Race(once)
        async with anyio.create_task_group() as group:
            group.start_soon(race.run, 0)
            if not await wait_for(self.clock, race.over, after_s) and may_pay(self.budget.tokens):
                self.budget.tokens -= 1
                race.runners = 2
                group.start_soon(race.run, 1)
            await race.over.wait()
            group.cancel_scope.cancel()
        if race.runners == 2:
            telemetry.HEDGED.say({telemetry.POLICY: self.name, telemetry.OUTCOME: race.outcome})
        return race.result()


class Race(Generic[R]):
    """Up to two attempts side by side."""

    def __init__(self, once: Callable[[], Awaitable[R]]) -> None:
        self.runners = 1
        self.over = anyio.Event()
        self._once = once
        self._answers: list[tuple[int, R]] = []
        self._errors: list[BaseException] = []

    @property
    def outcome(self) -> str:
        """Who answered."""
        return ("first", "second")[self._answers[0][0]] if self._answers else "error"

    async def run(self, number: int) -> None:
        """One attempt. An error ends the race only when no other attempt is left."""
        try:
            self._answers.append((number, await self._once()))
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:  # noqa: BLE001  raised again by `result`, in the caller's task
            self._errors.append(exc)
        if self._answers or len(self._errors) == self.runners:
            self.over.set()

    def result(self) -> R:
        """The first answer, or the first error."""
        if not self._answers:
            raise self._errors[0]
        return self._answers[0][1]
