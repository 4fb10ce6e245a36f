"""The laws of values, on Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentkit.testing.clock import FakeClock
from agentkit.testing.values import ValuesContract
from agentkit_redis.settings import RedisSettings
from agentkit_redis.values import RedisValues


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


class TestRedisValues(ValuesContract):
    @pytest.fixture
    async def store(self, redis_url: str, clock: FakeClock) -> AsyncIterator[RedisValues]:
        store = RedisValues(RedisSettings.from_url(redis_url), clock)
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: RedisValues, redis_url: str, clock: FakeClock) -> AsyncIterator[RedisValues]:
        """With other settings, so that it has connections of its own, as another process has."""
        second = RedisValues(RedisSettings.from_url(f"{redis_url}?max_connections=3"), clock)
        await second.open()
        yield second
        await second.aclose()
