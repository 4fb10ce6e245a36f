"""The in-memory queue keeps the laws of the port, and what is its own: threads, exact turns, URLs."""

from __future__ import annotations

from collections import Counter
from functools import partial
from threading import Thread
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import InvalidSetting
from agentkit.inmemory.line import FairLine
from agentkit.inmemory.queue import InMemoryQueue, from_url
from agentkit.ports.queue import Lease, Ticket
from agentkit.testing.clock import FakeClock
from agentkit.testing.queue import QueueContract

SERVED = frozenset({"reviewer@3", "writer@1"})


class TestInMemoryQueue(QueueContract):
    @pytest.fixture
    async def queue(self, clock: FakeClock) -> InMemoryQueue:
        return InMemoryQueue(clock, max_depth=self.max_depth)


def tickets(name: str, count: int, **changes: Any) -> list[Ticket]:
    return [Ticket(f"{name}-{n}", "reviewer", "3")._replace(**changes) for n in range(count)]


async def test_a_put_from_another_thread_wakes_a_waiting_lease() -> None:
    queue = InMemoryQueue()
    leases: list[Lease] = []

    async def wait() -> None:
        leases.extend(await queue.lease(1, wait_s=3600, lease_s=30, kinds=SERVED))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(lambda: anyio.run(queue.put, tickets("run", 1)))
    assert [lease.ticket.run_id for lease in leases] == ["run-0"]


async def test_threads_share_the_tickets_without_losing_or_doubling_one() -> None:
    queue = InMemoryQueue()
    done: list[list[str]] = []

    async def consume() -> None:
        mine: list[str] = []
        while leases := await queue.lease(7, wait_s=0, lease_s=3600, kinds=SERVED):
            assert all(await queue.finish(leases))
            mine += [lease.ticket.run_id for lease in leases]
        done.append(mine)

    await queue.put(tickets("run", 3000))
    threads = [Thread(target=partial(anyio.run, consume)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    assert Counter(run_id for mine in done for run_id in mine) == Counter({f"run-{n}": 1 for n in range(3000)})


async def test_priorities_take_turns_as_8_to_3_to_1() -> None:
    queue = InMemoryQueue()
    for priority in (0, 1, 2):
        await queue.put(tickets(f"p{priority}", 100, priority=priority))
    leases = await queue.lease(12, wait_s=0, lease_s=30, kinds=SERVED)
    assert Counter(lease.ticket.priority for lease in leases) == {2: 8, 1: 3, 0: 1}


async def test_kinds_take_turns_so_that_a_flood_of_one_agent_does_not_hold_up_another() -> None:
    queue = InMemoryQueue()
    await queue.put(tickets("flood", 100))
    await queue.put(tickets("brook", 3, kind="writer", version="1"))
    leases = await queue.lease(8, wait_s=0, lease_s=30, kinds=SERVED)
    assert Counter(lease.ticket.kind for lease in leases) == {"reviewer": 5, "writer": 3}


async def test_what_was_cancelled_or_finished_leaves_nothing_behind() -> None:
    queue = InMemoryQueue()
    for n in range(2000):
        await queue.put([Ticket(f"kept-{n}", "reviewer", "3", key="k"), Ticket(f"gone-{n}", "reviewer", "3", tenant="t")])
        await queue.cancel([f"gone-{n}"])
        await queue.finish(await queue.lease(1, wait_s=0, lease_s=30, kinds=SERVED))
    line = queue._lines[1, "reviewer@3"]  # pyright: ignore[reportPrivateUsage]
    heaps = [*line._tenants.values(), *queue._ages.values(), queue._leases]  # pyright: ignore[reportPrivateUsage]
    assert max(len(heap._entries) for heap in heaps) < 200  # pyright: ignore[reportPrivateUsage]
    assert not any((queue._undelivered, queue._leased, queue._keys))  # pyright: ignore[reportPrivateUsage]


async def test_a_url_opens_a_queue_of_its_own_with_its_bound() -> None:
    one, other = from_url("memory://?max_depth=2"), from_url("memory://")
    await one.put(tickets("run", 2))
    assert await other.depth() == {}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://?max_deep=3", "did you mean 'max_depth'"),
        ("memory://?max_depth=many", "whole number above 0"),
        ("memory://?max_depth=0", "whole number above 0"),
        ("memory://host", "no host"),
        ("sqlite:///x.db", "memory://"),
    ],
)
def test_a_url_that_is_wrong_says_what_is_right(url: str, words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        from_url(url)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=6), st.integers(1, 500))
def test_no_tenant_is_ever_more_than_a_turn_ahead_of_another_by_their_weights(weights: list[int], turns: int) -> None:
    line, served = FairLine[int](lambda _, __: True), [0] * len(weights)
    for tenant, weight in enumerate(weights):
        line.push(str(tenant), 0, tenant, 1 / weight)
    for _ in range(turns):
        first = line.head()
        assert first is not None
        line.next_tenant(1 / weights[first])
        served[first] += 1
    rounds = [count / weight for count, weight in zip(served, weights, strict=True)]
    assert max(rounds) - min(rounds) <= 1 / min(weights) + 1e-9
