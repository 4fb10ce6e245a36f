"""The laws of the ports, on one server of Redis."""

from __future__ import annotations

import pytest

from agentkit_redis import Redis
from tests.adapters.laws import Backend, LimitLaws, QueueLaws, RunLaws, ValueLaws
from tests.adapters.scaling_laws import ScalingLaws


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
def backend(redis_url: str) -> Backend:
    return Backend(Redis, redis_url, own="max_connections=3")


class TestRedisRuns(RunLaws): ...


class TestRedisQueue(QueueLaws): ...


class TestRedisValues(ValueLaws): ...


class TestRedisLimits(LimitLaws): ...


class TestScaling(ScalingLaws): ...
