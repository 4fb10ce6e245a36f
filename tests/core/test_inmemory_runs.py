"""The in-memory run store keeps the laws of the port, and what is its own: threads, waiting, URLs."""

from __future__ import annotations

import anyio
import pytest

from agentkit.errors import InvalidSetting
from agentkit.inmemory.runs import InMemoryRuns, from_url
from agentkit.ports.records import RunStatus
from agentkit.testing.clock import FakeClock
from agentkit.testing.runs import RunStoreContract
from agentkit.testing.runs_base import SERVES, new, parked, statuses, write


class TestInMemoryRuns(RunStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> InMemoryRuns:
        return InMemoryRuns(clock)


async def test_a_change_from_another_thread_wakes_who_waits() -> None:
    store = InMemoryRuns()
    seen = await store.changed(0, 0.0)

    def create() -> None:
        anyio.run(store.create, [new("run-1")])

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, create)
        with anyio.fail_after(10):
            assert await store.changed(seen, 10) != seen


async def test_who_gave_up_waiting_leaves_nothing_behind() -> None:
    clock = FakeClock()
    store = InMemoryRuns(clock)
    seen = await store.changed(0, 0.0)
    tokens: list[int] = []

    async def wait() -> None:
        tokens.append(await store.changed(seen, 5.0))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await clock.advance(5.0)
    assert tokens == [seen]


async def test_ten_thousand_parked_runs_cost_no_task_and_no_timer() -> None:
    store = InMemoryRuns()
    names = [f"run-{number}" for number in range(10_000)]
    await store.register("w", "", "")
    await store.create([new(name) for name in names])
    granted = await store.claim("w", names, SERVES)
    tasks = len(anyio.get_running_tasks())
    await store.write("w", [write(each.run, release=parked(each.run)) for each in granted if not isinstance(each, str)])
    assert set(await statuses(store, names)) == {RunStatus.PARKED}
    assert len(anyio.get_running_tasks()) == tasks


@pytest.mark.parametrize("url", ["memory://host", "memory:///path", "memory://?lease_s=3", "sqlite:///runs.db", "memory"])
def test_a_url_that_is_not_plain_memory_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting):
        from_url(url)


def test_each_url_opens_a_store_of_its_own() -> None:
    assert from_url("memory://") is not from_url("memory://")
