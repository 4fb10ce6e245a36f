"""The hub: one look at the store for all who wait, and no more looks than the store can bear."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import anyio

from agentkit.inmemory.runs import InMemoryRuns
from agentkit.ports.records import Run
from agentkit.runtime.hub import Hub


class Restless(InMemoryRuns):
    """Always changed; counts the looks at its rows."""

    looks = 0

    async def changed(self, seen: int, timeout_s: float) -> int:
        await anyio.lowlevel.checkpoint()
        return seen + 1

    async def get(self, run_ids: Sequence[str]) -> list[Run | None]:
        self.looks += 1
        return [None] * len(run_ids)


async def looks(readers: int) -> int:
    """At a store where something changes all the time, while so many journals are followed."""
    store = Restless()
    hub = Hub(store)
    with ExitStack() as watching:
        for number in range(readers):
            watching.enter_context(hub.watch(f"run-{number}", journal=True))
        with anyio.move_on_after(0.5):
            await hub.run()
    return store.looks


async def test_the_more_journals_are_followed_the_rarer_the_store_is_asked() -> None:
    assert await looks(400) < await looks(1)


async def test_who_no_longer_follows_a_journal_is_not_told_of_it() -> None:
    hub = Hub(Restless())
    with hub.watch("run", journal=True) as first:
        with hub.watch("run", journal=True), hub.watch("run") as other:
            pass
        hub.followed["run"]()
        assert (first.event.is_set(), other.event.is_set()) == (True, False)
    assert hub.followed == {}
