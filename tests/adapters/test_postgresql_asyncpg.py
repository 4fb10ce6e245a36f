"""What asyncpg prepares, and when: a process stopped between Parse and Bind in a transaction would keep its locks for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from agentkit.ports.queue import Ticket
from agentkit.testing.runs_base import completed, entry, start, sweep, write
from agentkit_sql import Sql
from agentkit_sql.dialect import Script, Statement
from agentkit_sql.postgresql import PostgresSettings, driver_of
from agentkit_sql.postgresql_asyncpg import asyncpg
from agentkit_sql.server import Server

Prepared = list[tuple[str, bool]]
"""What was prepared, and whether in a transaction."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Prepared:
    seen: Prepared = []
    prepare = asyncpg.Connection.prepare

    async def spied(self: Any, query: str, **options: Any) -> Any:
        seen.append((query, self.is_in_transaction()))
        return await prepare(self, query, **options)

    monkeypatch.setattr(asyncpg.Connection, "prepare", spied)
    return seen


@pytest.fixture
async def server(postgresql_url: str) -> AsyncIterator[Server]:
    """With a table of the test's own."""
    settings = PostgresSettings.from_url(postgresql_url)
    server = Server("PostgreSQL", driver_of(settings), pool_size=2, answer_s=30)
    yield server
    await server.detach()


async def test_no_statement_is_prepared_in_a_transaction(postgresql_url: str, prepared: Prepared) -> None:
    made = Sql(f"{postgresql_url}?max_depth={uuid4().int % 1_000_000 + 1}")
    await made.runs.open()
    await made.queue.open()
    prepared.clear()  # a migration makes its tables in the transaction that fills them
    worker_id, run = await start(made.runs, "run-1")
    await made.runs.write(worker_id, [write(run, [entry(1)])])
    await made.runs.write(worker_id, [write(run, [entry(2)], release=completed())])
    await sweep(made.runs)
    await made.queue.put([Ticket("run-1", "review", "3")])
    assert await made.queue.finish(await made.queue.lease(1, wait_s=1, lease_s=30, kinds={"review@3"})) == [True]
    await made.queue.aclose()
    await made.runs.aclose()
    assert len(prepared) > 10
    assert [sql for sql, within in prepared if within] == []


async def test_a_transaction_that_makes_a_table_may_write_to_it(server: Server, prepared: Prepared) -> None:
    name = f"made_{uuid4().hex}"

    def made_and_filled() -> Script[list[Any]]:
        yield Statement(f"CREATE TABLE {name} (n integer)")()
        yield Statement(f"INSERT INTO {name} VALUES (?)")(7)
        rows: list[Any] = yield Statement(f"SELECT n FROM {name}")()
        return rows

    rows = await server.write(made_and_filled, sync=True)
    assert [tuple(row) for row in rows] == [(7,)]
    assert {within for _, within in prepared} == {False, True}


async def test_what_was_prepared_before_the_schema_changed_is_prepared_anew(server: Server) -> None:
    name = f"changed_{uuid4().hex}"

    def read() -> Script[list[Any]]:
        rows: list[Any] = yield Statement(f"SELECT * FROM {name}")()
        return rows

    def change(*lines: str) -> Script[None]:
        for line in lines:
            yield Statement(line)()

    await server.write(lambda: change(f"CREATE TABLE {name} (n integer)", f"INSERT INTO {name} VALUES (7)"), sync=True)
    assert [tuple(row) for row in await server.write(read, sync=True)] == [(7,)]
    await server.write(lambda: change(f"ALTER TABLE {name} ADD COLUMN m text DEFAULT 'new'"), sync=True)
    assert [tuple(row) for row in await server.write(read, sync=True)] == [(7, "new")]
    assert [tuple(row) for row in await server.read(read)] == [(7, "new")]
