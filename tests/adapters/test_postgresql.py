"""The laws of the ports, on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agentkit.testing.clock import FakeClock
from agentkit.testing.limits import LimitsContract
from agentkit.testing.queue import QueueContract
from agentkit.testing.runs import RunStoreContract
from agentkit.testing.values import ValuesContract
from agentkit_sql import Sql, SqlLimits, SqlQueue, SqlRuns, SqlValues


@pytest.fixture(scope="module", params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The drivers run on asyncio alone."""
    return "asyncio"


@pytest.fixture
def url(postgresql_url: str, driver: str) -> str:
    return postgresql_url.replace("postgresql://", f"postgresql+{driver}://")


class TestPostgresRuns(RunStoreContract):
    @pytest.fixture
    async def store(self, url: str, clock: FakeClock) -> AsyncIterator[SqlRuns]:
        store = Sql(url, clock=clock).runs
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: SqlRuns, url: str, clock: FakeClock) -> AsyncIterator[SqlRuns]:
        """With other settings, so that it has connections of its own, as another process has."""
        store = Sql(f"{url}?pool_size=3", clock=clock).runs
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


class TestPostgresQueue(QueueContract):
    @pytest.fixture
    async def queue(self, url: str, clock: FakeClock) -> AsyncIterator[SqlQueue]:
        queue = Sql(f"{url}?max_depth={self.max_depth}", clock=clock).queue
        await queue.open()
        yield queue
        await queue.aclose()

    @pytest.fixture
    async def second(self, queue: SqlQueue, url: str, clock: FakeClock) -> AsyncIterator[SqlQueue]:
        queue = Sql(f"{url}?max_depth={self.max_depth}&pool_size=3", clock=clock).queue
        await queue.open()
        yield queue
        await queue.aclose()


class TestPostgresValues(ValuesContract):
    @pytest.fixture
    async def store(self, url: str, clock: FakeClock) -> AsyncIterator[SqlValues]:
        store = Sql(url, clock=clock).values
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: SqlValues, url: str, clock: FakeClock) -> AsyncIterator[SqlValues]:
        store = Sql(f"{url}?pool_size=3", clock=clock).values
        await store.open()
        yield store
        await store.aclose()


class TestPostgresLimits(LimitsContract):
    @pytest.fixture
    async def store(self, url: str, clock: FakeClock) -> AsyncIterator[SqlLimits]:
        store = Sql(url, clock=clock).limits
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: SqlLimits, url: str, clock: FakeClock) -> AsyncIterator[SqlLimits]:
        store = Sql(f"{url}?pool_size=3", clock=clock).limits
        await store.open()
        yield store
        await store.aclose()
