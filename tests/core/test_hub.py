"""The hub: one look at the store for all who wait, and no more looks than the store can bear."""

from __future__ import annotations

from contextlib import ExitStack

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agentkit.inmemory.runs import InMemoryRuns
from agentkit.runtime.hub import PAUSE_S, READING_S, Hub


class Restless(InMemoryRuns):
    """Something changes in it all the time."""

    async def changed(self, seen: int, timeout_s: float) -> int:
        await checkpoint()
        return seen + 1


@pytest.mark.parametrize("readers", [1, 400])
async def test_the_more_journals_are_followed_the_rarer_the_store_is_asked(readers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, paused, pauses = Hub(Restless()), anyio.Event(), list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        paused.set()
        await anyio.sleep_forever()

    with ExitStack() as watching:
        for number in range(readers):
            watching.enter_context(hub.watch(f"run-{number}", journal=True))
        monkeypatch.setattr(anyio, "sleep", sleep)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.run)
            await paused.wait()
            tasks.cancel_scope.cancel()
    assert pauses[0] >= max(PAUSE_S, readers * READING_S)


async def test_who_no_longer_follows_a_journal_is_not_told_of_it() -> None:
    hub = Hub(Restless())
    with hub.watch("run", journal=True) as first:
        with hub.watch("run", journal=True), hub.watch("run") as other:
            pass
        hub.followed["run"]()
        assert (first.news, other.news) == (True, False)
    assert hub.followed == {}
