"""The laws of the ports, on MariaDB."""

from __future__ import annotations

import pytest

from agentkit_sql import Sql
from tests.adapters.laws import Backend, LimitLaws, QueueLaws, RunLaws, ValueLaws
from tests.adapters.scaling_laws import ScalingLaws


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
def backend(mariadb_url: str) -> Backend:
    return Backend(Sql, mariadb_url, own="pool_size=3")


class TestMariadbRuns(RunLaws): ...


class TestMariadbQueue(QueueLaws): ...


class TestMariadbValues(ValueLaws): ...


class TestMariadbLimits(LimitLaws): ...


class TestScaling(ScalingLaws): ...
