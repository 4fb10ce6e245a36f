"""Budgets over the stores that processes share: the limit holds and nothing is forgotten, whoever crashes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentkit.inference.budgets import Budgets
from agentkit.inference.spend import Spend
from agentkit.inference.usage import own_usage, usage_account, whole_usage
from agentkit.ports.messages import Usage
from agentkit.ports.values import ValueStore
from agentkit_redis import Redis
from agentkit_sql import Sql
from tests.adapters.opening import opened
from tests.core.spenders import Call, Fleet


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The drivers of the servers run on asyncio alone."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "redis"])
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


async def test_what_runs_have_spent_is_read_in_one_round_trip_and_added_up_below_a_run_in_pages(values: ValueStore) -> None:
    budgets = Budgets(values)
    runs = ["r", *(f"r/map#1/{n}" for n in range(600)), "r/map#1/7/map#1/ü", "r2", f"r/{'x' * 500}"]
    for run_id in runs:
        for _ in range(2):  # a settlement whose answer was lost is made again
            await budgets.settle([usage_account(run_id)], "call", Spend(11, 8, 3, 1))
    one = Usage(input_tokens=5, output_tokens=3, usd=0.000_011, cached_input_tokens=1)
    assert await own_usage(budgets, ["r", "nobody", *runs[-3:]]) == [one, Usage(), one, one, one]
    assert (await whole_usage(budgets, "r")).input_tokens == 5 * (len(runs) - 1)
    assert await whole_usage(budgets, "r2") == one
