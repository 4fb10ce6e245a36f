"""Runs created in the application's own transaction, on SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from agentkit.errors import InvalidSetting
from agentkit.testing.runs_base import new, sweep
from agentkit_sql import Sql, SqlRuns


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The application's driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlRuns]:
    store = Sql(f"sqlite:///{tmp_path}/agents.db").runs
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture
async def engine(store: SqlRuns, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/agents.db")
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
    yield engine
    await engine.dispose()


async def test_a_run_created_in_a_transaction_that_is_rolled_back_never_was(store: SqlRuns, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("INSERT INTO customers VALUES ('ann')")
        assert [created.answer for created in await store.create_within(connection, [new("run-1")])] == ["created"]
        await connection.rollback()
    assert await store.get(["run-1"]) == [None]


async def test_a_run_created_in_a_transaction_that_commits_is_found_by_the_sweep(store: SqlRuns, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        assert [created.answer for created in await store.create_within(session, [new("run-1")])] == ["created"]
        assert await store.get(["run-1"]) == [None], "nobody sees it before the commit"
        await session.commit()
    assert [ticket.run_id for ticket in (await sweep(store)).tickets] == ["run-1"]


async def test_a_transaction_on_another_file_is_refused(store: SqlRuns, tmp_path: Path) -> None:
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.db")
    async with other.connect() as connection:
        with pytest.raises(InvalidSetting, match="on the database that holds the runs"):
            await store.create_within(connection, [new("run-1")])
    await other.dispose()
