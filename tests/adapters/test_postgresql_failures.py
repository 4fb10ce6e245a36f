"""What goes wrong between us and PostgreSQL: connections, transactions, processes that stand still, a server that goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from functools import partial
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest

from agentkit import Agent, Context, Runtime
from agentkit.errors import StoreBusy, StoreRefused, StoreUnavailable
from agentkit.ports.queue import Ticket
from agentkit.ports.records import NewRun, RunStatus, RunWrite
from agentkit.runtime.settings import Settings
from agentkit.testing.crash import until
from agentkit.testing.runs_base import claim, completed, entry, new, parked, reap, register, start, sweep, write
from agentkit_sql import Sql, SqlRuns
from agentkit_sql.dialect import Script, Statement
from agentkit_sql.postgresql import PostgresSettings, driver_of
from agentkit_sql.server import Connection
from tests.adapters.opening import IMPATIENT, connected
from tests.servers.postgresql import Postgresql
from tests.servers.process import private
from tests.servers.proxy import Proxy

LEASE_S = 2.5  # over 4.5 times that


class Patient(Agent[int, int]):
    """Takes its time over each step."""

    steps = 0

    async def run(self, ctx: Context, input: int) -> int:
        for _ in range(input):
            await ctx.step("wait", self.wait)
        return input

    async def wait(self) -> None:
        await anyio.sleep(0.3)
        Patient.steps += 1

    @classmethod
    async def under_way(cls) -> bool:
        return cls.steps > 3


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The drivers run on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def store(postgresql_url: str) -> AsyncIterator[SqlRuns]:
    async with connected(postgresql_url, IMPATIENT) as store:
        yield store


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def through(proxy: Proxy, url: str, driver: str = "asyncpg") -> str:
    """A URL that leads through the proxy."""
    head, _, database = url.rpartition("/")
    return f"{head.rpartition(':')[0]}:{proxy.port}/{database}".replace("postgresql://", f"postgresql+{driver}://")


async def insist(store: SqlRuns, worker_id: str, batch: list[RunWrite]) -> list[str]:
    """Send the very same batch until it is answered, as a lane does."""
    with anyio.fail_after(30):
        while True:
            try:
                return [written.verdict for written in await store.write(worker_id, batch)]
            except StoreUnavailable:
                await anyio.sleep(0.02)


async def journal(store: SqlRuns, run_id: str) -> list[bytes]:
    return [each.body for each in await store.load(run_id)]


# The answer to a commit is lost


@pytest.mark.parametrize("reached", [True, False], ids=["the server did it", "the server never saw it"])
async def test_a_batch_whose_answer_is_lost_lands_once(postgresql_url: str, driver: str, reached: bool) -> None:
    with Proxy(int(postgresql_url.rpartition(":")[2].partition("/")[0])) as proxy:
        async with connected(through(proxy, postgresql_url, driver)) as store, connected(postgresql_url) as other:
            worker_id, run = await start(store, "run-1")
            _, parking = await start(store, "run-2", worker_id)
            await store.write(worker_id, [write(run, [entry(1)])])
            happened = (proxy.cut_after if reached else proxy.cut_before)(b"the-marked-step")
            batch = [write(run, [entry(2, b"2", key="the-marked-step")]), write(parking, [entry(1)], release=parked(parking))]
            with pytest.raises(StoreUnavailable):
                await store.write(worker_id, batch)
            assert happened.is_set()
            assert await insist(store, worker_id, batch) == ["ok", "ok"]
            assert await journal(other, "run-1") == [b'"done"', b"2"]
            assert await journal(other, "run-2") == [b'"done"']
            [row] = await other.get(["run-2"])
            assert row is not None
            assert row.status == RunStatus.PARKED


async def test_a_release_whose_answer_was_lost_changes_nothing_when_it_comes_again_after_the_run_has_gone_on(postgresql_url: str) -> None:
    with Proxy(int(postgresql_url.rpartition(":")[2].partition("/")[0])) as proxy:
        async with connected(through(proxy, postgresql_url)) as store, connected(postgresql_url) as other:
            worker_id, run = await start(store, "run-1")
            happened = proxy.cut_after(b"the-marked-reason")
            batch = [write(run, release=parked(run, waiting_for="the-marked-reason"))]
            with pytest.raises(StoreUnavailable):
                await store.write(worker_id, batch)
            assert happened.is_set()
            assert (await other.signal("run-1", "m1", "go", b"1")).answer == "accepted"
            heir = await register(other)
            going_on = await claim(other, heir, "run-1")
            assert await insist(store, worker_id, batch) == ["lost"]
            assert await insist(store, worker_id, [write(run, [entry(1)])]) == ["lost"]
            assert await insist(other, heir, [write(going_on, [entry(1)])]) == ["ok"]


async def test_a_transaction_that_was_cut_before_its_commit_leaves_nothing(postgresql_url: str) -> None:
    with Proxy(int(postgresql_url.rpartition(":")[2].partition("/")[0])) as proxy:
        async with connected(through(proxy, postgresql_url)) as store:
            await store.create([new("run-1")])
            happened = proxy.cut_before(b"COMMIT\0")
            with pytest.raises(StoreUnavailable):
                await store.signal("run-1", "m1", "topic", b"1")
            assert happened.is_set()
            proxy.heal()
            assert await store.inbox("run-1") == []
            assert (await store.signal("run-1", "m1", "topic", b"1")).answer == "accepted"


async def test_idle_connections_that_died_are_replaced_and_nobody_is_told(postgresql_url: str, driver: str) -> None:
    with Proxy(int(postgresql_url.rpartition(":")[2].partition("/")[0])) as proxy:
        async with connected(through(proxy, postgresql_url, driver)) as store:
            await store.create([new("run-1")])
            for _ in range(3):
                proxy.cut()
                assert [run is not None for run in await store.get(["run-1"])] == [True]
                proxy.cut()
                assert (await store.signal("run-1", uuid4().hex, "topic", b"1")).answer == "accepted"


async def test_a_server_that_is_slow_to_answer_is_waited_for(postgresql_url: str) -> None:
    with Proxy(int(postgresql_url.rpartition(":")[2].partition("/")[0])) as proxy:
        async with connected(through(proxy, postgresql_url)) as store:
            proxy.slow(0.03)
            worker_id, run = await start(store, "run-1")
            assert await insist(store, worker_id, [write(run, [entry(1)], release=completed())]) == ["ok"]


async def test_a_line_that_swallows_everything_is_given_up_in_time(postgresql_url: str) -> None:
    with Proxy(int(postgresql_url.rpartition(":")[2].partition("/")[0])) as proxy:
        async with connected(through(proxy, postgresql_url), IMPATIENT) as store:
            worker_id, run = await start(store, "run-1")
            await store.write(worker_id, [write(run, [entry(1)])])
            proxy.blackhole()
            with anyio.fail_after(10), pytest.raises(StoreUnavailable, match="no answer within"):
                await store.write(worker_id, [write(run, [entry(2)])])
            proxy.heal()
            assert await insist(store, worker_id, [write(run, [entry(2)])]) == ["ok"]
            assert await journal(store, "run-1") == [b'"done"'] * 2


# Somebody stands still


async def freed_by_sweep(store: SqlRuns, seen: Mapping[str, int]) -> list[str]:
    try:
        return [gone.run_id for gone in (await sweep(store, seen)).taken_over]
    except StoreBusy:
        return []


async def test_a_process_stopped_in_a_transaction_holds_up_its_take_over_only_until_the_server_ends_it(
    postgresql_url: str, store: SqlRuns, driver: str
) -> None:
    worker_id, run = await start(store, "run-1")
    await store.write(worker_id, [write(run, [entry(1)])])
    settings = PostgresSettings.from_url(f"{postgresql_url}?{IMPATIENT}".replace("postgresql://", f"postgresql+{driver}://"))
    stopped = await driver_of(settings).connect()
    lock = "SELECT 1 FROM workers WHERE worker_id = ? FOR SHARE"
    await stopped.rows(lock, (worker_id,))  # prepares it
    await stopped.plain("BEGIN")
    assert await stopped.rows(lock, (worker_id,))
    seen = (await sweep(store)).beats
    assert await until("the run is freed", partial(freed_by_sweep, store, seen), patience_s=10) == ["run-1"]
    with pytest.raises(Exception):  # noqa: B017  each driver has its own, and it is not ours to translate here
        await stopped.plain("COMMIT")
    stopped.terminate()


FLUSHING = """
import asyncio, sys
from agentkit.ports.records import Entry, RunWrite
from agentkit_sql import Sql

