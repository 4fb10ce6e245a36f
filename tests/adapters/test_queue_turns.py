"""Turns are fractions, and no store may lose them: neither where it writes them, nor when the line has come far."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentkit.plugins import open_url
from agentkit.ports.queue import Queue
from agentkit.testing.clock import FakeClock
from agentkit.testing.queue_base import SERVED, tickets
from agentkit_redis.lines import command
from agentkit_redis.queue import RedisQueue
from agentkit_sql.dialect import Script, Statement
from agentkit_sql.queue import SqlQueue
from tests.adapters.opening import opened

FAR = 1e9  # turns: a day of the fastest of them, for one tenant alone


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Some of the drivers run on asyncio alone."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "redis"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queue]:
    url = f"sqlite:///{tmp_path}/queue.db" if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")
    made: Queue = open_url("queue", url, FakeClock())
    async with opened(made):
        yield made


async def go_far(queue: Queue) -> None:
    """As if so many turns of normal priority had been served."""

    def reach() -> Script[None]:
        yield Statement("UPDATE queue_state SET turn1 = ?")(FAR)

    if isinstance(queue, SqlQueue):
        await queue.database.write(reach, sync=False)
    else:
        assert isinstance(queue, RedisQueue)
        await (await queue.client()).call(command("HSET", queue.key("queue"), "v1", int(FAR)))


@pytest.mark.parametrize("weight", [7, 1000])
async def test_shares_are_the_same_after_a_thousand_million_turns(queue: Queue, weight: int) -> None:
    await go_far(queue)
    rounds = 1 if weight > 100 else 20
    for start in range(0, rounds * weight + 10, 100):  # in several calls: each goes on where the last one stood
        await queue.put(tickets(rounds * weight + 10, tenant="heavy", weight=weight)[start : start + 100])
    await queue.put(tickets(2 * rounds, tenant="light"))
    leases = [lease for _ in range(rounds) for lease in await queue.lease(weight + 1, wait_s=0, lease_s=60, kinds=SERVED)]
    had = [lease.ticket.tenant for lease in leases]
    assert abs(had.count("light") - rounds) <= 1
    heavy = [lease.ticket for lease in leases if lease.ticket.tenant == "heavy"]
    assert heavy == tickets(rounds * weight + 10, tenant="heavy", weight=weight)[: len(heavy)]
