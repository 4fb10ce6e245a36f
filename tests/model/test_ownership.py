"""The ownership protocol keeps its laws under every pair of faults; with any rule dropped the explorer finds the broken law."""

from itertools import combinations_with_replacement

import pytest

from tests.model.explorer import OK, explore
from tests.model.ownership import Ownership
from tests.model.ownership_variants import BAD, GOOD, Variant

FAULTS = ("kill", "expire", "cut", "lapse", "double", "lost", "submit crash", "drain")
PAIRS = tuple(combinations_with_replacement(FAULTS, 2))


def test_without_faults_the_run_ends_and_no_law_is_broken() -> None:
    verdict = explore(Ownership())
    assert verdict.kind == OK, str(verdict)


@pytest.mark.parametrize("faults", PAIRS, ids=" and ".join)
def test_the_proposal_keeps_every_law_under(faults: tuple[str, str]) -> None:
    verdict = explore(Ownership(faults=faults))
    assert verdict.kind == OK, str(verdict)


@pytest.mark.parametrize("variant", GOOD, ids=str)
def test_another_rule_makes_up_for_it(variant: Variant) -> None:
    verdict = explore(Ownership(variant.rules, variant.faults))
    assert verdict.kind == variant.verdict, str(verdict)


@pytest.mark.parametrize("variant", BAD, ids=str)
def test_dropping_a_rule_breaks_a_law(variant: Variant) -> None:
    verdict = explore(Ownership(variant.rules, variant.faults))
    assert verdict.kind == variant.verdict, str(verdict)


def test_a_counterexample_names_the_process_the_statement_and_the_fence() -> None:
    late_row = next(variant for variant in BAD if variant.name == "D0")
    story = str(explore(Ownership(late_row.rules, late_row.faults)))
    assert story.startswith("LATE ROW")
    assert "A: finds no signal, sends PARK under fence 1" in story
    assert "connection cut, its PARK goes on at the server" in story
    assert "A's TAKE (fence 1) -> ok" in story
