"""Budgets over the stores that processes share: the limit holds and nothing is forgotten, whoever crashes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentkit.inference.spend import Spend
from agentkit.ports.values import ValueStore
from agentkit_redis import Redis
from agentkit_sql import Sql
from tests.adapters.opening import opened
from tests.core.spenders import Call, Fleet


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The drivers of the servers run on asyncio alone."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
async def values(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ValueStore]:
    if request.param == "sqlite":
        store: ValueStore = Sql(f"sqlite:///{tmp_path}/agents.db").values
    else:
        url: str = request.getfixturevalue(f"{request.param}_url")
        store = Redis(url).values if request.param == "redis" else Sql(url).values
    async with opened(store) as store:
        yield store


@pytest.mark.parametrize("seed", range(3))
async def test_processes_that_spend_and_crash_never_exceed_the_limit_and_forget_nothing(values: ValueStore, seed: int) -> None:
    chance = random.Random(seed)
    costs = [(expected, chance.randrange(expected + 1)) for expected in (chance.randrange(1, 60) for _ in range(40))]
    calls = [Call(f"step-{n}", *cost, dies_at=chance.choice([None, chance.randrange(200)])) for n, cost in enumerate(costs)]
    fleet = Fleet(values, limit=300, processes=4)
    await fleet.spend(calls, chance)
    ledger = await fleet.ledger()
    assert ledger.spent.tokens == sum(call.cost for call in calls if call.key in fleet.granted)
    assert ledger.reserved == Spend()
    assert fleet.granted
    assert fleet.refused
