"""Explore every reachable state of a small model, breadth first, and say what is wrong with it in the shortest words.

A model is a set of hashable states and the steps between them. Two questions are asked of it:

* *safety*: is a state reachable that the model itself calls bad?
* *liveness*: can every reachable state still reach a done state by steps that are not faults? If not, it is `STUCK`.

A fault (a crash, a cut connection) is a step like any other, marked by `fault()`: the world may take it, but nobody may count on it.
"""

import gc
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

OK = "OK"
STUCK = "STUCK"
_FAULT_MARK = "!! "

S = TypeVar("S", bound=Hashable)


def fault(label: str) -> str:
    """Mark a step as a fault: explored for safety, never relied on for liveness."""
    return _FAULT_MARK + label


class Model(Protocol[S]):
    """What `explore` needs of a model."""

    def initial(self) -> S:
        """The one state everything starts from."""
        ...

    def key(self, state: S) -> Hashable:
        """What makes `state` different from others: itself, or less where names do not matter (symmetry)."""
        ...

    def steps(self, state: S) -> Iterable[tuple[str, S]]:
        """Every step possible in `state`, as (label for people, next state)."""
        ...

    def bad(self, state: S) -> str | None:
        """The name of the law that `state` breaks, or None."""
        ...

    def done(self, state: S) -> bool:
        """Whether `state` is a goal that must stay reachable."""
        ...


@dataclass(frozen=True)
class Verdict(Generic[S]):
    """`kind` is OK, STUCK or what `bad` said; `trace` is the shortest way there and `last` the state it ends in."""

    kind: str
    states: int
    trace: tuple[str, ...] = ()
    last: S | None = None

    def __str__(self) -> str:
        """The verdict as an assertion message: the counterexample step by step."""
        lines = [f"{self.kind} after {self.states} states"]
        lines += [f"  {number:2}. {label}" for number, label in enumerate(self.trace, 1)]
        return "\n".join([*lines, f"  => {self.last}"] if self.last is not None else lines)


class TooManyStates(AssertionError):
    """The model outgrew its limit, so nothing is known of it: make it smaller or raise the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} states; a verdict needs all of them: shrink the model or raise max_states")


class _Graph(Generic[S]):
    """The states found so far: how each was reached first, and by which fault-free steps it is entered."""

    def __init__(self, start: S, key: Callable[[S], Hashable]) -> None:
        self.key = key
        self.number: dict[Hashable, int] = {key(start): 0}
        self.states: list[S] = [start]
        self.came_from: list[tuple[int, str]] = [(0, "")]
        self.entered_from: list[list[int]] = [[]]

    def add(self, source: int, label: str, state: S) -> int | None:
        """Record a step; the number of `state` if it is new, else None."""
        key = self.key(state)
        found = self.number.get(key)
        number = len(self.states) if found is None else found
        if found is None:
            self.number[key] = number
            self.states.append(state)
            self.came_from.append((source, label))
            self.entered_from.append([])
        if not label.startswith(_FAULT_MARK):
            self.entered_from[number].append(source)
        return number if found is None else None

    def verdict(self, kind: str, number: int) -> Verdict[S]:
        """The verdict `kind`, with the shortest trace to the state of that number."""
        trace: list[str] = []
        here = number
        while here:
            here, label = self.came_from[here]
            trace.append(label)
        return Verdict(kind, len(self.states), tuple(reversed(trace)), self.states[number])

    def first_stuck(self, goals: list[int]) -> int | None:
        """The first state found from which no goal can be reached without faults."""
        hopeful = [False] * len(self.states)
        for goal in goals:
            hopeful[goal] = True
        queue = deque(goals)
        while queue:
            for source in self.entered_from[queue.popleft()]:
                if not hopeful[source]:
                    hopeful[source] = True
                    queue.append(source)
        return next((number for number, hope in enumerate(hopeful) if not hope), None)


@contextmanager
def _without_garbage_collection() -> Generator[None, None, None]:
    """States are tuples without cycles: looking for garbage among them would take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def explore(model: Model[S], max_states: int = 300_000) -> Verdict[S]:
    """Visit every reachable state and give the verdict; a broken law wins over STUCK, the shortest trace over a longer one.

    Raises:
        TooManyStates: the model has more than `max_states` reachable states.
    """
    with _without_garbage_collection():
        return _explore(model, max_states)


def _explore(model: Model[S], max_states: int) -> Verdict[S]:
    graph = _Graph(model.initial(), model.key)
    goals: list[int] = []
    queue = deque([0])
    while queue:
        number = queue.popleft()
        state = graph.states[number]
        if (broken := model.bad(state)) is not None:
            return graph.verdict(broken, number)
        if model.done(state):
            goals.append(number)
        for label, following in model.steps(state):
            if (new := graph.add(number, label, following)) is not None:
                queue.append(new)
        if len(graph.states) > max_states:
            raise TooManyStates(max_states)
    stuck = graph.first_stuck(goals)
    return Verdict(OK, len(graph.states)) if stuck is None else graph.verdict(STUCK, stuck)
