"""Circuit breaker: after too many failures or slow calls nothing is sent for a while, then a few probes decide.

The decisions are `admit` and `record`, pure functions of the settings, a state and `now`. The last calls are counted in a ring of time
buckets, so that the cost and the memory of a call do not grow with their number. A call belongs to the *era* in which it was admitted:
one that ends after the circuit has changed says nothing about the new era.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from agentkit import telemetry
from agentkit.errors import CircuitOpen
from agentkit.resilience.settings import above_zero, at_least, share

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentkit.clock import Clock
    from agentkit.resilience.layer import Outcome, Verdict

BUCKETS = 10  # of a window: it forgets a tenth at a time
ADMITTED = 0.0


@dataclass(frozen=True)
class CircuitBreaker:
    """When to stop calling a backend. Its state belongs to the name of the policy it is part of.

    A cancelled call says nothing about the backend, nor does an error whose `counts_as_failure` is False (the caller's own mistake, a full
    limit). A call that took `slow_s` was slow however it ended.

    Args:
        failure_rate: the share of failed calls in the window that opens the circuit.
        slow_rate: the same for slow calls.
        slow_s: how long a call takes to be slow, seconds; of a stream, until it is open.
        window_s: how far back calls are looked at, seconds.
        min_calls: in the window, before anything is concluded.
        probes: calls let through after `open_s`. Their rates decide whether the circuit closes or opens again.
        open_s: how long nothing is sent, seconds.
        shared: processes tell each other through the values store that a circuit has opened, and one of them probes for all.
    """

    _: KW_ONLY
    failure_rate: float = 0.5  # a backend that fails every other call costs more than it answers
    slow_rate: float = 1.0  # slow is not broken: only when nothing else comes any more
    slow_s: float = 30.0  # longer than a person waits for an answer
    window_s: float = 30.0  # long enough for min_calls at one call a second, short enough to notice an outage while it lasts
    min_calls: int = 20  # one failure in two calls says nothing
    probes: int = 3  # one lucky answer does not close it
    open_s: float = 10.0  # a restart of a server takes about as long
    shared: bool = False  # each process sees for itself within min_calls; and its network may be the one that is broken

    def __post_init__(self) -> None:
        share("CircuitBreaker.failure_rate", self.failure_rate)
        share("CircuitBreaker.slow_rate", self.slow_rate)
        for name in ("slow_s", "window_s", "open_s"):
            above_zero(f"CircuitBreaker.{name}", getattr(self, name))
        at_least("CircuitBreaker.min_calls", self.min_calls, 1)
        at_least("CircuitBreaker.probes", self.probes, 1)

    @cached_property
    def buckets_per_s(self) -> float:
        """How many buckets of the window a second has."""
        return BUCKETS / self.window_s


class Bucket(NamedTuple):
    """Calls of one part of the window."""

    slot: int = 0
    calls: int = 0
    failed: int = 0
    slow: int = 0


class Closed(NamedTuple):
    """Calls go through. The newest bucket is spelled out, for it is all that changes at most calls; `past` sums up the `older` ones."""

    era: int = 0
    slot: int = 0
    calls: int = 0
    failed: int = 0
    slow: int = 0
    past: Bucket = Bucket()
    older: tuple[Bucket, ...] = ()


class Open(NamedTuple):
    """Nothing is sent before `until`."""

    era: int
    until: float


class HalfOpen(NamedTuple):
    """Probes are out. Those without an answer at `until` count as failed."""

    era: int
    until: float
    out: int = 0
    answered: int = 0
    failed: int = 0
    slow: int = 0


State = Closed | Open | HalfOpen


def admit(b: CircuitBreaker, state: State, now: float) -> tuple[State, float]:
    """Ask to send a call: the new state, and 0 when it may be sent, else after how many seconds to ask again."""
    if isinstance(state, Closed):
        return state, ADMITTED
    if isinstance(state, Open):
        if now < state.until:
            return state, state.until - now
        state = HalfOpen(state.era + 1, now + b.slow_s)
    elif now >= state.until:
        return Open(state.era + 1, now + b.open_s), b.open_s
    if state.out + state.answered >= b.probes:
        return state, min(b.open_s, state.until - now)
    return state._replace(out=state.out + 1), ADMITTED


def record(b: CircuitBreaker, state: State, era: int, verdict: Verdict, *, took_s: float, now: float) -> State:
    """The state after the end of a call that was admitted in `era`."""
    if era != state.era:
        return state
    slow = took_s >= b.slow_s
    if isinstance(state, Closed):
        return state if verdict == "neutral" and not slow else _counted(b, state, verdict == "failed", slow, now)
    if isinstance(state, HalfOpen):
        return _probed(b, state._replace(out=state.out - 1), verdict, slow, now)
    return state


def _counted(b: CircuitBreaker, state: Closed, failed: bool, slow: bool, now: float) -> State:
    slot = int(now * b.buckets_per_s)
    if slot != state.slot:
        state = _turned(state, slot)
    era, slot, calls, fails, slows, past, older = state
    calls += 1
    fails += failed
    slows += slow
    total = past.calls + calls
    if total >= b.min_calls and (past.failed + fails >= b.failure_rate * total or past.slow + slows >= b.slow_rate * total):
        return Open(era + 1, now + b.open_s)
    return Closed(era, slot, calls, fails, slows, past, older)


def _turned(state: Closed, slot: int) -> Closed:
    """A new bucket begins; those that left the window are forgotten."""
    newest = Bucket(state.slot, state.calls, state.failed, state.slow)
    older = tuple(bucket for bucket in (*state.older, newest) if slot - BUCKETS < bucket.slot and bucket.calls)
    past = Bucket(0, *(sum(bucket[part] for bucket in older) for part in (1, 2, 3)))
    return Closed(state.era, slot, 0, 0, 0, past, older)


def _probed(b: CircuitBreaker, state: HalfOpen, verdict: Verdict, slow: bool, now: float) -> State:
    if verdict == "neutral" and not slow:
        return state  # its place goes to another
    state = state._replace(answered=state.answered + 1, failed=state.failed + (verdict == "failed"), slow=state.slow + slow)
    if state.failed >= b.failure_rate * b.probes or state.slow >= b.slow_rate * b.probes:
        return Open(state.era + 1, now + b.open_s)
    return Closed(state.era + 1) if state.answered >= b.probes else state


class Circuit:
    """The circuit of one name in this process."""

    def __init__(self, name: str, settings: CircuitBreaker, clock: Clock) -> None:
        self.name, self.settings = name, settings
        self.state: State = Closed()
        self._now = clock.monotonic

    async def ready(self) -> None:
        """Raises `CircuitOpen` if a call would be refused now; takes no probe's place."""
        if type(self.state) is not Closed:
            self._check(admit(self.settings, self.state, self._now())[1])

    async def enter(self) -> Admission:
        """Admit a call, or raise `CircuitOpen`: nothing was sent."""
        return Admission(self, self.admit())

    def admit(self) -> int:
        """The era in which a call is admitted. Raises `CircuitOpen`."""
        if type(self.state) is not Closed:
            state, refused_s = admit(self.settings, self.state, self._now())
            self.change(state)
            self._check(refused_s)
        return self.state.era

    def record(self, era: int, verdict: Verdict, took_s: float) -> None:
        """Count the end of a call."""
        before = self.state
        self.state = state = record(self.settings, before, era, verdict, took_s=took_s, now=self._now())
        if state.era != before.era:
            self.on_change()

    def change(self, state: State) -> None:
        """Go over to another state."""
        before, self.state = self.state, state
        if state.era != before.era:
            self.on_change()

    def on_change(self) -> None:
        """Say so. Called after each change of era."""
        said = {Closed: "closed", Open: "open", HalfOpen: "half_open"}[type(self.state)]
        telemetry.CIRCUIT_CHANGED.say({telemetry.POLICY: self.name, telemetry.STATE: said})

    def _check(self, refused_s: float) -> None:
        if refused_s:
            telemetry.CIRCUIT_REFUSED.say({telemetry.POLICY: self.name})
            raise CircuitOpen(self.name, refused_s)


class Admission:
    """A call that the circuit let through."""

    __slots__ = ("_circuit", "_era")

    keep: Callable[[], Awaitable[str]] | None = None

    def __init__(self, circuit: Circuit, era: int) -> None:
        self._circuit, self._era = circuit, era

    async def leave(self, outcome: Outcome) -> None:
        """Count how it ended."""
        self._circuit.record(self._era, outcome.verdict, outcome.took_s)
