"""The laws of the run store, on Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agentkit.testing.clock import FakeClock
from agentkit.testing.runs import RunStoreContract
from agentkit_redis.runs import RedisRuns, from_url


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver needs asyncio."""
    return "asyncio"


class TestRedisRuns(RunStoreContract):
    @pytest.fixture
    async def store(self, redis_url: str, clock: FakeClock) -> AsyncIterator[RedisRuns]:
        store = from_url(redis_url, clock=clock)
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: RedisRuns, redis_url: str, clock: FakeClock) -> AsyncIterator[RedisRuns]:
        """With other settings, so that it has connections of its own, as another process has."""
        store = from_url(f"{redis_url}?timeout_s=6", clock=clock)
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def reopen(self, store: RedisRuns) -> Callable[[], Awaitable[RedisRuns]]:
        async def reopened() -> RedisRuns:
            await store.aclose()
            await store.open()
            return store

        return reopened
