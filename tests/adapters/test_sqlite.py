"""The laws of the ports, on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentkit_sql import Sql
from tests.adapters.laws import Backend, LimitLaws, QueueLaws, RunLaws, ValueLaws
from tests.adapters.scaling_laws import ScalingLaws


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    return Backend(Sql, f"sqlite:///{tmp_path}/agents.db", own="busy_timeout_s=6")


class TestSqliteRuns(RunLaws): ...


class TestSqliteQueue(QueueLaws): ...


class TestSqliteValues(ValueLaws): ...


class TestSqliteLimits(LimitLaws): ...


class TestScaling(ScalingLaws): ...