async def main(url: str) -> None:
    store = Sql(url).runs
    await store.open()
    await store.register("stopped", "review@3", "host")
    [claimed] = await store.claim("stopped", ["run-1"], {"review": {"3"}})
    for seq in range(1, 1_000_000):
        entry = Entry(seq, 1, "step", 1, "", 0, b"%d" % seq, 0, 0)
        [written] = await store.write("stopped", [RunWrite("run-1", claimed.run.fence, [entry])])
        print(seq, written.verdict, flush=True)
        if written.verdict != "ok":
            return

asyncio.run(main(sys.argv[1]))
"""


def flushing(url: str) -> subprocess.Popen[str]:
    """A process that has flushed fifty times and goes on. Blocks."""
    child = subprocess.Popen([sys.executable, "-c", FLUSHING, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in iter(child.stdout.readline, ""):
        if line.startswith("50 "):
            break
    return child


async def test_a_worker_stopped_in_the_middle_of_its_flushes_is_taken_over_and_writes_nothing_when_it_goes_on(
    postgresql_url: str, store: SqlRuns
) -> None:
    await store.create([new("run-1")])
    child = await anyio.to_thread.run_sync(flushing, postgresql_url)
    try:
        os.kill(child.pid, signal.SIGSTOP)
        with anyio.fail_after(10):
            assert [gone.run_id for gone in (await reap(store, "stopped")).taken_over] == ["run-1"]
        there = await journal(store, "run-1")
        heir = await register(store)
        run = await claim(store, heir, "run-1")
        assert await insist(store, heir, [write(run, [entry(len(there) + 1)])]) == ["ok"]
        os.kill(child.pid, signal.SIGCONT)
        out, err = await anyio.to_thread.run_sync(child.communicate)
    finally:
        child.kill()
    acknowledged = [int(line.split()[0]) for line in out.splitlines() if line.endswith(" ok")]
    assert max(acknowledged, default=50) <= len(there), "what was acknowledged was there to be read by the heir"
    assert "WorkerFenced" in err
    assert await journal(store, "run-1") == [*there, b'"done"']


# Transactions that meet

LOCK = "UPDATE runs SET meta = ? WHERE run_id = ?"


async def locked(connection: Connection, run_id: str) -> None:
    """Begin a transaction that holds the row of a run."""
    await connection.count(LOCK, ("", ""))  # no transaction prepares a statement
    await connection.plain("BEGIN")
    await connection.count(LOCK, ("theirs", run_id))


async def test_a_transaction_undone_for_another_ones_sake_is_done_again(postgresql_url: str, store: SqlRuns) -> None:
    await store.create([new("run-1"), new("run-2")])
    other = await driver_of(PostgresSettings.from_url(postgresql_url)).connect()
    attempts: list[int] = []
    waits = anyio.Event()

    def crossing() -> Script[None]:
        yield Statement("SET LOCAL deadlock_timeout TO 10")()
        yield Statement(LOCK)("ours", "run-2")
        attempts.append(1)
        waits.set()
        yield Statement(LOCK)("ours", "run-1")

    await locked(other, "run-1")
    async with anyio.create_task_group() as tasks:

        async def ours() -> None:
            await store.database.write(crossing, sync=True)

        tasks.start_soon(ours)
        await waits.wait()
        await other.count(LOCK, ("theirs", "run-2"))
        await other.plain("COMMIT")
    other.terminate()
    assert len(attempts) > 1
    assert [run.meta for run in await store.get(["run-1", "run-2"]) if run is not None] == ["ours", "ours"]


async def test_what_waits_too_long_for_anothers_rows_is_told_so_and_nothing_is_written(postgresql_url: str, store: SqlRuns) -> None:
    await store.create([new("run-1")])
    other = await driver_of(PostgresSettings.from_url(postgresql_url)).connect()
    await locked(other, "run-1")
    with pytest.raises(StoreBusy, match="statement_timeout_s"):
        await store.signal("run-1", "m1", "topic", b"1")
    await other.plain("COMMIT")
    other.terminate()
    assert await store.inbox("run-1") == []
    assert (await store.signal("run-1", "m1", "topic", b"1")).answer == "accepted"


async def test_ids_created_at_the_same_time_by_many_are_created_once(postgresql_url: str, store: SqlRuns) -> None:
    answers: list[str] = []
    async with connected(postgresql_url) as other, anyio.create_task_group() as tasks:

        async def create(which: SqlRuns) -> None:
            answers.extend(created.answer for created in await which.create([new(f"run-{number}") for number in range(50)]))

        for which in (store, other) * 5:
            tasks.start_soon(create, which)
    assert (answers.count("created"), answers.count("exists")) == (50, 450)


async def test_a_caller_that_is_cancelled_leaves_its_transaction_whole(store: SqlRuns) -> None:
    for number in range(20):
        async with anyio.create_task_group() as tasks:

            async def create(run_id: str) -> None:
                await store.create([new(run_id), new(f"{run_id}-twin")])

            tasks.start_soon(create, f"run-{number}")
            for _ in range(number):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        one, twin = await store.get([f"run-{number}", f"run-{number}-twin"])
        assert (one is None) == (twin is None)
    assert (await store.create([new("after")]))[0].answer == "created"


async def test_what_the_server_cannot_hold_is_refused_and_nothing_is_written(store: SqlRuns) -> None:
    for wrong in (
        NewRun(run_id="run-2", kind="zero \0 byte", version="3", input=b""),
        new("run-2", seed=1 << 64),
        new("run-2", kind="\ud800"),
    ):
        with pytest.raises(StoreRefused, match="Nothing was written"):
            await store.create([new("run-1"), wrong])
    assert await store.get(["run-1", "run-2"]) == [None, None]


# The server goes, and comes back


async def test_what_was_acknowledged_survives_a_server_that_is_killed(driver: str) -> None:
    async with private(Postgresql, lasting=True) as server:
        url = server.url(server.new_database()).replace("postgresql://", f"postgresql+{driver}://")
        async with connected(url) as store:
            worker_id, run = await start(store, "run-1")
            await Sql(url).queue.open()
            for seq in range(1, 40):
                if seq == 20:
                    await anyio.to_thread.run_sync(server.kill)
                    await anyio.to_thread.run_sync(server.start)
                assert await insist(store, worker_id, [write(run, [entry(seq, b"%d" % seq)])]) == ["ok"]
            assert await journal(store, "run-1") == [b"%d" % seq for seq in range(1, 40)]
            with anyio.fail_after(10):
                assert await store.beat(worker_id) is not None


async def test_a_claim_survives_a_server_that_is_killed_so_its_number_is_never_given_again(driver: str) -> None:
    async with private(Postgresql, lasting=True) as server:
        url = server.url(server.new_database()).replace("postgresql://", f"postgresql+{driver}://")
        async with connected(url) as store:
            worker_id = await register(store)
            await store.create([new("run-1")])
            run = await claim(store, worker_id, "run-1")
            await anyio.to_thread.run_sync(server.kill)
            await anyio.to_thread.run_sync(server.start)
            with anyio.fail_after(10):
                assert await insist(store, worker_id, [write(run, [entry(1, b"1")])]) == ["ok"]


async def test_a_ticket_that_was_put_survives_a_server_that_is_killed() -> None:
    async with private(Postgresql, lasting=True) as server:
        url = server.url(server.new_database())
        queue = Sql(url).queue
        await queue.open()
        await queue.put([Ticket(f"run-{number}", "review", "3") for number in range(100)])
        await anyio.to_thread.run_sync(server.kill)
        await anyio.to_thread.run_sync(server.start)
        leases = await queue.lease(100, wait_s=5, lease_s=30, kinds={"review@3"})
        assert len(leases) == 100
        assert all(await queue.finish(leases))
        await queue.aclose()


async def test_a_server_without_room_for_another_connection_is_busy() -> None:
    async with private(Postgresql, max_connections="5", superuser_reserved_connections="0") as server:
        url = server.url(server.new_database())
        async with connected(url) as store:
            hogs = [await driver_of(PostgresSettings.from_url(url)).connect() for _ in range(4)]
            await store.register("worker-1", "", "")
            with pytest.raises(StoreBusy, match="connections"):
                await store.beat("worker-1")
            for hog in hogs:
                await hog.close()
            assert await store.beat("worker-1") is not None


async def test_an_outage_longer_than_a_lease_kills_nobody(postgresql_url: str) -> None:
    with Proxy(int(postgresql_url.rpartition(":")[2].partition("/")[0])) as proxy:
        url = f"{through(proxy, postgresql_url)}?{IMPATIENT}"
        settings = Settings(lease_s=LEASE_S)
        async with (
            Runtime(state=url, agents=[Patient], worker=True, settings=settings) as worker,
            Runtime(state=f"{url}&pool_size=3", agents=[Patient], worker=True, settings=settings) as other,
        ):
            handle = await worker.submit(Patient, 10, run_id="run-1")
            await until("three steps are done", Patient.under_way)
            before = {row.worker_id for row in await worker.store.workers()}
            proxy.cut(refuse=True)
            await anyio.sleep(1.5 * LEASE_S)
            proxy.heal()
            assert await handle.result(timeout_s=30) == 10
            [row] = await other.store.get(["run-1"])
            assert row is not None
            assert (row.fence, row.crashes) == (1, 0)
            assert {row.worker_id for row in await other.store.workers()} == before
