"""PostgreSQL and those who wait for news, by NOTIFY and behind PgBouncer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest

from agentkit.errors import WorkerFenced
from agentkit.ports.queue import Ticket
from agentkit.ports.records import Entry, Release, Run, RunStatus, RunWrite
from agentkit.testing.runs_base import claim, entry, new, parked, reap, register, start, write
from agentkit_sql import Sql, SqlRuns
from tests.adapters.opening import IMPATIENT, connected
from tests.servers.postgresql import PgBouncer, Postgresql
from tests.servers.process import private


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The drivers run on asyncio alone."""
    return "asyncio"


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def verdicts(store: SqlRuns, worker_id: str, batch: list[RunWrite]) -> list[str]:
    return [written.verdict for written in await store.write(worker_id, batch)]


async def test_a_listener_whose_connection_was_cut_listens_again(postgresql: Postgresql, postgresql_url: str, driver: str) -> None:
    url = postgresql_url.replace("postgresql://", f"postgresql+{driver}://")
    async with connected(postgresql_url) as writer, connected(url) as store:
        seen = await store.changed(0, 0.5)
        for number in range(2):
            statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE '%LISTEN%' AND pid <> pg_backend_pid()"
            await anyio.to_thread.run_sync(postgresql.execute, statement)
            with anyio.fail_after(20):
                while (token := await store.changed(seen, 0.2)) == seen:
                    await writer.create([new(f"run-{number}-{uuid4().hex}")])
            seen = token


async def test_changes_are_told_to_other_processes_at_once(postgresql_url: str, driver: str) -> None:
    url = postgresql_url.replace("postgresql://", f"postgresql+{driver}://")
    async with connected(postgresql_url) as writer, connected(url) as store:
        worker_id, run = await start(writer, "run-1")
        seen = await store.changed(0, 0)
        with anyio.fail_after(20):
            while await store.changed(seen, 0.2) == seen:  # until it listens
                await writer.ticketed([])
                await writer.create([new(uuid4().hex)])
        await anyio.sleep(0.1)
        seen = store.database.token("runs")
        async with anyio.create_task_group() as tasks:

            async def flush() -> None:
                await anyio.sleep(0.05)
                await writer.write(worker_id, [write(run, [entry(1)])])

            tasks.start_soon(flush)
            with anyio.fail_after(20):
                assert await store.changed(seen, 30) != seen


@pytest.fixture
async def bouncer(postgresql: Postgresql) -> AsyncIterator[PgBouncer]:
    async with private(PgBouncer, postgresql) as bouncer:
        yield bouncer


async def life(store: SqlRuns) -> None:
    """A run from its creation to its end, through everything that a store is asked."""
    worker_id, run = await start(store, "run-1")
    assert await store.beat(worker_id) is not None
    assert await verdicts(store, worker_id, [write(run, [entry(1), entry(2)])]) == ["ok"]
    assert await verdicts(store, worker_id, [write(run, release=parked(run, waiting_for="signal"))]) == ["ok"]
    assert (await store.signal("run-1", "m1", "go", b"1")).ticket is not None
    heir = await register(store)
    again = await claim(store, heir, "run-1")
    assert [gone.run_id for gone in (await reap(store, heir)).taken_over] == ["run-1"]
    with pytest.raises(WorkerFenced):
        await store.write(heir, [RunWrite("run-1", again.fence, [Entry(3, 1, "k", 1, "", 0, b"", 0, 0)])])
    last: Run = await claim(store, worker_id, "run-1")
    assert await verdicts(store, worker_id, [write(last, [entry(3)], release=Release(RunStatus.COMPLETED, result=b"1"))]) == ["ok"]
    assert len(await store.load("run-1")) == 3


async def test_a_pooler_by_transaction_serves_all_that_a_store_is_asked(postgresql_url: str, bouncer: PgBouncer, driver: str) -> None:
    url = bouncer.url(postgresql_url.rpartition("/")[2]).replace("postgresql://", f"postgresql+{driver}://")
    async with connected(url, f"pgbouncer=true&schema=s{uuid4().hex}&{IMPATIENT}") as store:
        await life(store)
        assert (await store.changed(0, 0)) > 0
        seen = await store.changed(0, 0)
        assert await store.changed(seen, 0.05) == seen


async def test_behind_a_pooler_listen_url_brings_the_news(postgresql_url: str, bouncer: PgBouncer) -> None:
    url = bouncer.url(postgresql_url.rpartition("/")[2])
    async with connected(postgresql_url) as writer, connected(url, f"pgbouncer=true&listen_url={quote(postgresql_url, safe='')}") as store:
        seen = await store.changed(0, 0)
        with anyio.fail_after(20):
            while await store.changed(seen, 0.2) == seen:
                await writer.create([new(uuid4().hex)])


async def test_the_queue_works_behind_a_pooler(postgresql_url: str, bouncer: PgBouncer) -> None:
    queue = Sql(bouncer.url(postgresql_url.rpartition("/")[2]) + "?pgbouncer=true").queue
    await queue.open()
    await queue.put([Ticket(f"run-{number}", "review", "3") for number in range(20)])
    leases = await queue.lease(20, wait_s=1, lease_s=30, kinds={"review@3"})
    assert await queue.renew(leases, 30) == [True] * 20
    assert await queue.finish(leases) == [True] * 20
    await queue.aclose()
