"""Parents and children (design.md section 5, *Children*): slots that wait (M1) and wakes that get lost (C1, C2).

Two parents on a worker with two slots start one child each and wait for it. A child's end and its parent's inbox may lie in two slots of
the store, so telling the parent is a second write, and the child's process may be killed before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import OK, STUCK, fault

TOLD_TWICE = "CHILD RESULT TAKEN TWICE"
SLOTS = 2
Step = tuple[str, "State"]


@dataclass(frozen=True)
class Rules:
    """The proposal; each switch drops one part."""

    waiting_parent_parks: bool = True  # it never holds a slot
    notify: bool = True  # a child's end sets notify=1 in the same write
    sweep: bool = True  # and the sweep tells parents of ended children with notify=1
    tell_before_clearing: bool = True  # notify is cleared after the parent was told
    told_once_by_id: bool = True  # the parent's inbox knows a child's id
    kills: int = 1


class Family(NamedTuple):
    """One parent and its child."""

    parent: str = "ready"  # ready, waiting in slot, parked, woken, ended
    child: str = "none"  # none, ready, running, ended untold, ended telling, ended
    notify: bool = False
    told: int = 0


class State(NamedTuple):
    """Two families share the slots of one worker."""

    families: tuple[Family, Family] = (Family(), Family())
    kills: int = 0

    def free_slot(self) -> bool:
        """Whether a run may be started."""
        held = sum((f.parent == "waiting in slot") + (f.child in {"running", "ended untold"}) for f in self.families)
        return held < SLOTS

    def put(self, at: int, **changes: object) -> "State":
        """The state with family `at` changed."""
        changed = self.families[at]._replace(**changes)  # type: ignore[arg-type]
        return self._replace(families=(changed, self.families[1]) if at == 0 else (self.families[0], changed))


def parent_starts_its_child_and_waits(rules: Rules, s: State, at: int, f: Family) -> Iterator[Step]:
    """CHILD entry, row, ticket; then park, or hold the slot."""
    if f.parent == "ready" and s.free_slot():
        waiting = "parked" if rules.waiting_parent_parks else "waiting in slot"
        yield f"parent {at}: starts its child, is {waiting}", s.put(at, parent=waiting, child="ready")


def child_runs(_: Rules, s: State, at: int, f: Family) -> Iterator[Step]:
    """It needs a slot of its own."""
    if f.child == "ready" and s.free_slot():
        yield f"child {at}: takes a slot", s.put(at, child="running")


def child_ends(rules: Rules, s: State, at: int, f: Family) -> Iterator[Step]:
    """End and notify=1 in one write."""
    if f.child == "running":
        yield f"child {at}: its end is durable", s.put(at, child="ended untold", notify=rules.notify)


def parent_is_told(rules: Rules, s: State, at: int, f: Family) -> Iterator[Step]:
    """By the child's process: the second write, in the parent's slot; then notify is cleared."""
    if f.child == "ended untold" and rules.tell_before_clearing:
        yield f"child {at}: tells its parent", _tell(rules, s, at, f, child="ended telling")
    elif f.child == "ended untold":
        yield f"child {at}: clears notify", s.put(at, notify=False, child="ended telling")
    elif f.child == "ended telling" and rules.tell_before_clearing:
        yield f"child {at}: clears notify", s.put(at, notify=False, child="ended")
    elif f.child == "ended telling":
        yield f"child {at}: tells its parent", _tell(rules, s, at, f, child="ended")


def sweep_tells_the_parent(rules: Rules, s: State, at: int, f: Family) -> Iterator[Step]:
    """Rule 10: ended children with notify=1."""
    if rules.sweep and f.notify:
        yield f"sweep: tells parent {at}, clears notify", _tell(rules, s, at, f, notify=False)


def parent_ends(_: Rules, s: State, at: int, f: Family) -> Iterator[Step]:
    """A woken parent needs a slot again, for a moment."""
    if (f.parent == "waiting in slot" and f.told) or (f.parent == "woken" and s.free_slot()):
        yield f"parent {at}: takes the result and ends", s.put(at, parent="ended")


def childs_process_is_killed(_: Rules, s: State, at: int, f: Family) -> Iterator[Step]:
    """Between its two writes; a running child is simply taken over."""
    if s.kills and f.child in {"running", "ended untold", "ended telling"}:
        after = "ready" if f.child == "running" else "ended"
        yield fault(f"child {at}: its process is killed while {f.child}"), s.put(at, child=after)._replace(kills=s.kills - 1)


def _tell(rules: Rules, s: State, at: int, f: Family, **changes: object) -> State:
    told = 1 if rules.told_once_by_id else f.told + 1
    return s.put(at, told=told, parent="woken" if f.parent == "parked" else f.parent, **changes)


TRANSITIONS = (
    parent_starts_its_child_and_waits,
    child_runs,
    child_ends,
    parent_is_told,
    sweep_tells_the_parent,
    parent_ends,
    childs_process_is_killed,
)


@dataclass(frozen=True)
class Children:
    """The model for `explore`."""

    rules: Rules

    def initial(self) -> State:
        """Both parents are ready."""
        return State(kills=self.rules.kills)

    def key(self, state: State) -> State:
        """The two families have no names."""
        return state._replace(families=tuple(sorted(state.families)))  # type: ignore[arg-type]

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        for at, family in enumerate(state.families):
            for transition in TRANSITIONS:
                yield from transition(self.rules, state, at, family)

    def bad(self, state: State) -> str | None:
        """A result was taken twice."""
        return TOLD_TWICE if any(f.told > 1 for f in state.families) else None

    def done(self, state: State) -> bool:
        """Both parents have ended."""
        return all(f.parent == "ended" for f in state.families)


VARIANTS = {
    "M1 a waiting parent holds its slot": (Rules(waiting_parent_parks=False, kills=0), STUCK),
    "C1 no notify flag": (Rules(notify=False), STUCK),
    "C1b notify, but no sweep": (Rules(sweep=False), STUCK),
    "C1c notify cleared before the parent is told": (Rules(tell_before_clearing=False), STUCK),
    "C1d the inbox does not know the child's id": (Rules(told_once_by_id=False), TOLD_TWICE),
    "C2 park, notify, sweep": (Rules(kills=2), OK),
}
