"""What happens on MariaDB when something breaks, and what its own habits must not do to us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import anyio
import anyio.to_thread
import pytest

from agentkit import Agent, Context, Runtime
from agentkit.errors import (
    StoreBusy,
    StoreRefused,
    StoreUnavailable,
)
from agentkit.ports.records import RunStatus
from agentkit.runtime.settings import Settings
from agentkit.testing.contract import race
from agentkit.testing.crash import until
from agentkit.testing.runs_base import bodies, completed, create, entries, entry, get, reap, register, start, statuses, sweep, write
from agentkit_sql import Sql, SqlRuns
from agentkit_sql.dialect import Script, Statement
from tests.adapters.opening import HASTY, opened
from tests.servers.mariadb import Mariadb
from tests.servers.process import REPOSITORY, private
from tests.servers.proxy import Proxy


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def store(mariadb_url: str) -> AsyncIterator[SqlRuns]:
    async with opened(Sql(f"{mariadb_url}?{HASTY}").runs) as store:
        yield store


@asynccontextmanager
async def through_a_proxy(mariadb: Mariadb, url: str) -> AsyncGenerator[tuple[SqlRuns, Proxy]]:
    """A store, and the proxy between it and its server."""
    with Proxy(mariadb.port) as proxy:
        async with opened(Sql(url.replace(f":{mariadb.port}/", f":{proxy.port}/") + f"?{HASTY}").runs) as store:
            yield store, proxy


async def test_a_deadlock_undoes_one_transaction_whole_and_it_is_run_again(store: SqlRuns) -> None:
    await create(store, "a")
    await create(store, "b")
    count, pause = Statement("UPDATE runs SET crashes = crashes + 1 WHERE run_id = ?"), Statement("SELECT sleep(0.2)")
    tries = 0

    def work(first: str, second: str) -> Script[None]:
        nonlocal tries
        tries += 1
        yield count(first)
        yield pause()  # until the other one has its first
        yield count(second)

    async def both(first: str, second: str) -> None:
        await store.database.write(lambda: work(first, second), sync=True)

    assert await race(lambda: both("a", "b"), lambda: both("b", "a")) == [None, None]
    assert tries == 3
    assert [run.crashes for run in await store.get(["a", "b"]) if run] == [2, 2]


async def test_a_row_locked_for_too_long_is_an_error_that_says_so_and_nothing_was_written(
    mariadb: Mariadb, mariadb_url: str, store: SqlRuns
) -> None:
    await create(store, "run-1")
    with mariadb.connect(mariadb_url.rsplit("/", 1)[1]) as other:
        other.begin()
        other.cursor().execute("SELECT * FROM runs FOR UPDATE")
        with pytest.raises(StoreBusy, match="look for what holds its rows"):
            await store.signal("run-1", "m", "topic", b"1")
        other.rollback()
    assert (await store.signal("run-1", "m", "topic", b"1")).answer == "accepted"


async def test_a_commit_whose_answer_is_lost_is_sent_again_and_lands_once(mariadb: Mariadb, mariadb_url: str) -> None:
    async with through_a_proxy(mariadb, mariadb_url) as (store, proxy):
        worker_id, run = await start(store, "run-1")
        for seq, cut in ((1, proxy.cut_after), (2, proxy.cut_before)):
            batch = [write(run, [entry(seq, b"%d" % seq)], clear_crashes=True)]  # more than entries: in a transaction
            happened = cut(b"COMMIT")
            with pytest.raises(StoreUnavailable):
                await store.write(worker_id, batch)
            assert happened.is_set()
            for _ in range(2):
                [written] = await store.write(worker_id, batch)
                assert written.verdict == "ok"
        assert await bodies(store, "run-1") == [b"1", b"2"]


async def test_a_flush_in_one_statement_whose_answer_is_lost_is_looked_into_at_once_and_lands_once(
    mariadb: Mariadb, mariadb_url: str
) -> None:
    async with through_a_proxy(mariadb, mariadb_url) as (store, proxy):
        worker_id, run = await start(store, "run-1")
        await store.write(worker_id, [write(run, [entry(1, b"1")])])
        for seq, cut in ((2, proxy.cut_after), (3, proxy.cut_before)):
            happened = cut(b"result %d" % seq)
            for _ in range(2):
                [written] = await store.write(worker_id, [write(run, [entry(seq, b"result %d" % seq)])])
                assert written.verdict == "ok"
            assert happened.is_set()
        assert await bodies(store, "run-1") == [b"1", b"result 2", b"result 3"]


async def test_a_release_whose_answer_is_lost_is_sent_again_and_lands_once(mariadb: Mariadb, mariadb_url: str) -> None:
    async with through_a_proxy(mariadb, mariadb_url) as (store, proxy):
        worker_id, run = await start(store, "run-1")
        proxy.cut_after(b"COMMIT")
        with pytest.raises(StoreUnavailable):
            await store.write(worker_id, [write(run, [entry(1)], release=completed())])
        [written] = await store.write(worker_id, [write(run, [entry(1)], release=completed())])
        assert written.verdict == "ok"
        assert (await get(store, "run-1")).status == RunStatus.COMPLETED


async def test_connections_that_died_while_idle_are_replaced_unnoticed(mariadb: Mariadb, mariadb_url: str) -> None:
    async with through_a_proxy(mariadb, mariadb_url) as (store, proxy):
        worker_id, run = await start(store, "run-1")
        for seq in (1, 2):
            await store.write(worker_id, [write(run, [entry(seq)])])
            proxy.cut()
        assert await store.beat(worker_id) is not None
        assert len(await store.load("run-1")) == 2


async def test_what_was_acknowledged_survives_kill_9_of_the_server_and_the_store_goes_on() -> None:
    async with private(Mariadb, lasting=True) as server:
        store = Sql(f"{server.url(server.new_database())}?{HASTY}").runs
        await store.open()
        worker_id, run = await start(store, "run-1")
        acknowledged = 0

        async def write_on() -> None:
            nonlocal acknowledged
            while acknowledged < 400:
                try:
                    [written] = await store.write(worker_id, [write(run, [entry(acknowledged + 1)])])
                except StoreUnavailable:
                    await anyio.sleep(0.02)
                else:
                    assert written.verdict == "ok"
                    acknowledged += 1

        async with anyio.create_task_group() as group:
            group.start_soon(write_on)
            for _ in range(2):
                target = acknowledged + 50

                async def far_enough(target: int = target) -> bool:
                    return acknowledged >= target

                await until("writes", far_enough)
                await anyio.to_thread.run_sync(server.kill)
                await anyio.to_thread.run_sync(server.start)
        assert [each.seq for each in await store.load("run-1")] == list(range(1, 401))
        await store.aclose()


def started(arguments: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log)


async def test_a_process_stopped_inside_a_flush_is_taken_over_and_writes_nothing_afterwards(
    mariadb_url: str, store: SqlRuns, tmp_path: Path
) -> None:
    await create(store, "run-1")
    arguments = [sys.executable, "-m", "tests.adapters.stopped_in_a_flush", f"{mariadb_url}?{HASTY}"]
    with (tmp_path / "log").open("wb") as log, started(arguments, log) as child:
        try:

            async def stopped() -> bool:
                state = await anyio.to_thread.run_sync(
                    lambda: subprocess.check_output(["ps", "-o", "stat=", "-p", str(child.pid)], text=True)
                )
                return state.startswith("T")

            await until("the child stands still", stopped)

            async def taken_over() -> bool:
                try:
                    await reap(store, "worker-that-stops")
                except StoreUnavailable:  # it holds its rows for as long as the server lets it
                    return False
                except KeyError:  # declared dead by the call before, whose answer was lost
                    await sweep(store)
                return await statuses(store, ["run-1"]) == [RunStatus.READY]

            await until("the run is taken over", taken_over)
            os.kill(child.pid, signal.SIGCONT)
            answer, _ = await anyio.to_thread.run_sync(child.communicate)
        finally:
            child.kill()
    assert answer.decode().strip() in {"StoreUnavailable", "StoreBusy", "WorkerFenced"}, (tmp_path / "log").read_text()
    assert len(await store.load("run-1")) == 1
    worker_id = await register(store)
    [claimed] = await store.claim(worker_id, ["run-1"], {"review": frozenset({"3"})})
    assert not isinstance(claimed, str)


class Waiting(Agent[int, int]):
    """Works for as long as it is told."""

    async def run(self, ctx: Context, input: int) -> int:
        for number in range(input):
            await ctx.step("wait", wait, number)
        return input


async def wait(number: int) -> int:
    await anyio.sleep(0.5)
    return number


@pytest.mark.blocks_the_loop("a server that stands still is looked for by ps")
async def test_an_outage_longer_than_a_lease_kills_nobody() -> None:
    async with private(Mariadb) as server:
        url = f"{server.url(server.new_database())}?{HASTY}"
        lease_s = Sql(url).runs.min_lease_s
        sql = Sql(url)
        settings = Settings(lease_s=lease_s)
        results: list[int] = []
        async with (
            Runtime(state=sql.runs, queue=sql.queue, values=sql.values, limits=sql.limits, agents=[Waiting], settings=settings) as runtime,
            anyio.create_task_group() as group,
        ):

            async def work() -> None:
                results.append(await runtime.run(Waiting, 20, run_id="run-1"))

            group.start_soon(work)
            await anyio.sleep(1)
            server.pause()
            await anyio.sleep(1.5 * lease_s)
            server.resume()
        assert results == [20]
        store = Sql(url).runs
        await store.open()
        run = await get(store, "run-1")
        assert (run.fence, run.crashes) == (1, 0)
        await store.aclose()


async def test_a_value_over_the_packet_limit_is_refused_with_both_sizes_and_its_neighbours_are_not() -> None:
    async with private(Mariadb, max_allowed_packet="1M") as server:
        store = Sql(server.url(server.new_database())).runs
        await store.open()
        worker_id, run = await start(store, "run-1")
        _, other = await start(store, "run-2", worker_id)
        with pytest.raises(StoreRefused, match=r"statement of \d+ bytes; it reads up to \d+ \(max_allowed_packet\)"):
            await store.write(worker_id, [write(run, [entry(1, b"x" * 1_100_000)])])
        for rows in (entries(range(1, 10)), [entry(10, b"x" * 600_000), entry(11, b"y" * 600_000)]):
            [written] = await store.write(worker_id, [write(run, rows)])
            assert written.verdict == "ok"
        [written] = await store.write(worker_id, [write(other, [entry(1)])])
        assert written.verdict == "ok"
        assert len(await store.load("run-1")) == 11
        await store.aclose()
