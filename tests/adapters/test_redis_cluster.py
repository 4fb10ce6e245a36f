"""The laws of the run store, on a cluster of three: the keys of each script lie in one slot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest

from agentkit.testing.clock import FakeClock
from agentkit.testing.runs import RunStoreContract
from agentkit_redis.runs import RedisRuns, from_url
from tests.servers.redis import redis_cluster


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver needs asyncio."""
    return "asyncio"


@pytest.fixture(scope="module")
async def nodes(servers_folder: None) -> AsyncIterator[str]:
    async with redis_cluster() as cluster:
        yield ",".join(f"127.0.0.1:{node.port}" for node in cluster)


@pytest.fixture
def url(nodes: str) -> str:
    return f"redis+cluster://{nodes}?prefix={uuid4().hex}"


class TestRedisClusterRuns(RunStoreContract):
    @pytest.fixture
    async def store(self, url: str, clock: FakeClock) -> AsyncIterator[RedisRuns]:
        store = from_url(url, clock=clock)
        await store.open()
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, store: RedisRuns, url: str, clock: FakeClock) -> AsyncIterator[RedisRuns]:
        store = from_url(f"{url}&timeout_s=6", clock=clock)
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
