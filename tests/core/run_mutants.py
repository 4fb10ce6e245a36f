"""Run stores that each drop one rule, and the harness that holds a law against them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from itertools import product
from typing import Any, TypeVar

import anyio
import pytest

from agentkit.inmemory.runs import InMemoryRuns
from agentkit.testing.clock import FakeClock
from agentkit.testing.runs import RunStoreContract

M = TypeVar("M", bound=type[InMemoryRuns])

MUTANTS: list[tuple[type[InMemoryRuns], str]] = []
HANG_S = 20.0  # a mutant may leave a law waiting for ever: that is a failure too


def breaks(*laws: str) -> Callable[[M], M]:
    """Say which laws must fail on this mutant, each without its leading `test_`."""

    def note(mutant: M) -> M:
        MUTANTS.extend((mutant, law) for law in laws)
        return mutant

    return note


async def holds(law: str, kind: type[InMemoryRuns]) -> bool:
    """Whether a law of the contract holds on this store, for all its parameters."""
    test = getattr(RunStoreContract(), f"test_{law}")
    for parameters in _parameter_sets(test):
        if not await _passes(test, kind, parameters):
            return False
    return True


async def _passes(test: Callable[..., Awaitable[None]], kind: type[InMemoryRuns], parameters: dict[str, Any]) -> bool:
    clock = FakeClock()
    store = kind(clock)
    fixtures = {"store": store, "second": store, "clock": clock, "advance": clock.advance}
    wanted = {name: fixtures[name] for name in inspect.signature(test).parameters if name in fixtures}
    try:
        with anyio.fail_after(HANG_S):
            await test(**wanted, **parameters)
    except (Exception, pytest.fail.Exception):
        return False
    return True


def _parameter_sets(test: Any) -> Iterator[dict[str, Any]]:
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for values in product(*(mark.args[1] for mark in marks)):
        parameters: dict[str, Any] = {}
        for mark, value in zip(marks, values, strict=True):
            names = mark.args[0] if isinstance(mark.args[0], tuple) else (mark.args[0],)
            parameters |= zip(names, value if isinstance(mark.args[0], tuple) else (value,), strict=True)
        yield parameters
