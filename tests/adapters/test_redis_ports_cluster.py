"""The laws of queue, values and limits, on a cluster of three: the keys of each script lie in one slot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from agentkit.testing.clock import FakeClock
from agentkit.testing.limits import LimitsContract
from agentkit.testing.queue import QueueContract
from agentkit.testing.values import ValuesContract
from agentkit_redis import Redis, RedisLimits, RedisQueue, RedisValues
from tests.servers.redis import redis_cluster


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="module")
async def nodes(servers_folder: None) -> AsyncIterator[str]:
    async with redis_cluster() as cluster:
        yield ",".join(f"127.0.0.1:{node.port}" for node in cluster)


@pytest.fixture
def url(nodes: str) -> str:
    return f"redis+cluster://{nodes}?prefix={uuid4().hex}"


class TestRedisClusterQueue(QueueContract):
    @pytest.fixture
    async def queue(self, url: str, clock: FakeClock) -> AsyncIterator[RedisQueue]:
        queue = Redis(f"{url}&max_depth={self.max_depth}", clock=clock).queue
        await queue.open()
        yield queue
        await queue.aclose()


class TestRedisClusterValues(ValuesContract):
    @pytest.fixture
    async def store(self, url: str, clock: FakeClock) -> AsyncIterator[RedisValues]:
        store = Redis(url, clock=clock).values
        await store.open()
        yield store
        await store.aclose()


class TestRedisClusterLimits(LimitsContract):
    @pytest.fixture
    async def store(self, url: str, clock: FakeClock) -> AsyncIterator[RedisLimits]:
        store = Redis(url, clock=clock).limits
        await store.open()
        yield store
        await store.aclose()
