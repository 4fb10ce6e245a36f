"""The laws of the queue, on Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentkit.testing.clock import FakeClock
from agentkit.testing.queue import QueueContract
from agentkit_redis.queue import RedisQueue
from agentkit_redis.settings import RedisSettings


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


class TestRedisQueue(QueueContract):
    @pytest.fixture
    def settings(self, redis_url: str) -> RedisSettings:
        return RedisSettings.from_url(f"{redis_url}?max_depth={self.max_depth}")

    @pytest.fixture
    async def queue(self, settings: RedisSettings, clock: FakeClock) -> AsyncIterator[RedisQueue]:
        queue = RedisQueue(settings, clock)
        await queue.open()
        yield queue
        await queue.aclose()

    @pytest.fixture
    async def second(self, queue: RedisQueue, settings: RedisSettings, clock: FakeClock) -> AsyncIterator[RedisQueue]:
        """With other settings, so that it has connections of its own, as another process has."""
        second = RedisQueue(settings.model_copy(update={"max_connections": 3}), clock)
        await second.open()
        yield second
        await second.aclose()
