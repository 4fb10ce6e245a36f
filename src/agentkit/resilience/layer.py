"""What a policy passes on the way to a call, and gives back on the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import anyio

from agentkit import telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Verdict = Literal["ok", "failed", "neutral"]


class Outcome(NamedTuple):
    """How a call ended.

    `verdict` is about the backend: neutral says nothing about it (the call was not sent, was cancelled, or was the caller's own mistake).
    `took_s` is from the moment it was sent to its answer; of a stream, to the moment it was open. `tokens` is what it said it used.
    """

    sent: bool
    verdict: Verdict
    took_s: float
    tokens: float | None = None


class Hold(Protocol):
    """What a layer granted to one call. `keep`, where there is one, must run beside it; it returns the name of what was lost."""

    @property
    def keep(self) -> Callable[[], Awaitable[str]] | None:
        """The job, or None."""
        ...

    async def leave(self, outcome: Outcome) -> None:
        """Give it back. Raises nothing, and is not stopped by a cancellation."""
        ...


class Layer(Protocol):
    """Something that a call passes."""

    async def enter(self) -> Hold:
        """Wait for its turn, or raise: then nothing is held."""
        ...


def verdict(error: BaseException, *, timed_out: bool) -> Verdict:
    """What a call that did not succeed says about its backend.

    Args:
        error: what came out of the call.
        timed_out: the policy's own time limit ended it; a cancellation by anybody else is the caller's affair.
    """
    if isinstance(error, Exception) and not _cancelled(error):
        return "failed" if getattr(error, "counts_as_failure", True) else "neutral"
    return "failed" if timed_out else "neutral"


def _cancelled(error: BaseException) -> bool:
    return isinstance(error, anyio.get_cancelled_exc_class())


def waited(name: str, seconds: float) -> None:
    """Say that a call waited for a limit."""
    telemetry.LIMIT_WAITED.say({telemetry.LIMIT: name}, {telemetry.WAIT: seconds})
    telemetry.LIMIT_SECONDS.record(seconds, {telemetry.LIMIT: name})


def refused(name: str, reason: str) -> None:
    """Say that a limit refused a call."""
    telemetry.LIMIT_REFUSED.say({telemetry.LIMIT: name, telemetry.REASON: reason})
