"""Notes which laws must fail on which run store that drops a rule, and holds a law against a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, TypeVar

import anyio
import pytest

from agentkit.errors import StoreError
from agentkit.inmemory.runs import InMemoryRuns
from agentkit.testing.runs import RunStoreContract
from tests.core.mutants import keeps

M = TypeVar("M", bound=type[InMemoryRuns])

MUTANTS: list[tuple[type[InMemoryRuns], str]] = []
HANG_S = 20.0  # a mutant may leave a law waiting for ever: that is a failure too
BROKEN = (AssertionError, pytest.fail.Exception, StoreError, TimeoutError)


def breaks(*laws: str) -> Callable[[M], M]:
    """Say which laws must fail on this mutant, each without its leading `test_`."""

    def note(mutant: M) -> M:
        MUTANTS.extend((mutant, law) for law in laws)
        return mutant

    return note


async def holds(law: str, kind: type[InMemoryRuns]) -> bool:
    """Whether a law of the contract holds on this store, for all its parameters."""
    for given in _parameter_sets(getattr(RunStoreContract, f"test_{law}")):
        try:
            with anyio.fail_after(HANG_S):
                await keeps(RunStoreContract, law, kind, **given)
        except BROKEN:
            return False
    return True


def _parameter_sets(test: Any) -> Iterator[dict[str, object]]:
    marks: list[tuple[Any, Any]] = [mark.args for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for values in product(*(rows for _, rows in marks)):
        given: dict[str, object] = {}
        for (names, _), value in zip(marks, values, strict=True):
            given |= {names: value} if isinstance(names, str) else zip(names, value, strict=True)
        yield given
