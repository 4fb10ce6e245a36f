"""Wakes those who wait for runs: one waiter on the store for the whole process, and one read for all of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from agentkit.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agentkit.ports.records import Run
    from agentkit.ports.runs import RunStore

POLL_S = 1.0  # what a missed notification costs at most
PAUSE_S = 0.02  # between two rounds: under load the waiters look fifty times a second, not at every commit
PAGE = 500  # runs of one read


class Watcher:
    """One who waits for news of a run. With `journal` every change of the store is news, else a change of the run's row."""

    __slots__ = ("event", "journal", "row")

    def __init__(self, *, journal: bool) -> None:
        self.journal = journal
        self.event = anyio.Event()
        self.row: Run | None = None

    async def next(self, timeout_s: float | None = None) -> bool:
        """Wait for news; False when the time is up."""
        with anyio.move_on_after(timeout_s):
            await self.event.wait()
        came = self.event.is_set()
        self.event = anyio.Event()
        return came


class Hub:
    """`watch` a run and be woken when something about it may have changed; then look for yourself."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._watchers: dict[str, set[Watcher]] = {}
        self._wanted = anyio.Event()

    @contextmanager
    def watch(self, run_id: str, *, journal: bool = False) -> Iterator[Watcher]:
        watcher = Watcher(journal=journal)
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
                token = await self._store.changed(token, POLL_S)
                await self._look()
            except StoreError:
                await anyio.sleep(POLL_S)
            await anyio.sleep(PAUSE_S)

    async def _look(self) -> None:
        watched = list(self._watchers)
        for i in range(0, len(watched), PAGE):
            page = watched[i : i + PAGE]
            for run_id, row in zip(page, await self._store.get(page), strict=True):
                for watcher in self._watchers.get(run_id, ()):
                    _show(watcher, row)


def _show(watcher: Watcher, row: Run | None) -> None:
    """Wake a watcher if this row is news to it."""
    before = watcher.row
    watcher.row = row
    if watcher.journal or row is None or before is None or (row.status, row.fence, row.wake) != (before.status, before.fence, before.wake):
        watcher.event.set()
