"""An effect in flight at a take-over (design.md section 5, "Run-ahead and effects"), with a clock.

A sends INTENT at time 0; it is executed, and stamped by the store, up to one tick later. A then calls the target under `probe`. A is cut
off from the store, not from the target. B takes over, asks the target whether the effect is there, and if not runs it itself. A call under
way lands, or is cancelled by A `TIMEOUT` ticks after A *sent* INTENT; B acts at the earliest when the store's deadline has passed. A call
that was cancelled is taken never to land: a target that works on after its caller hung up is the case E3 by another name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import OK, fault

TWICE = "EFFECT TWICE"
SENT_AT, TIMEOUT, LAST_TICK = 0, 2, 5
Step = tuple[str, "State"]


@dataclass(frozen=True)
class Rules:
    """What the proposal does, and what may be dropped."""

    wait_for_deadline: bool = True  # the policy acts not before INTENT's deadline
    owner_cancels: bool = True  # A cancels its body at its own timeout
    owner_may_freeze: bool = False  # SIGSTOP between its last check and the call
    target_honours_key: bool = False  # the target drops a repeated idempotency key


class State(NamedTuple):
    """`stamped`: store time of INTENT, -1 = not yet."""

    now: int = 0
    stamped: int = -1
    a: str = "intent sent"  # intent sent, calling, frozen, cut off, over
    b: str = "waiting"  # waiting, running, over
    landed: int = 0
    result: bool = False


def time_passes(rules: Rules, s: State) -> Iterator[Step]:
    """One tick; A's timer fires before it is overdue, unless A is frozen. INTENT takes at most one tick to the store."""
    overdue = rules.owner_cancels and s.a in {"calling", "cut off"} and s.now >= SENT_AT + TIMEOUT
    if s.now < LAST_TICK and not overdue and not (s.now == 1 and s.stamped < 0):
        yield f"clock: {s.now + 1}", s._replace(now=s.now + 1)


def intent_is_durable(_: Rules, s: State) -> Iterator[Step]:
    """The store executes INTENT and stamps it."""
    if s.a == "intent sent":
        yield f"store: INTENT durable at {s.now}", s._replace(stamped=s.now, a="calling")


def owner_is_cut_off(rules: Rules, s: State) -> Iterator[Step]:
    """The call goes on; its RESULT will be refused. A frozen owner's timer stands still as well."""
    if s.a == "calling":
        yield fault("A: cut off from the store, its call is under way"), s._replace(a="cut off")
        if rules.owner_may_freeze:
            yield fault("A: frozen just before its call"), s._replace(a="frozen")


def owners_call_lands(rules: Rules, s: State) -> Iterator[Step]:
    """The target does what A asked for."""
    if s.a in {"calling", "cut off"}:
        label = "A: its call lands" + (", RESULT durable" if s.a == "calling" else "")
        yield label, _land(rules, s)._replace(result=s.result or s.a == "calling", a="over")
    elif s.a == "frozen":
        yield fault("A: thawed, its call lands"), _land(rules, s)._replace(a="over")


def owner_cancels_its_call(rules: Rules, s: State) -> Iterator[Step]:
    """`timeout_s` after INTENT was sent the body is cancelled."""
    if rules.owner_cancels and s.a in {"calling", "cut off"} and s.now >= SENT_AT + TIMEOUT:
        yield (
            "A: cancels its call" + (", RESULT durable" if s.a == "calling" else ""),
            s._replace(a="over", result=s.result or s.a == "calling"),
        )


def successor_probes(rules: Rules, s: State) -> Iterator[Step]:
    """B finds INTENT without RESULT and asks the target."""
    overdue = s.now > s.stamped + TIMEOUT or not rules.wait_for_deadline
    if s.b == "waiting" and s.stamped >= 0 and s.a != "calling" and not s.result and overdue:
        if s.landed:
            yield "B: the probe says yes, RESULT durable", s._replace(b="over", result=True)
        else:
            yield "B: the probe says no", s._replace(b="running")


def successor_runs_it(rules: Rules, s: State) -> Iterator[Step]:
    """B runs the effect under the same key."""
    if s.b == "running":
        yield "B: its call lands, RESULT durable", _land(rules, s)._replace(b="over", result=True)


def _land(rules: Rules, s: State) -> State:
    return s._replace(landed=1 if rules.target_honours_key else s.landed + 1)


TRANSITIONS = (
    time_passes,
    intent_is_durable,
    owner_is_cut_off,
    owners_call_lands,
    owner_cancels_its_call,
    successor_probes,
    successor_runs_it,
)


@dataclass(frozen=True)
class EffectAtTakeOver:
    """The model for `explore`."""

    rules: Rules

    def initial(self) -> State:
        """INTENT has just been sent."""
        return State()

    def key(self, state: State) -> State:
        """No symmetry."""
        return state

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        for transition in TRANSITIONS:
            yield from transition(self.rules, state)

    def bad(self, state: State) -> str | None:
        """The target did it twice."""
        return TWICE if state.landed > 1 else None

    def done(self, state: State) -> bool:
        """A RESULT is durable."""
        return state.result


VARIANTS = {
    "E1 the policy acts at once": (Rules(wait_for_deadline=False), TWICE),
    "E1b the owner does not cancel its body": (Rules(owner_cancels=False), TWICE),
    "E2 the policy acts after INTENT's deadline": (Rules(), OK),
    "E3 the owner freezes and thaws: no protocol of ours closes it": (Rules(owner_may_freeze=True), TWICE),
    "E3k the owner freezes and thaws, the target honours the key": (Rules(owner_may_freeze=True, target_honours_key=True), OK),
}
