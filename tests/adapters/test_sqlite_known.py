"""What a flush remembers of the file, and what makes it look again; and the copying of the log beside the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit.errors import StoreRefused, StoreUnavailable, WorkerFenced
from agentkit.ports.records import Entry, EntryKind, NewRun, Release, RunStatus, RunWrite, Written
from agentkit_sql import Sql, SqlRuns
from agentkit_sql import sqlite as sqlite_thread
from agentkit_sql.database import Database
from agentkit_sql.sqlite import Job, Owner
from tests.adapters.opening import opened

ME, RUN = "me", "run-1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agents.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlRuns]:
    async with opened(Sql(f"sqlite:///{path}").runs) as store:
        yield store


@pytest.fixture
async def abroad(path: Path) -> AsyncIterator[SqlRuns]:
    """Another connection to the file: with other settings nothing is shared."""
    async with opened(Sql(f"sqlite:///{path}?busy_timeout_s=4").runs) as store:
        yield store


def entry(seq: int, body: bytes = b"1") -> Entry:
    return Entry(seq, EntryKind.RESULT, f"step#{seq}", 1, "", 0, body, 0, 0)


class Uncommitted:
    """A connection whose disk fails when it commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *params: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, *params)


async def claimed(store: SqlRuns, run_id: str = RUN) -> None:
    await store.create([NewRun(run_id=run_id, kind="work", version="1", input=b"1")])
    await store.register(ME, "work@1", "here")
    await store.claim(ME, [run_id], {"work": {"1"}})


async def flushed(store: SqlRuns, *seqs: int, run_id: str = RUN, fence: int = 1) -> Written:
    (written,) = await store.write(ME, [RunWrite(run_id, fence, [entry(seq) for seq in seqs])])
    return written


def size(path: Path) -> int:
    """Of the file alone, without its log."""
    return path.stat().st_size


def remembered(store: SqlRuns) -> set[object]:
    database = store.database
    assert isinstance(database, Database)
    return set(database.known)


async def test_a_flush_remembers_its_claims_for_the_next_one(store: SqlRuns) -> None:
    await claimed(store)
    assert await flushed(store, 1) == Written("ok", 0)
    assert remembered(store) == {(ME, RUN)}
    assert await flushed(store, 2, 3) == Written("ok", 0)
    assert [e.seq for e in await store.load(RUN)] == [1, 2, 3]


async def test_a_signal_from_another_connection_is_told_by_the_next_flush(store: SqlRuns, abroad: SqlRuns) -> None:
    await claimed(store)
    await flushed(store, 1)
    await abroad.signal(RUN, "m1", "topic", b"1")
    assert await flushed(store, 2) == Written("ok", 1)


async def test_a_signal_on_this_connection_is_told_by_the_next_flush(store: SqlRuns) -> None:
    await claimed(store)
    await flushed(store, 1)
    await store.signal(RUN, "m1", "topic", b"1")
    assert await flushed(store, 2) == Written("ok", 1)


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_after_a_take_over_the_next_flush_writes_nothing(store: SqlRuns, abroad: SqlRuns, *, elsewhere: bool) -> None:
    await claimed(store)
    await flushed(store, 1)
    other = abroad if elsewhere else store
    beats = (await other.sweep({}, max_crashes=3, lost_after_s=1e9, limit=10)).beats
    await other.sweep({ME: beats[ME]}, max_crashes=3, lost_after_s=1e9, limit=10)
    with pytest.raises(WorkerFenced):
        await flushed(store, 2)
    assert [e.seq for e in await abroad.load(RUN)] == [1]


async def test_what_was_sent_before_lands_once_and_a_gap_never(store: SqlRuns) -> None:
    await claimed(store)
    await flushed(store, 1)
    assert await flushed(store, 1, 2) == Written("ok", 0)
    assert (await flushed(store, 4)).verdict == "lost"
    assert await flushed(store, 3) == Written("ok", 0)
    assert [e.seq for e in await store.load(RUN)] == [1, 2, 3]


async def test_another_fence_or_another_worker_is_looked_up(store: SqlRuns) -> None:
    await claimed(store)
    await flushed(store, 1)
    assert (await flushed(store, 2, fence=2)).verdict == "lost"
    await store.register("other", "work@1", "here")
    (written,) = await store.write("other", [RunWrite(RUN, 1, [entry(2)])])
    assert written.verdict == "lost"
    assert await flushed(store, 2) == Written("ok", 0)


async def test_a_flush_that_is_refused_leaves_nothing_behind_in_memory(store: SqlRuns) -> None:
    await claimed(store)
    await flushed(store, 1)
    unfit = entry(2)._replace(seq=2, at_ms=2**70)
    with pytest.raises(StoreRefused):
        await store.write(ME, [RunWrite(RUN, 1, [unfit])])
    assert remembered(store) == set()
    assert await flushed(store, 2) == Written("ok", 0)
    assert [e.seq for e in await store.load(RUN)] == [1, 2]


async def test_a_flush_whose_commit_failed_leaves_nothing_behind_in_memory(store: SqlRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    await claimed(store)
    await flushed(store, 1)
    carry_out = vars(Owner)["_carry_out"]

    def failing(owner: Owner, jobs: list[Job[Any]]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(owner, "_connection", Uncommitted(vars(owner)["_connection"]))
            carry_out(owner, jobs)

    with monkeypatch.context() as patch:
        patch.setattr(Owner, "_carry_out", failing)
        with pytest.raises(StoreUnavailable):
            await flushed(store, 2)
    assert (await flushed(store, 3)).verdict == "lost", "the second entry is not there"
    assert await flushed(store, 2) == Written("ok", 0)
    assert [e.seq for e in await store.load(RUN)] == [1, 2]


async def test_a_released_claim_is_forgotten(store: SqlRuns) -> None:
    await claimed(store)
    await flushed(store, 1)
    await store.write(ME, [RunWrite(RUN, 1, [entry(2)], release=Release(RunStatus.COMPLETED, result=b"1"))])
    assert remembered(store) == set()
    assert (await flushed(store, 3)).verdict == "lost"


async def test_the_log_is_copied_beside_the_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_thread, "COMMITS_BETWEEN_COPIES", 4)
    monkeypatch.setattr(sqlite_thread, "CHECKPOINT_PAGES", 1_000_000)
    async with opened(Sql(f"sqlite:///{path}").runs) as store:
        await claimed(store)
        before, seq = size(path), 0
        with anyio.fail_after(30):
            while size(path) <= before:
                seq += 1
                await flushed(store, seq)
