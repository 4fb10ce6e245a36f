"""Each rule is needed: a store that drops one fails the law that stands for it."""

from __future__ import annotations

import pytest

from agentkit.inmemory.runs import InMemoryRuns
from tests.core import run_mutants_ownership, run_mutants_waking
from tests.core.run_mutants import MUTANTS, holds

ROOMS = (run_mutants_ownership, run_mutants_waking)


@pytest.mark.parametrize(("mutant", "law"), MUTANTS, ids=[f"{mutant.__name__}-{law}" for mutant, law in MUTANTS])
async def test_a_store_that_drops_a_rule_breaks_its_law(mutant: type[InMemoryRuns], law: str) -> None:
    assert not await holds(law, mutant)


@pytest.mark.parametrize("law", sorted({law for _, law in MUTANTS}))
async def test_the_store_itself_keeps_that_law(law: str) -> None:
    assert await holds(law, InMemoryRuns)


def test_every_mutant_is_held_against_a_law() -> None:
    written = {each for room in ROOMS for each in vars(room).values() if isinstance(each, type) and each.__module__ == room.__name__}
    assert written == {mutant for mutant, _ in MUTANTS}
