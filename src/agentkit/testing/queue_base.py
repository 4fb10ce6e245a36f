"""What the tests of a queue share."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agentkit.ports.queue import Depth, Lease, Queue, Ticket
from agentkit.testing.contract import Advance, Contract, as_time_passes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

KIND = "reviewer@3"
SERVED = frozenset({KIND})


def ticket(run_id: str | int, **changes: Any) -> Ticket:
    return Ticket(f"run-{run_id}", "reviewer", "3", **changes)


def tickets(count: int, **changes: Any) -> list[Ticket]:
    """`count` tickets of runs of their own: those of one priority, tenant and key can be told from others by their ids."""
    name = "-".join(str(value) for value in changes.values())
    return [ticket(f"{name}-{number}", **changes) for number in range(count)]


def runs(leases: Sequence[Lease]) -> list[str]:
    return [lease.ticket.run_id for lease in leases]


class QueueBase(Contract):
    max_depth: int = 10_000
    """The queue under test is opened with it."""

    supports_keys: bool = True
    supports_delay: bool = True
    holds_leases: bool = True

    @pytest.fixture
    def second(self, queue: Queue) -> Queue:
        """Another client of the same queue, as another process would have it."""
        return queue

    async def take(
        self, queue: Queue, n: int = 1, *, wait_s: float = 0.0, lease_s: float | None = None, kinds: AbstractSet[str] = SERVED
    ) -> list[Lease]:
        return await queue.lease(n, wait_s=wait_s, lease_s=self.lease_s if lease_s is None else lease_s, kinds=kinds)

    async def take_soon(self, queue: Queue, advance: Advance, n: int = 1) -> list[Lease]:
        """What an adapter gives out that needs a moment to see that it is due."""
        wait_s = 0.2 * self.lease_s
        leases, _ = await as_time_passes(advance, 2 * wait_s, partial(self.take, queue, n, wait_s=wait_s))
        return leases

    async def take_all(self, queue: Queue, *, finish: bool = False) -> list[Lease]:
        """One by one, in the order in which the queue gives them out, until it is silent."""
        leases: list[Lease] = []
        while batch := await self.take(queue):
            leases += batch
            assert len(leases) <= self.max_depth, "it gives out more than can have been put"
            if finish:
                assert await queue.finish(batch) == [True]
        return leases

    async def fill(self, queue: Queue, count: int) -> list[Ticket]:
        """Put `count` tickets, in batches."""
        all_tickets = tickets(count)
        for start in range(0, count, 500):
            await queue.put(all_tickets[start : start + 500])
        return all_tickets

    async def depth_of(self, queue: Queue, kind: str = KIND) -> Depth:
        return (await queue.depth()).get(kind, Depth())
