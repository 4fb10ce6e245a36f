"""Who is next: turns between priorities and between tenants, decided without a clock."""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

from agentkit.inmemory.heap import LazyHeap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")


class WeightedTurns:
    """Deals turns by weight, as evenly as they can be spread: weights 8, 3, 1 give the last one each twelfth turn."""

    def __init__(self, weights: Mapping[int, int]) -> None:
        self._weights = weights
        self._credit = dict.fromkeys(weights, 0)

    def next(self, present: Iterable[int]) -> int:
        """Whose turn it is of those `present`; the absent neither gain nor lose."""
        present = list(present)
        for one in present:
            self._credit[one] += self._weights[one]
        chosen = max(present, key=lambda one: (self._credit[one], self._weights[one]))
        self._credit[chosen] -= sum(self._weights[one] for one in present)
        return chosen


class FairLine(Generic[T]):
    """A line in which tenants take turns, each with its own items in the order of their ranks.

    The turns are in virtual time: after an item of stride 1/3 its tenant's next turn is a third of a round later.
    """

    def __init__(self, matters: Callable[[float, T], bool]) -> None:
        self._matters = matters
        self._tenants: dict[str, LazyHeap[T]] = {}
        self._turns: list[tuple[float, int, str]] = []  # a heap: when it is each tenant's turn, of `_tenants` each once
        self._entered = count()  # of equal turns the one that was entered first comes first
        self._reached = 0.0

    def push(self, tenant: str, rank: float, item: T, stride: float = 1.0) -> None:
        if tenant not in self._tenants:
            self._tenants[tenant] = LazyHeap(self._matters)
            # From where the line is now, whatever the tenant did before: who was away saved nothing up.
            heappush(self._turns, (self._reached + stride, next(self._entered), tenant))
        self._tenants[tenant].push(rank, item)

    def head(self) -> T | None:
        """The item that is next; it stays for as long as it matters."""
        while self._turns:
            head = self._tenants[self._turns[0][2]].head()
            if head:
                return head[1]
            del self._tenants[heappop(self._turns)[2]]
        return None

    def next_tenant(self, stride: float = 1.0) -> None:
        """The tenant in front had its turn, with an item of that stride."""
        self._reached, _, tenant = self._turns[0]
        heapreplace(self._turns, (self._reached + stride, next(self._entered), tenant))
