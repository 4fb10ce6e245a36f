"""What bounds a call: queues, circuits, budgets, deadlines, permits."""

from __future__ import annotations

from typing import ClassVar, Literal

from agentkit.errors.base import AgentKitError


class Overloaded(AgentKitError):
    """Too much is waiting already. Nothing was started; try again after `retry_after_s` seconds."""

    counts_as_failure: ClassVar[bool] = False  # the limit is ours: it tells nothing about the backend behind it
    try_elsewhere: ClassVar[bool] = True

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        self.what, self.limit, self.retry_after_s = what, limit, retry_after_s
        super().__init__(f"{what} is full ({limit}); try again in {retry_after_s:g} s")


class QueueFull(Overloaded):
    """The queue is at `max_depth`. Nothing was written."""


class CircuitOpen(AgentKitError):
    """Too many of the last calls failed or were slow. Nothing was sent; calls are let through again after `retry_after_s` seconds."""

    counts_as_failure: ClassVar[bool] = False
    try_elsewhere: ClassVar[bool] = True

    def __init__(self, name: str, retry_after_s: float) -> None:
        self.name, self.retry_after_s = name, retry_after_s
        super().__init__(f"the circuit of {name!r} is open, for its calls failed or were slow; try again in {retry_after_s:g} s")


class BatchClosed(AgentKitError):
    """A micro-batch was closed: this call was refused, or cut off. Its effect happened only if its batch was `sent`."""

    def __init__(self, what: str, *, sent: bool = False) -> None:
        self.what, self.sent = what, sent
        super().__init__(f"{what} is closed: call it inside its `async with` block" + (" (this call was under way)" if sent else ""))


class BudgetExceeded(AgentKitError):
    """A call might cost more than its budget has left. Nothing was sent.

    Args:
        account: whose budget it is, for instance `run/contract-17` or `tenant/acme/2026-11-21`.
        unit: of the three numbers: `usd` or `tokens`.
        limit: what the budget allows in all.
        spent: what calls have cost, and calls under way may cost.
        asked: what this call may cost.
    """

    counts_as_failure: ClassVar[bool] = False  # the limit is ours: it tells nothing about the backend behind it

    def __init__(self, account: str, unit: Literal["usd", "tokens"], *, limit: float, spent: float, asked: float) -> None:
        self.account, self.unit, self.limit, self.spent, self.asked = account, unit, limit, spent, asked
        numbers = f"{limit:,.15g} {unit} allowed, {spent:,.15g} spent or reserved, {asked:,.15g} asked"
        super().__init__(f"budget of {account!r}: {numbers}; ask for less (max_tokens), or allow more (ctx.extend_budget)")


class DeadlineExceeded(AgentKitError, TimeoutError):
    """A call was cut off at its deadline. Its effect may have happened."""

    def __init__(self, what: str, timeout_s: float) -> None:
        self.what, self.timeout_s = what, timeout_s
        super().__init__(f"{what}: no end within {timeout_s:g} s; give it more time, or look why it hangs")


class NoTimeLeft(DeadlineExceeded):
    """No time was left before a call was sent. Nothing happened."""

    counts_as_failure: ClassVar[bool] = False

    def __init__(self, what: str, timeout_s: float = 0.0) -> None:
        super().__init__(what, timeout_s)
        within = f"all {timeout_s:g} s went by waiting" if timeout_s else "the caller's deadline has passed"
        self.args = (f"{what}: not sent, for {within}; allow more time or fewer callers",)


class PermitLost(AgentKitError):
    """A call was cut off because its permit of a shared semaphore could not be renewed. Its effect may have happened."""

    counts_as_failure: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"semaphore {name!r}: the lease of a permit ran out and it may be another's; is the limit store reachable?")
