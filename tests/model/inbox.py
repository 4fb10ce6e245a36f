"""Taking a signal (design.md section 5, rule 5): SIGNAL entry and `taken_seq` in one write, the inbox row kept for dedup.

A client sends one signal and, not having heard the answer, sends it again with the same id. A run takes what it finds, and may be killed
between any two statements; its successor goes on from the journal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tests.model.explorer import OK, STUCK, fault

TAKEN_TWICE = "SIGNAL TAKEN TWICE"
Step = tuple[str, "State"]


@dataclass(frozen=True)
class Rules:
    """`order`: how the two halves of a take are written."""

    order: Literal["one write", "entry, then mark", "mark, then entry"] = "one write"
    row_is_kept: bool = True  # until the run is purged


class State(NamedTuple):
    """One signal id, one run."""

    row: str = "absent"  # absent, new, taken
    entries: int = 0  # SIGNAL entries in the journal
    sends_left: int = 2
    half: bool = False  # the live owner has done the first half of a take
    kills: int = 1


def client_sends(_: Rules, s: State) -> Iterator[Step]:
    """A known id is a duplicate and changes nothing."""
    if s.sends_left:
        label = "client: signal accepted" if s.row == "absent" else "client: signal is a duplicate"
        yield label, s._replace(row="new" if s.row == "absent" else s.row, sends_left=s.sends_left - 1)


def owner_takes(rules: Rules, s: State) -> Iterator[Step]:
    """What a row that is not marked taken asks for."""
    marked = "taken" if rules.row_is_kept else "absent"
    if s.half and rules.order == "entry, then mark":
        yield "owner: marks the row taken", s._replace(row=marked, half=False)
    elif s.half:
        yield "owner: writes the SIGNAL entry", s._replace(entries=s.entries + 1, half=False)
    elif s.row == "new" and rules.order == "one write":
        yield "owner: SIGNAL entry and mark in one write", s._replace(row=marked, entries=s.entries + 1)
    elif s.row == "new" and rules.order == "entry, then mark":
        yield "owner: writes the SIGNAL entry", s._replace(entries=s.entries + 1, half=True)
    elif s.row == "new":
        yield "owner: marks the row taken", s._replace(row=marked, half=True)


def owner_is_killed(_: Rules, s: State) -> Iterator[Step]:
    """Its successor reads journal and inbox."""
    if s.kills:
        yield fault("owner: killed, another goes on"), s._replace(half=False, kills=s.kills - 1)


TRANSITIONS = (client_sends, owner_takes, owner_is_killed)


@dataclass(frozen=True)
class Inbox:
    """The model for `explore`."""

    rules: Rules

    def initial(self) -> State:
        """Nothing sent."""
        return State()

    def key(self, state: State) -> State:
        """No symmetry."""
        return state

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        for transition in TRANSITIONS:
            yield from transition(self.rules, state)

    def bad(self, state: State) -> str | None:
        """The signal is in the journal twice."""
        return TAKEN_TWICE if state.entries > 1 else None

    def done(self, state: State) -> bool:
        """The signal was taken."""
        return state.entries == 1 and not state.half


VARIANTS = {
    "S1 entry first, mark later": (Rules(order="entry, then mark"), TAKEN_TWICE),
    "S2 mark first, entry later: the signal is lost": (Rules(order="mark, then entry"), STUCK),
    "S3 the row is deleted when taken": (Rules(row_is_kept=False), TAKEN_TWICE),
    "S4 one write, the row is kept": (Rules(), OK),
}
