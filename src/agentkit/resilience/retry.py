"""Retries: only of errors that say a repetition is safe, no sooner than the server asked, no later than the caller's deadline."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from agentkit import telemetry
from agentkit.resilience.deadline import remaining_s
from agentkit.resilience.settings import at_least, require

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentkit.clock import Clock
    from agentkit.resilience.budget import Spending

R = TypeVar("R")
Reason = Literal["unsafe", "attempts", "time", "budget"]


@dataclass(frozen=True)
class Retry:
    """How often a call is made again, and after which wait.

    Made again are errors of ours that say `retry_safe`, and those of the types in `on`: for these you say that a repetition does no harm.
    A cancellation is never made again. A server's `Retry-After` is kept, unless the deadline comes first: then the error is raised at once.

    Args:
        attempts: of one call, the first included.
        on: further types of errors that are made again.
        wait_s: the most before the second attempt, seconds; it doubles with each further one. The wait is drawn at random below that.
        max_wait_s: the most before any attempt; where there is no deadline, also the longest `Retry-After` that is waited for.
    """

    attempts: int = 3  # a third failure in a row is no accident
    _: KW_ONLY
    on: tuple[type[BaseException], ...] = ()  # nothing: only an error's author knows whether its effect may have happened
    wait_s: float = 0.2  # about the time in which a connection is made anew
    max_wait_s: float = 20.0  # under the 30 s after which most callers have gone

    def __post_init__(self) -> None:
        at_least("Retry.attempts", self.attempts, 1)
        at_least("Retry.wait_s", self.wait_s, 0)
        at_least("Retry.max_wait_s", self.max_wait_s, self.wait_s)
        for kind in self.on:
            require("Retry.on", kind.__name__, issubclass(kind, Exception), "a cancellation or an exit of the program is never retried")

    @cached_property
    def _waits(self) -> tuple[wait_random_exponential, RetryCallState]:
        waits = wait_random_exponential(multiplier=self.wait_s, max=self.max_wait_s, min=self.wait_s / 2)
        return waits, RetryCallState(AsyncRetrying(), None, (), {})

    def backoff_s(self, attempt: int) -> float:
        """Seconds to wait after the `attempt`-th, drawn anew at each call."""
        waits, state = self._waits
        state.attempt_number = attempt
        return float(waits(state))


class Again(NamedTuple):
    """Make another attempt after `wait_s`."""

    wait_s: float


class Stop(NamedTuple):
    """Raise the error."""

    reason: Reason


def is_safe(retry: Retry, error: Exception) -> bool:
    """Whether the same call may be sent again."""
    return bool(getattr(error, "retry_safe", False)) or isinstance(error, retry.on)


def decide(retry: Retry, attempt: int, error: Exception, *, backoff_s: float, remaining_s: float) -> Again | Stop:
    """What follows the failure of the `attempt`-th attempt (from 1)."""
    if not is_safe(retry, error):
        return Stop("unsafe")
    if attempt >= retry.attempts:
        return Stop("attempts")
    asked_s: float = getattr(error, "retry_after_s", None) or 0.0
    most = remaining_s if remaining_s < math.inf else max(retry.max_wait_s, backoff_s)
    wait_s = max(backoff_s, asked_s)
    return Again(wait_s) if wait_s <= most and wait_s < remaining_s else Stop("time")


async def retried(retry: Retry, name: str, spending: Spending, clock: Clock, once: Callable[[], Awaitable[R]]) -> R:
    """Call `once` until it succeeds or the error is final, which is then raised as it is."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return await once()
        except Exception as exc:
            step = decide(retry, attempt, exc, backoff_s=retry.backoff_s(attempt), remaining_s=remaining_s())
            if isinstance(step, Again) and not spending.pay():
                step = Stop("budget")
            if isinstance(step, Stop):
                telemetry.NOT_RETRIED.say({telemetry.POLICY: name, telemetry.REASON: step.reason}, {telemetry.ATTEMPT: attempt})
                raise
        telemetry.RETRIED.say({telemetry.POLICY: name}, {telemetry.ATTEMPT: attempt, telemetry.WAIT: step.wait_s})
        await clock.sleep(step.wait_s)
