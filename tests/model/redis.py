"""Claim and take-over on Redis (design.md section 5, *Redis*), where a run and a worker live in two slots and no script sees both.

Worker A claims one run in three round trips: read the run's fence, enter the run in its own index `{w:A}:runs`, change the run's token
from the fence it read. Another worker marks A dead at any moment (A may be killed or merely slow), reads the index, bumps the fence of
each run in it and forgets A. Worker B claims what is READY and ends it. A run that nobody will ever look at again is STUCK.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import OK, STUCK, fault

Step = tuple[str, "State"]


@dataclass(frozen=True)
class Rules:
    """The four starred rules; all together are the proposal."""

    index_before_claim: bool = True  # SADD {w:A}:runs comes before the claim
    index_only_if_alive: bool = True  # the SADD checks that A is not marked dead
    claim_compares_fence: bool = True  # the claim is a CAS on the fence read before
    bump_unclaimed: bool = True  # take-over bumps the fence of an indexed run even if it is unclaimed


class State(NamedTuple):
    """Both slots, how far A's claim is, how far the take-over of A is."""

    status: str = "READY"
    owner: str = ""
    fence: int = 0
    indexed: bool = False  # the run is in {w:A}:runs
    marked_dead: bool = False
    takeover: str = "none"  # none, marked, saw run, saw nothing, forgotten
    a: str = "idle"  # idle, read, indexed, claimed unindexed, working, gone, killed
    a_read: int = 0


def a_reads_the_fence(_: Rules, s: State) -> Iterator[Step]:
    """First round trip."""
    if s.a == "idle" and s.status == "READY":
        yield f"A: reads fence {s.fence}", s._replace(a="read", a_read=s.fence)


def a_enters_its_index(rules: Rules, s: State) -> Iterator[Step]:
    """`SADD {w:A}:runs`, refused once A is marked dead."""
    ready = s.a == ("read" if rules.index_before_claim else "claimed unindexed")
    if not ready:
        return
    if rules.index_only_if_alive and s.marked_dead:
        yield "A: SADD is refused, A is dead", s._replace(a="gone")
    else:
        yield "A: SADD into its index", s._replace(indexed=True, a="indexed" if rules.index_before_claim else "working")


def a_claims(rules: Rules, s: State) -> Iterator[Step]:
    """Compare-and-set of the token in the run's slot."""
    if s.a != ("indexed" if rules.index_before_claim else "read"):
        return
    if s.status == "READY" and (not rules.claim_compares_fence or s.fence == s.a_read):
        after = "working" if rules.index_before_claim else "claimed unindexed"
        yield "A: claims", s._replace(status="RUNNING", owner="A", fence=s.fence + 1, a=after)
    else:
        yield "A: the claim is refused", s._replace(a="gone")


def a_ends_the_run(_: Rules, s: State) -> Iterator[Step]:
    """A write compares the token; a fenced A learns it here."""
    if s.a == "working":
        mine = s.owner == "A" and not s.marked_dead
        yield ("A: ends the run", s._replace(status="COMPLETED", a="gone")) if mine else ("A: is fenced", s._replace(a="gone"))


def a_dies(_: Rules, s: State) -> Iterator[Step]:
    """A kill -9; what A had sent is either executed before or never."""
    if s.a not in {"gone", "killed"}:
        yield fault("A: killed"), s._replace(a="killed")


def a_is_taken_over(rules: Rules, s: State) -> Iterator[Step]:
    """Mark dead, read the index, bump each run in its own slot, forget: four round trips. A may be alive (a pause)."""
    if s.takeover == "none":
        label = "take-over: marks A dead"
        yield (label if s.a in {"gone", "killed"} else fault(label + " although it lives")), s._replace(marked_dead=True, takeover="marked")
    elif s.takeover == "marked":
        yield f"take-over: the index is {'[run]' if s.indexed else '[]'}", s._replace(takeover="saw run" if s.indexed else "saw nothing")
    elif s.takeover == "saw run" and s.status == "RUNNING" and s.owner == "A":
        yield "take-over: releases the run", s._replace(status="READY", owner="", fence=s.fence + 1, takeover="forgotten")
    elif s.takeover == "saw run":
        bump = rules.bump_unclaimed and s.status == "READY"
        yield (
            "take-over: the run is not A's" + (", bumps its fence" if bump else ""),
            s._replace(fence=s.fence + bump, takeover="forgotten"),
        )
    elif s.takeover == "saw nothing":
        yield "take-over: forgets A", s._replace(takeover="forgotten")


def b_works_it_off(_: Rules, s: State) -> Iterator[Step]:
    """B, after all is said about A, claims what is READY and ends it."""
    if s.status == "READY" and s.a in {"gone", "killed"}:
        yield "B: claims and ends the run", s._replace(status="COMPLETED", owner="B", fence=s.fence + 1)


TRANSITIONS = (a_reads_the_fence, a_enters_its_index, a_claims, a_ends_the_run, a_dies, a_is_taken_over, b_works_it_off)


@dataclass(frozen=True)
class RedisClaim:
    """The model for `explore`."""

    rules: Rules

    def initial(self) -> State:
        """One READY run, A alive."""
        return State()

    def key(self, state: State) -> State:
        """No symmetry."""
        return state

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        for transition in TRANSITIONS:
            yield from transition(self.rules, state)

    def bad(self, state: State) -> str | None:
        """Nothing is bad but being stuck."""
        return None

    def done(self, state: State) -> bool:
        """The run has ended."""
        return state.status == "COMPLETED"


VARIANTS = {
    "R1 claim, then SADD: killed between the two": (Rules(index_before_claim=False), STUCK),
    "R2 SADD without alive check: added after the scan": (Rules(index_only_if_alive=False), STUCK),
    "R3 claim without CAS on the fence read before": (Rules(claim_compares_fence=False), STUCK),
    "R4 take-over skips unclaimed runs": (Rules(bump_unclaimed=False), STUCK),
    "R5 all four rules": (Rules(), OK),
}
