"""The laws of the ports, on PostgreSQL."""

from __future__ import annotations

import pytest

from agentkit_sql import Sql
from tests.adapters.laws import Backend, LimitLaws, QueueLaws, RunLaws, ValueLaws
from tests.adapters.scaling_laws import ScalingLaws


@pytest.fixture(scope="module", params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The drivers run on asyncio alone."""
    return "asyncio"


@pytest.fixture
def backend(postgresql_url: str, driver: str) -> Backend:
    return Backend(Sql, postgresql_url.replace("postgresql://", f"postgresql+{driver}://"), own="pool_size=3")


class TestPostgresRuns(RunLaws): ...


class TestPostgresQueue(QueueLaws): ...


class TestPostgresValues(ValueLaws): ...


class TestPostgresLimits(LimitLaws): ...


class TestScaling(ScalingLaws): ...
