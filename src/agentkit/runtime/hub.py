"""Wakes those who wait for runs: one waiter on the store for the whole process, and one read for all of them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio

from agentkit.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator, Iterable, Sequence

    from agentkit.ports.records import Run
    from agentkit.ports.runs import RunStore

POLL_S = 1.0  # what a missed notification costs at most
PAUSE_S = 0.02  # between two rounds: under load the waiters look fifty times a second, not at every commit
LOOKING = 10  # times as long as a look took is the pause after it: however many are watched, it costs a tenth
READING_S = 0.001  # so long the store takes for each reader of a journal elsewhere, about: a thousand look once a second, not fifty times
PAGE = 500  # runs of one read


class Watcher:
    """One who waits for news of a run. With `journal` what is written to its journal is news, else a change of the run's row."""

    __slots__ = ("_event", "calm_until", "journal", "news", "row")

    def __init__(self, *, journal: bool) -> None:
        self.journal = journal
        self.calm_until = 0.0
        self.row: Run | None = None
        self.news = False
        self._event: anyio.Event | None = None

    def tell(self) -> None:
        """There is news."""
        self.news = True
        if self._event is not None:
            self._event.set()

    def calm(self) -> None:
        """Its run waits for a slot of this process, and is most likely at work in a moment: before a poll nobody need look elsewhere."""
        self.calm_until = time.monotonic() + POLL_S

    async def next(self, timeout_s: float | None = None) -> bool:
        """Wait for news; False when the time is up."""
        if not self.news:
            self._event = anyio.Event()
            with anyio.move_on_after(timeout_s):
                await self._event.wait()
        came, self.news, self._event = self.news, False, None
        return came


class Hub:
    """`watch` a run and be woken when something about it may have changed; then look for yourself."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.mine: Container[str] = ()
        """Runs at work in this process: their ends are told by `show`, and what is written to their journals by `followed`."""
        self.followed: dict[str, Callable[[], None]] = {}
        """Of the runs whose journals are followed: what to call when something was written."""
        self._watchers: dict[str, set[Watcher]] = {}
        self._due: set[str] = set()
        self._changed, self._wanted = anyio.Event(), anyio.Event()

    @contextmanager
    def watch(self, run_id: str, *, journal: bool = False) -> Generator[Watcher]:
        watcher = Watcher(journal=journal)
        self._watchers.setdefault(run_id, set()).add(watcher)
        if journal:
            self.followed[run_id] = partial(self._written, run_id)
        self._wanted.set()
        try:
            yield watcher
        finally:
            watchers = self._watchers[run_id]
            watchers.discard(watcher)
            if not any(other.journal for other in watchers):
                self.followed.pop(run_id, None)
            if not watchers:
                del self._watchers[run_id]

    def _written(self, run_id: str) -> None:
        for watcher in self._watchers[run_id]:
            if watcher.journal:
                watcher.tell()

    def poke(self, run_ids: Iterable[str]) -> None:
        """These runs changed here, and it is durable. What ends together is read together."""
        changed = self._watchers.keys() & set(run_ids)
        if changed:
            self._due |= changed
            self._changed.set()

    def show(self, row: Run) -> None:
        """This is what a run came to here, and it is durable: nobody need read it."""
        for watcher in self._watchers.get(row.run_id, ()):
            _show(watcher, row)

    async def run(self) -> None:
        """Show the rows that changed to those who watch them."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow_others)
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                due, self._due = list(self._due), set()
                await self._look(due)

    async def _follow_others(self) -> None:
        """While anybody watches, look at everything when another process may have changed it."""
        token = 0
        while True:
            if not self._watchers:
                self._wanted = anyio.Event()
                await self._wanted.wait()
            try:
                token = await self._store.changed(token, POLL_S)
            except StoreError:
                await anyio.sleep(POLL_S)
            began = time.perf_counter()
            elsewhere = [run_id for run_id in self._watchers if self._elsewhere(run_id)]
            await self._look(elsewhere)
            readers = sum(run_id in self.followed for run_id in elsewhere)
            await anyio.sleep(max(PAUSE_S, READING_S * readers, LOOKING * (time.perf_counter() - began)))

    def _elsewhere(self, run_id: str) -> bool:
        """Whether somebody else may change what is waited for: of a run that is at work here, this process says itself when it ends."""
        now = time.monotonic()
        return run_id not in self.mine and any(watcher.calm_until <= now for watcher in self._watchers[run_id])

    async def _look(self, run_ids: Sequence[str]) -> None:
        for i in range(0, len(run_ids), PAGE):
            page = run_ids[i : i + PAGE]
            try:
                rows = await self._store.get(page)
            except StoreError:
                self._due.update(page)
                await anyio.sleep(POLL_S)
                self._changed.set()
                return
            for run_id, row in zip(page, rows, strict=True):
                for watcher in self._watchers.get(run_id, ()):
                    _show(watcher, row)


def _show(watcher: Watcher, row: Run | None) -> None:
    """Wake a watcher if this row is news to it."""
    before = watcher.row
    if before is not None and before.status.ended and row is not None and not row.status.ended and not watcher.journal:
        return  # it was read before the run ended here
    watcher.row = row
    if watcher.journal or row is None or before is None or (row.status, row.fence, row.wake) != (before.status, before.fence, before.wake):
        watcher.tell()
