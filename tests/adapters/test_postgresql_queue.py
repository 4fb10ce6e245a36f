"""What the queue on PostgreSQL does in one statement, where the order of what it is given matters."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentkit.ports.queue import Ticket
from agentkit.testing.queue_base import KIND, SERVED, runs, ticket
from agentkit_sql import Sql
from agentkit_sql.queue import SqlQueue


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture(params=["asyncpg", "psycopg"])
async def queue(request: pytest.FixtureRequest, postgresql_url: str) -> AsyncIterator[SqlQueue]:
    queue = Sql(postgresql_url.replace("postgresql:", f"postgresql+{request.param}:")).queue
    await queue.open()
    try:
        yield queue
    finally:
        await queue.aclose()


async def line(queue: SqlQueue) -> list[str]:
    return runs(await queue.lease(100, wait_s=0, lease_s=60, kinds=SERVED))


async def test_of_one_id_given_twice_in_a_call_the_first_is_put_whatever_tenants_they_name(queue: SqlQueue) -> None:
    await queue.put([ticket(1, tenant="a"), ticket(2, tenant="b"), ticket(1, tenant="b", priority=2)])
    leases = await queue.lease(100, wait_s=0, lease_s=60, kinds=SERVED)
    assert [lease.ticket for lease in leases] == [ticket(1, tenant="a"), ticket(2, tenant="b")]


async def test_tenants_whose_tickets_come_mixed_in_one_call_take_turns(queue: SqlQueue) -> None:
    await queue.put([ticket(f"{tenant}{n}", tenant=tenant) for n in range(2) for tenant in "bac"])
    await queue.put([ticket(f"{tenant}{n}", tenant=tenant) for tenant in "cab" for n in range(2, 4)])
    assert [run.removeprefix("run-")[0] for run in await line(queue)] == [*"bac", *"bac", *"cab", *"cab"]


async def test_a_ticket_that_is_dropped_for_its_twin_costs_its_tenant_no_turn(queue: SqlQueue) -> None:
    await queue.put([ticket("a0", tenant="a"), ticket("b0", tenant="b")])
    await queue.put([*[ticket("a0", tenant="a")] * 3, ticket("a1", tenant="a"), ticket("a0", tenant="a"), ticket("a2", tenant="a")])
    await queue.put([ticket(f"b{n}", tenant="b") for n in range(1, 3)])
    assert await line(queue) == [f"run-{name}" for name in ("a0", "b0", "a1", "b1", "a2", "b2")]
    assert (await queue.depth())[KIND].leased == 6


async def test_a_priority_out_of_bounds_stands_in_the_line_of_the_nearest(queue: SqlQueue) -> None:
    await queue.put([ticket(n, priority=priority) for n, priority in enumerate((2, 7, 2))])
    leases = await queue.lease(100, wait_s=0, lease_s=60, kinds=SERVED)
    assert [lease.ticket for lease in leases] == [Ticket(f"run-{n}", "reviewer", "3", priority=2) for n in range(3)]
