"""The laws of limits, on Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentkit.testing.clock import FakeClock
from agentkit.testing.limits import LimitsContract
from agentkit_redis.limits import RedisLimits
from agentkit_redis.settings import RedisSettings


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


class TestRedisLimits(LimitsContract):
    @pytest.fixture
    async def store(self, redis_url: str, clock: FakeClock) -> AsyncIterator[RedisLimits]:
        store = RedisLimits(RedisSettings.from_url(redis_url), clock)
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: RedisLimits, redis_url: str, clock: FakeClock) -> AsyncIterator[RedisLimits]:
        """With other settings, so that it has connections of its own, as another process has."""
        second = RedisLimits(RedisSettings.from_url(f"{redis_url}?max_connections=3"), clock)
        await second.open()
        yield second
        await second.aclose()
