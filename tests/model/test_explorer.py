"""The explorer itself: a checker that finds nothing would pass every other test of this folder."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.model.explorer import OK, STUCK, TooManyStates, explore, fault

Edges = dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Drawn:
    """A model drawn by hand: `start` is the first state, `end` the goal, `broken` the bad one."""

    edges: Edges

    def initial(self) -> str:
        return "start"

    def key(self, state: str) -> str:
        return state

    def steps(self, state: str) -> Iterator[tuple[str, str]]:
        yield from self.edges.get(state, [])

    def bad(self, state: str) -> str | None:
        return "BROKEN" if state == "broken" else None

    def done(self, state: str) -> bool:
        return state == "end"


@dataclass(frozen=True)
class Counter:
    """Counts for ever; the key folds the count, so that its states are as few as the modulus."""

    modulus: int

    def initial(self) -> int:
        return 0

    def key(self, state: int) -> int:
        return state % self.modulus

    def steps(self, state: int) -> Iterator[tuple[str, int]]:
        yield "count", state + 1

    def bad(self, state: int) -> str | None:
        return None

    def done(self, state: int) -> bool:
        return state % self.modulus == self.modulus - 1


def test_a_model_that_always_reaches_its_end_is_ok() -> None:
    verdict = explore(Drawn({"start": [("go", "middle")], "middle": [("back", "start"), ("go", "end")]}))
    assert (verdict.kind, verdict.states, verdict.trace) == (OK, 3, ())


def test_a_bad_state_is_found_by_the_shortest_way() -> None:
    verdict = explore(Drawn({"start": [("long", "way"), ("short", "broken")], "way": [("on", "broken")]}))
    assert (verdict.kind, verdict.trace, verdict.last) == ("BROKEN", ("short",), "broken")


def test_a_state_without_a_way_to_the_end_is_stuck() -> None:
    verdict = explore(Drawn({"start": [("go", "end"), ("stray", "loop")], "loop": [("round", "loop")]}))
    assert (verdict.kind, verdict.trace) == (STUCK, ("stray",))


def test_a_way_out_that_needs_a_fault_does_not_count() -> None:
    assert explore(Drawn({"start": [(fault("crash"), "end")]})).kind == STUCK


def test_what_a_fault_leads_to_is_explored() -> None:
    verdict = explore(Drawn({"start": [("go", "end"), (fault("crash"), "broken")]}))
    assert (verdict.kind, verdict.trace) == ("BROKEN", (fault("crash"),))


def test_the_verdict_reads_as_a_numbered_story() -> None:
    story = str(explore(Drawn({"start": [("leave", "way")], "way": [(fault("fall"), "broken")]})))
    assert story.splitlines() == ["BROKEN after 3 states", "   1. leave", "   2. !! fall", "  => broken"]


def test_states_with_one_key_are_one_state() -> None:
    assert explore(Counter(modulus=7)).states == 7


def test_a_model_that_outgrows_its_limit_gets_no_verdict() -> None:
    with pytest.raises(TooManyStates, match="more than 5 states"):
        explore(Counter(modulus=7), max_states=5)
