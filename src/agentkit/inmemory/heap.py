"""A heap that forgets: entries that no longer matter are dropped when they come to the top, so removing one costs nothing."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class LazyHeap(Generic[T]):
    """The smallest entry first. `matters(rank, item)` says whether an entry still stands; it may change its answer at any time."""

    def __init__(self, matters: Callable[[float, T], bool]) -> None:
        self._matters = matters
        self._entries: list[tuple[float, int, T]] = []
        self._pushed = count()  # breaks ties, so that items are never compared
        self._room = 64

    def push(self, rank: float, item: T) -> None:
        if len(self._entries) >= self._room:
            self._compact()
        heappush(self._entries, (rank, next(self._pushed), item))

    def head(self) -> tuple[float, T] | None:
        """The smallest entry that stands, with its rank; it stays."""
        while self._entries:
            rank, _, item = self._entries[0]
            if self._matters(rank, item):
                return rank, item
            heappop(self._entries)
        return None

    def _compact(self) -> None:
        # Doubling the room after each sweep keeps a push O(log n) however many entries died in the middle.
        self._entries = [entry for entry in self._entries if self._matters(entry[0], entry[2])]
        heapify(self._entries)
        self._room = 64 + 2 * len(self._entries)
