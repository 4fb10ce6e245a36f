"""A clock that stands still until a test moves it, so that no test waits and none depends on how fast the machine is."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from threading import Lock

from anyio.lowlevel import checkpoint

from agentkit.inmemory.run_changes import Waiter

TURNS = 20  # of the event loop after each instant: enough for a sleeper, those it wakes, and those they wake


class FakeClock:
    """A `Clock` that tests move. Sleepers may be on any thread and event loop.

    Args:
        start: wall time at the beginning, seconds since 1970.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._lock = Lock()
        self._wall = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, Waiter]] = []
        self._order = count()  # of two sleepers due together the earlier wakes first; waiters are never compared

    def time(self) -> float:
        """Wall time, seconds since 1970."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds this clock was moved on so far; a step of the wall clock alone does not count."""
        return self._elapsed

    @property
    def sleepers(self) -> int:
        """How many sleep now."""
        with self._lock:
            return sum(not waiter.event.is_set() for _, _, waiter in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Until the clock was moved on by `seconds`."""
        if seconds <= 0:
            await checkpoint()
            return
        waiter = Waiter()
        with self._lock:
            heappush(self._sleepers, (self._elapsed + seconds, next(self._order), waiter))
        try:
            await waiter.event.wait()
        finally:
            waiter.event.set()  # one that was cancelled stops no `advance`

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: sleepers wake in order, each at its own instant, and what they wake runs before time goes on."""
        end = self._elapsed + seconds
        while (due := self._next_due()) is not None and due <= end:
            self.jump(max(0.0, due - self._elapsed))
            await _let_others_run()
        self.jump(end - self._elapsed)
        await _let_others_run()

    def jump(self, seconds: float, *, wall_only: bool = False) -> None:
        """Move on at once, as after a suspended machine. With `wall_only` step the wall clock alone, as a time server does."""
        with self._lock:
            self._wall += seconds
            if wall_only:
                return
            self._elapsed += seconds
            due: list[Waiter] = []
            while self._sleepers and self._sleepers[0][0] <= self._elapsed:
                due.append(heappop(self._sleepers)[2])
        for waiter in due:
            waiter.wake()

    def _next_due(self) -> float | None:
        with self._lock:
            while self._sleepers and self._sleepers[0][2].event.is_set():
                heappop(self._sleepers)
            return self._sleepers[0][0] if self._sleepers else None


async def _let_others_run() -> None:
    for _ in range(TURNS):
        await checkpoint()
