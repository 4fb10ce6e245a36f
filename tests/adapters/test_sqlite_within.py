"""Runs created in the application's own transaction, on SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agentkit_sql import Sql, SqlRuns
from tests.adapters.opening import opened
from tests.adapters.within_laws import WithinLaws


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The application's driver runs on asyncio alone."""
    return "asyncio"


class TestWithin(WithinLaws):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqlRuns]:
        async with opened(Sql(f"sqlite:///{tmp_path}/agents.db").runs) as store:
            yield store

    @pytest.fixture
    async def engine(self, store: SqlRuns, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/agents.db")
        async with engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
        yield engine
        await engine.dispose()

    @pytest.fixture
    async def elsewhere(self, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.db")
        yield engine
        await engine.dispose()
