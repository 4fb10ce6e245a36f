"""The retry budget: what all calls earn together, and each retry costs, so that a dead backend is not sent the same work many times over.

A policy's own budget bounds the retries of its calls. Where policies stand inside one another (a step's, a router's, an endpoint's), a
retry of any of them is paid for in every budget around it too: attempts add up then, where they would multiply.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, Self

SLACK = 1e-9  # ten tenths are a rounding error short of one


class Allowance(NamedTuple):
    """How many extra attempts calls may bring about."""

    ratio: float = 0.1  # per call: half of the fifth that a dead backend may see, so that the reserve fits below it as well
    most: float = 50.0  # saved up at most: a restart of a backend that hits so many calls at once is bridged
    start: float = 50.0  # full: a process that just started meets backends that just started, too


def earned(allowance: Allowance, tokens: float) -> float:
    """Tokens after one more call."""
    return min(allowance.most, tokens + allowance.ratio)


def may_pay(tokens: float) -> bool:
    """Whether there is enough for one extra attempt."""
    return tokens >= 1 - SLACK


class Budget:
    """Tokens of one name. Each call earns a part of one, each extra attempt costs one."""

    def __init__(self, allowance: Allowance = Allowance()) -> None:  # noqa: B008  a NamedTuple cannot change
        self.allowance = allowance
        self.tokens = allowance.start

    def earn(self) -> None:
        """Book a call."""
        self.tokens = earned(self.allowance, self.tokens)


_around: ContextVar[tuple[Budget, ...]] = ContextVar("agentkit_retry_budgets", default=())


class Spending:
    """A context manager for one call: earns for it, and makes its budget one that retries further inside pay into as well."""

    __slots__ = ("_budgets", "_outer")

    def __init__(self, budget: Budget) -> None:
        self._outer = _around.get()
        self._budgets = self._outer
        if budget not in self._outer:  # a policy inside itself is one call
            budget.earn()
            self._budgets = (*self._outer, budget)

    def __enter__(self) -> Self:
        _around.set(self._budgets)
        return self

    def __exit__(self, *_: object) -> None:
        _around.set(self._outer)

    def pay(self) -> bool:
        """Pay for one retry in every budget, or, if one of them is empty, in none."""
        if not all(may_pay(budget.tokens) for budget in self._budgets):
            return False
        for budget in self._budgets:
            budget.tokens -= 1
        return True
