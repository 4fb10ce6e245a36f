"""Whose turn it is: decided in pure functions from what waits and what was served before."""

from __future__ import annotations

from heapq import merge
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WEIGHTS = (1, 3, 8)  # of the priorities low, normal, high: a low ticket waits for at most 11 others, so it ages without being counted
TRIES_BITS = 24


class QueueState(NamedTuple):
    """The one row that all operations of a queue share."""

    last_n: int
    """The number of the newest ticket."""
    waiting: int
    """How many are undelivered."""
    credits: tuple[int, ...]
    """Of each priority, what it is owed."""
    turns: tuple[float, ...]
    """Of each priority, the turn of the ticket that was last leased: a tenant that comes now begins after it."""


def to_state(row: Sequence[Any]) -> QueueState:
    """A row of `queue_state` without its key."""
    return QueueState(row[0], row[1], tuple(row[2:5]), tuple(row[5:8]))


def attempt_of(n: int, tries: int) -> int:
    """The fence of a delivery: it names the ticket's row, grows with each delivery, and is never used again."""
    return n << TRIES_BITS | tries


def row_of(attempt: int) -> int:
    """The number of the row that `attempt_of` was given."""
    return attempt >> TRIES_BITS


def choose(by_priority: Sequence[Iterable[Sequence[Any]]], n: int, state: QueueState) -> tuple[list[Sequence[Any]], QueueState]:
    """Up to `n` candidates in the order of their turns, and the state after it.

    Args:
        by_priority: low, normal, high; each the candidates in the order of (turn, n), which are their last two columns.
        n: how many at most.
        state: as it was stored.
    """
    lines = [list(line) for line in by_priority]
    if sum(map(bool, lines)) == 1:
        return _of_one_priority(lines, n, state)
    places = [0, 0, 0]
    credit, turns = list(state.credits), list(state.turns)
    chosen: list[Sequence[Any]] = []
    while len(chosen) < n:
        present = [priority for priority in range(3) if places[priority] < len(lines[priority])]
        if not present:
            break
        # Smooth weighted turns; a class that has nothing waiting neither gains nor loses.
        for priority in present:
            credit[priority] += WEIGHTS[priority]
        served = max(present, key=lambda priority: (credit[priority], priority))
        credit[served] -= sum(WEIGHTS[priority] for priority in present)
        row = lines[served][places[served]]
        places[served] += 1
        turns[served] = max(turns[served], row[-2])
        chosen.append(row)
    return chosen, QueueState(state.last_n, state.waiting - len(chosen), tuple(credit), tuple(turns))


def _of_one_priority(lines: Sequence[list[Sequence[Any]]], n: int, state: QueueState) -> tuple[list[Sequence[Any]], QueueState]:
    [priority] = [priority for priority in range(3) if lines[priority]]
    chosen = lines[priority][:n]
    turns = list(state.turns)
    turns[priority] = max(turns[priority], chosen[-1][-2])
    return chosen, state._replace(waiting=state.waiting - len(chosen), turns=tuple(turns))


def in_turn(lines: Sequence[list[Sequence[Any]]]) -> list[Sequence[Any]]:
    """Several lines, each in order of (turn, n), as one."""
    if len(lines) == 1:
        return lines[0]
    return list(merge(*lines, key=itemgetter(-2, -1)))
