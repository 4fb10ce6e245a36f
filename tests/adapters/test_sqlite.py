"""The laws of the ports, on SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agentkit.testing.clock import FakeClock
from agentkit.testing.limits import LimitsContract
from agentkit.testing.queue import QueueContract
from agentkit.testing.runs import RunStoreContract
from agentkit.testing.values import ValuesContract
from agentkit_sql import Sql, SqlLimits, SqlQueue, SqlRuns, SqlValues


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


class TestSqliteRuns(RunStoreContract):
    @pytest.fixture
    async def store(self, url: str, clock: FakeClock) -> AsyncIterator[SqlRuns]:
        store = Sql(url, clock=clock).runs
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: SqlRuns, url: str, clock: FakeClock) -> AsyncIterator[SqlRuns]:
        """With other settings, so that it has a connection of its own, as another process has."""
        store = Sql(f"{url}?busy_timeout_s=6", clock=clock).runs
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def reopen(self, store: SqlRuns) -> Callable[[], Awaitable[SqlRuns]]:
        async def reopened() -> SqlRuns:
            await store.aclose()
            await store.open()
            return store

        return reopened


class TestSqliteQueue(QueueContract):
    @pytest.fixture
    async def queue(self, url: str, clock: FakeClock) -> AsyncIterator[SqlQueue]:
        queue = Sql(f"{url}?max_depth={self.max_depth}", clock=clock).queue
        await queue.open()
        yield queue
        await queue.aclose()

    @pytest.fixture
    async def second(self, queue: SqlQueue, url: str, clock: FakeClock) -> AsyncIterator[SqlQueue]:
        queue = Sql(f"{url}?max_depth={self.max_depth}&busy_timeout_s=6", clock=clock).queue
        await queue.open()
        yield queue
        await queue.aclose()


class TestSqliteValues(ValuesContract):
    @pytest.fixture
    async def store(self, url: str, clock: FakeClock) -> AsyncIterator[SqlValues]:
        store = Sql(url, clock=clock).values
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: SqlValues, url: str, clock: FakeClock) -> AsyncIterator[SqlValues]:
        store = Sql(f"{url}?busy_timeout_s=6", clock=clock).values
        await store.open()
        yield store
        await store.aclose()


class TestSqliteLimits(LimitsContract):
    @pytest.fixture
    async def store(self, url: str, clock: FakeClock) -> AsyncIterator[SqlLimits]:
        store = Sql(url, clock=clock).limits
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: SqlLimits, url: str, clock: FakeClock) -> AsyncIterator[SqlLimits]:
        store = Sql(f"{url}?busy_timeout_s=6", clock=clock).limits
        await store.open()
        yield store
        await store.aclose()
