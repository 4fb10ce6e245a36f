"""Wakes those who wait for runs: one waiter on the store for the whole process, however many handles wait."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from agentkit.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agentkit.clock import Clock
    from agentkit.ports.runs import RunStore

POLL_S = 1.0  # what a missed notification costs at most
PAUSE_S = 0.02  # between two rounds: under load the waiters look fifty times a second, not at every commit


class Hub:
    """`watch` a run and be woken when something about it may have changed; then look for yourself."""

    def __init__(self, store: RunStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._watchers: dict[str, set[Watcher]] = {}
        self._wanted = anyio.Event()

    @contextmanager
    def watch(self, run_id: str) -> Iterator[Watcher]:
        watcher = Watcher()
        self._watchers.setdefault(run_id, set()).add(watcher)
        self._wanted.set()
        try:
            yield watcher
        finally:
            watchers = self._watchers[run_id]
            watchers.discard(watcher)
            if not watchers:
                del self._watchers[run_id]

    def poke(self, run_ids: Iterable[str]) -> None:
        """These runs changed here, and it is durable."""
        for run_id in run_ids:
            for watcher in self._watchers.get(run_id, ()):
                watcher.event.set()

    async def run(self) -> None:
        """Pass on what other processes change, while anybody watches."""
        token = 0
        while True:
            if not self._watchers:
                self._wanted = anyio.Event()
                await self._wanted.wait()
            try:
                seen = await self._store.changed(token, POLL_S)
            except StoreError:
                await anyio.sleep(POLL_S)
                continue
            if seen != token:
                token = seen
                self.poke(list(self._watchers))
            await anyio.sleep(PAUSE_S)


class Watcher:
    """One who waits. `next` returns when there may be news."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = anyio.Event()

    async def next(self, timeout_s: float | None = None) -> bool:
        """Wait for news; False when the time is up."""
        with anyio.move_on_after(timeout_s):
            await self.event.wait()
        came = self.event.is_set()
        self.event = anyio.Event()
        return came
