"""Run-ahead needs prefix durability (design.md section 5, "Group commit"): the model L1.

A run makes step `a`, whose body may give another value each time, and hands its value to step `b`, which may start before `a` is durable.
Each result is a batch. With two connections that alternate, `b` can be durable and `a` lost. The run is then replayed: `a` runs again,
and `b` is found in the journal with an argument that this execution never gave it: a JournalMismatch on honest code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import OK, fault

MISMATCH = "JOURNAL MISMATCH"
NOTHING = -1
Step = tuple[str, "State"]


@dataclass(frozen=True)
class Rules:
    """One ordered lane per run, or a store that refuses a gap: either keeps the prefix. The proposal has both."""

    one_lane: bool = True
    store_refuses_gap: bool = True
    kills: int = 2


class State(NamedTuple):
    """Values of `a` are 0 or 1; `b` is remembered by the value of `a` it was given (its fingerprint)."""

    a_journal: int = NOTHING
    b_journal: int = NOTHING
    a_sent: int = NOTHING
    b_sent: int = NOTHING
    a_memory: int = NOTHING  # what the live execution believes
    b_started: bool = False
    kills: int = 0
    mismatch: bool = False


def a_runs_or_is_replayed(_: Rules, s: State) -> Iterator[Step]:
    """A recorded step answers from the journal, else its body runs and may give any value."""
    if s.a_memory == NOTHING and s.a_journal != NOTHING:
        yield f"run: a answers {s.a_journal} from the journal", s._replace(a_memory=s.a_journal)
    elif s.a_memory == NOTHING:
        for value in (0, 1):
            yield f"run: a runs and gives {value}, its result is sent", s._replace(a_memory=value, a_sent=value)


def b_runs_or_is_replayed(_: Rules, s: State) -> Iterator[Step]:
    """Run-ahead: b starts with a's value, durable or not. If recorded, its fingerprint must match."""
    if s.b_started or s.a_memory == NOTHING:
        return
    if s.b_journal != NOTHING:
        yield f"run: b({s.a_memory}) finds b({s.b_journal}) in the journal", s._replace(b_started=True, mismatch=s.a_memory != s.b_journal)
    else:
        yield f"run: b({s.a_memory}) runs, its result is sent", s._replace(b_started=True, b_sent=s.a_memory)


def store_writes_a(_: Rules, s: State) -> Iterator[Step]:
    """First entry."""
    if s.a_sent != NOTHING:
        yield "store: a is durable", s._replace(a_journal=s.a_sent, a_sent=NOTHING)


def store_writes_b(rules: Rules, s: State) -> Iterator[Step]:
    """Second entry: behind the first on one lane; a gap is refused and sent again."""
    in_order = not rules.one_lane or s.a_sent == NOTHING
    no_gap = not rules.store_refuses_gap or s.a_journal != NOTHING
    if s.b_sent != NOTHING and in_order and no_gap:
        yield "store: b is durable", s._replace(b_journal=s.b_sent, b_sent=NOTHING)


def process_is_killed(_: Rules, s: State) -> Iterator[Step]:
    """What was sent and not executed is lost; the run is replayed."""
    if s.kills:
        replay = s._replace(a_sent=NOTHING, b_sent=NOTHING, a_memory=NOTHING, b_started=False, kills=s.kills - 1)
        yield fault("run: its process is killed; another replays"), replay


TRANSITIONS = (a_runs_or_is_replayed, b_runs_or_is_replayed, store_writes_a, store_writes_b, process_is_killed)


@dataclass(frozen=True)
class RunAhead:
    """The model for `explore`."""

    rules: Rules

    def initial(self) -> State:
        """An empty journal."""
        return State(kills=self.rules.kills)

    def key(self, state: State) -> State:
        """No symmetry."""
        return state

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        for transition in TRANSITIONS:
            yield from transition(self.rules, state)

    def bad(self, state: State) -> str | None:
        """Honest code was called a liar."""
        return MISMATCH if state.mismatch else None

    def done(self, state: State) -> bool:
        """Both results are durable."""
        return NOTHING not in {state.a_journal, state.b_journal}


VARIANTS = {
    "L1 two alternating connections": (Rules(one_lane=False, store_refuses_gap=False), MISMATCH),
    "L2 two connections, but the store refuses a gap": (Rules(one_lane=False), OK),
    "L3 one lane per run": (Rules(store_refuses_gap=False), OK),
    "L4 one lane, and the store refuses a gap": (Rules(), OK),
}
