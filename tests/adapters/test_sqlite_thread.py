"""The thread that owns a SQLite connection: who shares it, what it commits together, and what cannot harm it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import current_token
from sqlalchemy import create_engine

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidSetting, StoreRefused, StoreUnavailable
from agentkit.ports.queue import Lease, Ticket
from agentkit.ports.records import Entry, NewRun, RunWrite
from agentkit.tasks import Home
from agentkit_sql import Sql, SqlRuns
from agentkit_sql.dialect import COUNT, ROWS, Script
from agentkit_sql.sqlite import Checkpointer, Job, Owner, connect
from tests.adapters.opening import opened

TOPIC = "runs"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agents.db")


@pytest.fixture
async def store(path: str) -> AsyncIterator[SqlRuns]:
    async with opened(Sql(f"sqlite:///{path}").runs) as store:
        yield store


class Commits:
    """An owner of a connection, and how often it committed."""

    def __init__(self, path: str) -> None:
        self.topics: list[str] = []
        self.owner = Owner(path, connect(path, 1, SYSTEM), self.topics.append)

    def job(self, script: Script[Any], loop: Any = None) -> Job[Any]:
        job = Job(script, loop or current_token().native_token, Home().gate(), write=True, sync=True, topic=TOPIC)
        self.owner.put(job)
        return job


@pytest.fixture
def commits(path: str) -> Iterator[Commits]:
    commits = Commits(path)
    yield commits
    commits.owner.stop()


def hold(until: threading.Event) -> Script[None]:
    until.wait(10)
    yield "SELECT 1", (), ROWS


def value(key: str) -> Script[None]:
    yield "INSERT INTO documents VALUES (?, x'', 1, NULL)", (key,), COUNT


def refused(key: str) -> Script[None]:
    yield from value(key)
    raise StoreRefused(key)


def keys() -> Script[list[str]]:
    rows = yield "SELECT key FROM documents WHERE key <> '' ORDER BY key", (), ROWS
    return [row[0] for row in rows]


async def test_what_comes_during_a_commit_is_committed_together(commits: Commits) -> None:
    free = threading.Event()
    first = commits.job(hold(free))
    jobs = [commits.job(value(f"k{n}")) for n in range(10)]
    free.set()
    for job in (first, *jobs):
        await job.gate.wait()
        assert job.error is None
    assert len(commits.topics) <= 2


async def test_an_error_undoes_its_own_job_alone(commits: Commits) -> None:
    free = threading.Event()
    commits.job(hold(free))
    jobs = [commits.job(script) for script in (value("a"), refused("b"), value("a"), value("c"))]
    free.set()
    for job in jobs:
        await job.gate.wait()
    assert [type(job.error) for job in jobs] == [type(None), StoreRefused, StoreRefused, type(None)]
    found = commits.job(keys())
    await found.gate.wait()
    assert found.result == ["a", "c"]


async def test_an_error_alone_in_its_transaction_leaves_the_connection_usable(commits: Commits) -> None:
    for script in (refused("a"), value("b")):
        await commits.job(script).gate.wait()
    found = commits.job(keys())
    await found.gate.wait()
    assert found.result == ["b"]


async def test_a_caller_whose_event_loop_has_ended_harms_nobody(commits: Commits) -> None:
    ended = asyncio.new_event_loop()
    ended.close()
    commits.job(value("a"), ended)
    found = commits.job(keys())
    await found.gate.wait()
    assert found.result == ["a"]


async def test_a_job_that_comes_after_the_end_is_refused(commits: Commits) -> None:
    await anyio.to_thread.run_sync(commits.owner.stop)
    late = commits.job(value("a"))
    with anyio.fail_after(10):
        await late.gate.wait()
    assert isinstance(late.error, StoreUnavailable)


async def test_what_is_begun_takes_effect_though_its_caller_is_cancelled(store: SqlRuns) -> None:
    free = threading.Event()
    held = store.database.read(lambda: hold(free))
    async with anyio.create_task_group() as group:

        async def wait_in_vain() -> None:
            await held

        async def create() -> None:
            await store.create([NewRun(run_id="run-1", kind="a", version="1", input=b"")])

        group.start_soon(wait_in_vain)
        group.start_soon(create)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        free.set()
    assert (await store.get(["run-1"]))[0] is not None


async def test_event_loops_of_several_threads_share_the_connection(store: SqlRuns) -> None:
    await store.register("worker-1", "", "")

    def beat() -> int:
        async def beats() -> int:
            return sum([await store.beat("worker-1") is not None for _ in range(20)])

        return anyio.run(beats)

    with ThreadPoolExecutor() as pool:
        threads = [pool.submit(beat) for _ in range(3)]
        for _ in range(20):
            await store.beat("worker-1")
        done = await anyio.to_thread.run_sync(lambda: [thread.result(20) for thread in threads])
    assert done == [20, 20, 20]
    swept = await store.sweep({}, max_crashes=3, lost_after_s=60, limit=10)
    assert swept.beats == {"worker-1": 80}


async def test_all_ports_of_one_file_share_one_connection_however_it_is_named(path: str, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    one, other = Sql(f"sqlite:///{path}"), Sql(f"sqlite:///{link}")
    ports = (one.runs, one.queue, one.values, one.limits, other.runs)
    for port in ports:
        await port.open()
    assert len({id(port.database) for port in ports}) == 1
    for port in ports[1:]:
        await port.aclose()
    assert await one.runs.get(["run-1"]) == [None]
    await one.runs.aclose()


async def test_a_port_can_be_opened_again_after_it_was_closed(store: SqlRuns, path: str) -> None:
    await store.create([NewRun(run_id="run-1", kind="a", version="1", input=b"")])
    await store.aclose()
    await store.open()
    assert (await store.get(["run-1"]))[0] is not None


def test_ten_that_open_a_new_file_at_once_make_it_once(path: str) -> None:
    barrier = threading.Barrier(10)

    def first(_: int) -> int:
        barrier.wait()
        connection = connect(path, 10, SYSTEM)
        [(rows,)] = connection.execute("SELECT count(*) FROM queue_state").fetchall()
        connection.close()
        return int(rows)

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(first, range(10))) == [1] * 10


async def test_a_durable_write_waits_for_the_disk_and_a_relaxed_one_does_not(store: SqlRuns) -> None:
    def synchronous() -> Script[int]:
        [(level,)] = yield "PRAGMA synchronous", (), ROWS
        return int(level)

    await store.register("worker-1", "", "")
    await store.create([NewRun(run_id="run-1", kind="a", version="1", input=b"")])
    await store.claim("worker-1", ["run-1"], {"a": {"1"}})
    for seq, (sync, level) in enumerate([(True, 2), (False, 1), (True, 2)], 1):
        entry = Entry(seq, 1, "step", 1, "", 0, b"", 0, 0)
        [written] = await store.write("worker-1", [RunWrite("run-1", 1, [entry])], sync=sync)
        assert (written.verdict, await store.database.read(synchronous)) == ("ok", level)


async def test_changes_of_this_process_and_of_others_are_noticed(store: SqlRuns, path: str) -> None:
    other = Sql(f"sqlite:///{path}?busy_timeout_s=6").runs
    await other.open()
    seen = before = await store.changed(0, 0)
    for number, writer in enumerate((store, other)):
        async with anyio.create_task_group() as group:

            async def create(run_id: str, writer: SqlRuns) -> None:
                await anyio.wait_all_tasks_blocked()
                await writer.create([NewRun(run_id=run_id, kind="a", version="1", input=b"")])

            group.start_soon(create, f"run-{number}", writer)
            seen = await store.changed(before, 30)
        assert seen != before
        before = seen
    await other.aclose()


async def test_an_idle_queue_hears_of_a_ticket_put_by_another_process(path: str) -> None:
    mine, other = (Sql(f"sqlite:///{path}?busy_timeout_s={seconds}").queue for seconds in (5, 6))
    await mine.open()
    await other.open()
    leases: list[Lease] = []
    async with anyio.create_task_group() as group:

        async def put() -> None:
            await anyio.wait_all_tasks_blocked()
            await other.put([Ticket("run-1", "a", "1")])

        group.start_soon(put)
        leases = await mine.lease(1, wait_s=30, lease_s=10, kinds={"a@1"})
    assert [lease.ticket.run_id for lease in leases] == ["run-1"]
    await mine.aclose()
    await other.aclose()


def test_one_connection_at_a_time_moves_the_log_into_the_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit_sql.sqlite.FREE_CHECKPOINTS_SINCE", (999,))
    connections = [connect(path, 1, SYSTEM) for _ in range(2)]
    candidates = [Checkpointer(path) for _ in range(2)]

    def checkpointing() -> list[bool]:
        return [connection.execute("PRAGMA wal_autocheckpoint").fetchall() != [(0,)] for connection in connections]

    for candidate, connection in zip(candidates, connections, strict=True):
        candidate.stand(connection)
    assert checkpointing() == [True, False]
    candidates[0].resign()
    candidates[1].stand(connections[1])
    assert checkpointing() == [True, True]
    candidates[1].resign()
    for connection in connections:
        connection.close()


async def test_an_application_may_hand_in_its_own_engine(path: str) -> None:
    engine = create_engine(f"sqlite:///{path}")
    sql = Sql(engine)
    await sql.values.open()
    await sql.values.put("k", b"v")
    await sql.values.aclose()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT value FROM documents WHERE key = 'k'").fetchall() == [(b"v",)]
    engine.dispose()
    with pytest.raises(InvalidSetting, match="memory://"):
        Sql(create_engine("sqlite://"))
