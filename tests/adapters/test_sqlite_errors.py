"""What goes wrong with a SQLite file, and what is said about it: typed, with the way out, and the connection goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import anyio
import pytest

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidKey, InvalidSetting, SchemaTooNew, StoreCorrupt, StoreRefused, StoreUnavailable
from agentkit.ports.records import NewRun
from agentkit.testing.queue_base import SERVED, ticket
from agentkit_sql import Sql, SqliteSettings, SqlRuns
from agentkit_sql.dialect import ROWS, Dialect, Script, SqliteDialect
from agentkit_sql.schema import FIRST, MIGRATIONS, migrate
from agentkit_sql.sqlite import connect, drive, translated
from tests.adapters.opening import opened
from tests.adapters.statements import WITHOUT_WEIGHTS


def run(run_id: str, body: bytes = b"{}") -> NewRun:
    return NewRun(run_id=run_id, kind="review", version="3", input=body)


def pragma(text: str) -> Script[object]:
    rows = yield f"PRAGMA {text}", (), ROWS
    return rows[0][0] if rows else None


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agents.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlRuns]:
    async with opened(Sql(f"sqlite:///{path}?busy_timeout_s=0.05").runs) as store:
        yield store


@pytest.mark.parametrize(
    ("url", "named", "way_out"),
    [
        ("nonsense", "url", "sqlite:///relative.db"),
        ("oracle://host/name", "url", "agentkit_sql serves"),
        ("sqlite://", "url", "memory://"),
        ("sqlite:///:memory:", "url", "memory://"),
        ("sqlite://folder/agents.db", "url", "three slashes"),
        ("sqlite:///agents.db?busy_timeout=3", "busy_timeout", "did you mean 'busy_timeout_s'?"),
        ("sqlite:///agents.db?busy_timeout_s=soon", "busy_timeout_s", "valid number"),
        ("sqlite:///agents.db?max_depth=0", "max_depth", "greater than or equal to 1"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_is_opened(url: str, named: str, way_out: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        Sql(url)
    assert refused.value.name == named
    assert way_out in str(refused.value)


def test_settings_are_read_from_the_url() -> None:
    settings = SqliteSettings.from_url("sqlite:////var/agents.db?busy_timeout_s=2.5&max_depth=7")
    assert (settings.path, settings.busy_timeout_s, settings.max_depth) == ("/var/agents.db", 2.5, 7)


@pytest.mark.parametrize("name", ["missing/agents.db", "", "nul\0.db"])
async def test_no_such_folder_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    runs = SqlRuns(SqliteSettings(path=f"{tmp_path}/{name}"))
    with pytest.raises(InvalidSetting):
        await runs.open()
    await runs.aclose()


async def test_a_folder_that_takes_no_file_is_a_wrong_setting() -> None:
    with pytest.raises(InvalidSetting, match="may write"):
        await Sql("sqlite:////proc/self/agents.db").runs.open()


def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"the minutes of the meeting, " * 100)
    with pytest.raises(StoreCorrupt, match="Restore it"):
        anyio.run(Sql(f"sqlite:///{path}").runs.open)
    assert path.read_bytes() == b"the minutes of the meeting, " * 100


async def test_a_damaged_file_says_so_and_harms_nobody_else(store: SqlRuns, path: Path) -> None:
    await store.create([run(f"run-{n}", b"x" * 4000) for n in range(50)])
    await store.database.read(lambda: pragma("wal_checkpoint(TRUNCATE)"))
    await store.database.read(lambda: pragma("shrink_memory"))
    await anyio.to_thread.run_sync(damage, path)
    with pytest.raises(StoreCorrupt, match=path.name):
        await store.get([f"run-{n}" for n in range(50)])


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    connection = connect(str(path), 1, SYSTEM)
    connection.execute(f"UPDATE schema_version SET version = {FIRST + 41}")
    with pytest.raises(SchemaTooNew) as refused:
        anyio.run(Sql(f"sqlite:///{path}").runs.open)
    assert (refused.value.found, "upgrade" in str(refused.value)) == (FIRST + 41, True)
    assert connection.execute("SELECT version FROM schema_version").fetchall() == [(FIRST + 41,)]
    connection.close()


def test_an_older_schema_is_brought_up_to_date_once(path: Path) -> None:
    def newest(_: Dialect) -> list[str]:
        return ["ALTER TABLE runs ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'"]

    connection = connect(str(path), 1, SYSTEM)
    for _ in range(2):
        drive(connection, migrate(SqliteDialect(SYSTEM), str(path), [*MIGRATIONS, newest]))
    assert connection.execute("SELECT version FROM schema_version").fetchall() == [(FIRST + len(MIGRATIONS) + 1,)]
    assert "colour" in {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
    connection.close()


async def test_the_tickets_of_a_file_from_before_there_were_weights_weigh_one(path: Path) -> None:
    async with opened(Sql(f"sqlite:///{path}").queue) as queue:
        await queue.put([ticket(1), ticket(2)])
        assert await queue.bury(await queue.lease(1, wait_s=0, lease_s=60, kinds=SERVED), "poison") == [True]
    as_of_old = sqlite3.connect(path, isolation_level=None)
    for statement in WITHOUT_WEIGHTS:
        as_of_old.execute(statement)
    as_of_old.close()
    async with opened(Sql(f"sqlite:///{path}").queue) as queue:
        assert await queue.redrive() == ["run-1"]
        await queue.put([ticket(3, weight=3)])
        leases = await queue.lease(3, wait_s=0, lease_s=60, kinds=SERVED)
    assert {lease.ticket for lease in leases} == {ticket(1), ticket(2), ticket(3, weight=3)}


async def test_a_file_locked_by_another_process_is_unavailable_until_it_is_free(store: SqlRuns, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another process holds the file's lock"):
        await store.create([run("run-1")])
    other.execute("ROLLBACK")
    other.close()
    assert [created.answer for created in await store.create([run("run-1")])] == ["created"]


async def test_a_full_disk_is_unavailable_and_what_was_durable_stays_readable(store: SqlRuns) -> None:
    await store.create([run("run-1")])
    pages = await store.database.read(lambda: pragma("page_count"))
    await store.database.read(lambda: pragma(f"max_page_count = {pages}"))
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await store.create([run("run-2", b"x" * 1_000_000)])
    assert [found is not None for found in await store.get(["run-1", "run-2"])] == [True, False]
    await store.database.read(lambda: pragma("max_page_count = 1000000"))
    assert [created.answer for created in await store.create([run("run-2")])] == ["created"]


async def test_what_sqlite_cannot_hold_is_refused_and_nothing_is_written(store: SqlRuns) -> None:
    with pytest.raises(StoreRefused, match="Nothing was written"):
        await store.create([run("run-1"), NewRun(run_id="run-2", kind="\ud800", version="3", input=b"")])
    with pytest.raises(StoreRefused, match="Nothing was written"):
        await store.create([run("run-1"), NewRun(run_id="run-2", kind="review", version="3", input=b"", seed=1 << 64)])
    with pytest.raises(StoreRefused, match="Nothing was written"):
        await store.create([run("run-1"), NewRun(run_id="run-2", kind=cast("str", object()), version="3", input=b"")])
    assert await store.get(["run-1", "run-2"]) == [None, None]


@pytest.mark.parametrize("run_id", ["", "x" * 513, "half \ud800", "zero \0 byte"])
async def test_a_run_id_that_no_store_could_keep_is_refused(store: SqlRuns, run_id: str) -> None:
    with pytest.raises(InvalidKey):
        await store.create([run(run_id)])


async def test_a_store_that_is_not_open_says_so(path: Path) -> None:
    runs = Sql(f"sqlite:///{path}").runs
    with pytest.raises(StoreUnavailable, match="not open"):
        await runs.get(["run-1"])


def test_a_write_to_a_read_only_file_names_the_way_out(path: Path) -> None:
    connect(str(path), 1, SYSTEM).close()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as refused:
        connection.execute("DELETE FROM runs")
    connection.close()
    told = translated(refused.value, str(path))
    assert isinstance(told, StoreUnavailable)
    assert "check its owner and mode" in str(told)
