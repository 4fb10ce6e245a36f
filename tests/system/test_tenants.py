"""Tenants that share a queue in a file: who is started when."""

from __future__ import annotations

import pytest

from agentkit import Agent, Context, Runtime, Settings, Tenant
from tests.system.conftest import MARKS

pytestmark = MARKS

RUNS = 60
TENANTS = {"heavy": Tenant(id="heavy", weight=3), "light": Tenant(id="light")}

started: list[str] = []


class Noted(Agent[str, str]):
    """Notes whose it is as soon as it is started."""

    async def run(self, ctx: Context, tenant: str, /) -> str:
        started.append(tenant)
        return tenant


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_runs_of_a_tenant_of_three_times_the_weight_are_started_three_times_as_often(url: str, concurrency: int) -> None:
    started.clear()
    async with Runtime(state=url, agents=[Noted], tenants=TENANTS) as runtime:
        for tenant in ("light", "heavy"):
            await runtime.submit_many(Noted, {f"{tenant}-{n}": tenant for n in range(RUNS)}, tenant=tenant)
    async with Runtime(state=url, agents=[Noted], tenants=TENANTS, worker=True, settings=Settings(concurrency=concurrency)) as runtime:
        for tenant in ("light", "heavy"):
            for n in range(RUNS):
                assert await runtime.handle(f"{tenant}-{n}", Noted).result() == tenant
    assert abs(started[:40].count("heavy") - 30) <= concurrency
    assert (started.count("heavy"), started.count("light")) == (RUNS, RUNS)
