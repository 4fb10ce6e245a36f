"""Runs one law of a conformance suite on an adapter that breaks it: the suite has to notice."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from _pytest.mark import ParameterSet

from agentkit.errors import AgentKitError
from agentkit.testing import contract
from agentkit.testing.clock import FakeClock
from agentkit.testing.contract import Contract

T = TypeVar("T")
Make = Callable[[FakeClock], Any]
Broken = tuple[type[T], str, dict[str, object]]
"""A mutant, the law that it breaks, and what the law's test is parametrized with."""


def named(rows: list[Broken[T]]) -> list[ParameterSet]:
    return [pytest.param(*row, id="-".join([row[0].__name__, row[1], *(str(value)[:20] for value in row[2].values())])) for row in rows]


async def keeps(suite: type[Contract], law: str, make: Make, **given: object) -> None:
    """Run the law as pytest would, with what `make` makes as both clients. Raises what the law raises."""
    clock = FakeClock()
    adapter = make(clock)
    clients = dict.fromkeys(("queue", "store", "watched", "target", "engine", "second"), adapter)
    have: dict[str, object] = {**clients, "clock": clock, "advance": clock.advance, **given}
    test: Callable[..., Awaitable[None]] = getattr(suite(), f"test_{law}")
    await test(**{name: have[name] for name in inspect.signature(test).parameters})


async def assert_only_the_mutant_breaks(suite: type[Contract], law: str, right: Make, wrong: Make, **given: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "GRACE_S", 0.05)  # what a mutant never does need not be awaited for long
        await keeps(suite, law, right, **given)
        with pytest.raises((AssertionError, AgentKitError, pytest.fail.Exception)):
            await keeps(suite, law, wrong, **given)


def laws_without_a_mutant(suite: type[Contract], rows: list[Broken[Any]]) -> list[str]:
    laws = {name.removeprefix("test_") for name in dir(suite) if name.startswith("test_")}
    return sorted(laws - {law for _, law, _ in rows})
