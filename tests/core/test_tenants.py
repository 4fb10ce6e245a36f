"""Whose run it is: principals, tenants and their quotas, kept with the run and inherited by its children."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import anyio
import pytest
from pydantic import ValidationError

from agentkit import Agent, Context, Overloaded, RunError, Runtime, Settings, Signal, StepContext
from agentkit.agents.meta import NOBODY, Principal, RunMeta, meta_of, read_meta
from agentkit.agents.tenants import KEEP_S, MOST_WEIGHT, Tenant, Tenants
from agentkit.errors import UnknownTenant
from agentkit.inference.budgets import Budget
from agentkit.ports.queue import Ticket
from agentkit.testing import runtime
from agentkit.testing.clock import FakeClock

ANN = Principal(id="ann", permissions=frozenset({"orders:read"}))


async def who(step: StepContext) -> list[str]:
    return [step.principal.id, step.tenant, ",".join(meta_of(step.execution).budgets)]


class Child(Agent[int, list[str]]):
    async def run(self, ctx: Context, n: int, /) -> list[str]:
        return await ctx.step("who", who)


class Parent(Agent[int, list[list[str]]]):
    async def run(self, ctx: Context, n: int, /) -> list[list[str]]:
        plain = await ctx.run("plain", Child, n)
        bounded = await ctx.run("bounded", Child, n, budget=Budget(usd=1))
        joined = await ctx.join({"other": Child.of(n, tenant="other", budget=Budget(tokens=5))})
        return [await ctx.step("who", who), plain, bounded, joined["other"]]


async def test_children_act_for_the_same_principal_and_tenant_and_spend_from_the_same_budgets() -> None:
    async with runtime(agents=[Parent, Child]) as rt:
        handle = await rt.submit(Parent, 1, run_id="r", tenant="acme", principal=ANN, budget=Budget(usd=5))
        assert await handle.result() == [
            ["ann", "acme", "r"],
            ["ann", "acme", "r"],
            ["ann", "acme", "r,r/bounded#1"],
            ["ann", "other", "r,r/join#1/other"],
        ]


async def test_a_run_without_a_principal_is_nobodys_and_may_do_what_needs_no_permission() -> None:
    async with runtime(agents=[Child]) as rt:
        assert await rt.run(Child, 1, run_id="r") == ["", "", ""]
        (row,) = await rt.store.get(["r"])
        assert row is not None
        assert row.meta == ""  # nothing is stored for the many runs that have nothing of it
    assert NOBODY.permissions == frozenset()


def test_what_belongs_to_a_run_survives_its_way_through_the_store() -> None:
    meta = RunMeta(principal=ANN, session="s1").with_budget("r", Budget(usd=5, soft=0.5))
    assert read_meta(meta.write()) == meta
    assert read_meta("") == RunMeta()


def test_what_a_newer_version_wrote_is_kept() -> None:
    assert '"later":1' in read_meta('{"session":"s","later":1}').write()


# Tenants


async def test_an_unknown_tenant_of_a_mapping_names_the_nearest_and_nothing_is_written() -> None:
    async with runtime(agents=[Child], tenants={"acme": Tenant(id="acme")}) as rt:
        with pytest.raises(UnknownTenant, match="no tenant 'acne'; did you mean 'acme'"):
            await rt.submit(Child, 1, run_id="r", tenant="acne")
        with pytest.raises(UnknownTenant):
            await rt.run(Child, 1, run_id="r", tenant="acne")
        assert await rt.store.get(["r"]) == [None]
        assert (await rt.run(Child, 1))[1] == ""  # a run without a tenant is nobody's


async def test_a_tenant_that_is_gone_when_the_run_starts_ends_it_with_that_reason() -> None:
    tenants = {"acme": Tenant(id="acme")}
    async with runtime(agents=[Child], tenants=tenants, worker=False) as rt:
        await rt.submit(Child, 1, run_id="r", tenant="acme")
        tenants.clear()
        await rt.drive("r", within_s=60)
        with pytest.raises(RunError) as caught:
            await rt.handle("r").result()
    assert caught.value.kind == "UnknownTenant"


async def test_a_function_is_asked_for_a_tenant_once_in_a_while() -> None:
    asked: list[str] = []

    async def find(id: str) -> Tenant:
        asked.append(id)
        return Tenant(id=id)

    async with runtime(agents=[Child], tenants=find) as rt:
        for _ in range(5):
            await rt.run(Child, 1, tenant="acme")
        assert asked == ["acme"]
        await rt.clock.advance(KEEP_S)
        await rt.run(Child, 1, tenant="acme")
    assert asked == ["acme", "acme"]


async def test_a_run_whose_tenant_cannot_be_looked_up_now_is_tried_again_soon() -> None:
    down: list[bool] = []

    async def find(id: str) -> Tenant:
        if down:
            raise ConnectionError("no database")
        return Tenant(id=id)

    async with runtime(agents=[Child], tenants=find) as rt:
        handle = await rt.submit(Child, 1, tenant="acme", delay_s=KEEP_S)
        down.append(True)
        await rt.clock.advance(KEEP_S + 1)
        assert (await handle.info()).waiting_for == "store"
        down.clear()
        await rt.clock.advance(10)
        assert (await handle.result())[1] == "acme"


# Quotas


async def test_more_queued_runs_than_a_tenant_may_have_are_refused_before_anything_is_written() -> None:
    async with runtime(agents=[Child], tenants={"acme": Tenant(id="acme", max_queued=3)}, worker=False) as rt:
        await rt.submit_many(Child, {"a": 1, "b": 2}, tenant="acme")
        with pytest.raises(Overloaded, match=r"tenant 'acme'.*3") as caught:
            await rt.submit_many(Child, {"c": 1, "d": 2}, tenant="acme")
        assert caught.value.retry_after_s > 0
        assert await rt.store.get(["c", "d"]) == [None, None]
        await rt.submit(Child, 1, run_id="c", tenant="acme")
        with pytest.raises(Overloaded):
            await rt.submit(Child, 1, tenant="acme")


async def test_places_in_the_queue_are_given_away_again_once_they_are_free() -> None:
    async with runtime(agents=[Child], tenants={"acme": Tenant(id="acme", max_queued=2)}) as rt:
        for i in range(10):
            handles = await rt.submit_many(Child, {f"{i}a": 1, f"{i}b": 2}, tenant="acme")
            assert [len(await handle.result()) for handle in handles] == [3, 3]
            await rt.clock.advance(5)


async def test_another_process_sees_a_full_queue_too() -> None:
    tenants = {"acme": Tenant(id="acme", max_queued=1)}
    async with (
        runtime(agents=[Child], tenants=tenants, worker=False) as rt,
        Runtime(state=rt.store, queue=rt.tickets, values=rt.values, limits=rt.limits, agents=[Child], tenants=tenants) as other,
    ):
        await rt.submit(Child, 1, tenant="acme")
        with pytest.raises(Overloaded):
            await other.submit(Child, 1, tenant="acme")


class Waits(Agent[int, int]):
    """At work until it is let go."""

    at_work: ClassVar[list[int]]
    full: ClassVar[anyio.Event]
    release: ClassVar[anyio.Event]

    async def run(self, ctx: Context, n: int, /) -> int:
        await ctx.step("hold", self.hold, n)
        return n

    async def hold(self, n: int) -> None:
        self.at_work.append(n)
        if len(self.at_work) >= 2:
            self.full.set()
        await self.release.wait()


def waiting() -> type[Waits]:
    Waits.at_work, Waits.full, Waits.release = [], anyio.Event(), anyio.Event()
    return Waits


async def test_more_runs_at_work_than_a_tenant_may_have_are_refused() -> None:
    agent, tenants = waiting(), {"acme": Tenant(id="acme", max_running=2)}
    async with runtime(agents=[agent], tenants=tenants) as rt, anyio.create_task_group() as tasks:
        for i in range(2):
            tasks.start_soon(partial(rt.run, agent, i, tenant="acme"))
        await agent.full.wait()
        with pytest.raises(Overloaded, match=r"\(running runs\)"):
            await rt.run(agent, 2, tenant="acme")
        agent.release.set()


async def test_a_worker_holds_no_more_runs_of_a_tenant_than_it_may_have_and_works_for_others_meanwhile() -> None:
    agent, tenants = waiting(), {"acme": Tenant(id="acme", max_running=2), "other": Tenant(id="other")}
    async with runtime(agents=[agent, Child], tenants=tenants, settings=Settings(grace_s=0.0, concurrency=8)) as rt:
        handles = await rt.submit_many(agent, {f"a{i}": i for i in range(6)}, tenant="acme")
        assert (await (await rt.submit(Child, 1, tenant="other")).result())[1] == "other"
        await agent.full.wait()
        assert len(agent.at_work) == 2
        agent.release.set()
        for handle in handles:
            while (await handle.info()).status != "done":
                await rt.clock.advance(1)
    assert sorted(agent.at_work) == list(range(6))


# Weights


class Woken(Agent[int, int]):
    """Waits, and is woken through the queue."""

    go = Signal(int)

    async def run(self, ctx: Context, n: int, /) -> int:
        await ctx.run("child", Child, n)
        return await ctx.wait_for(self.go)


async def test_every_ticket_of_a_tenant_has_its_weight_whatever_it_was_put_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, int]] = []
    async with runtime(agents=[Woken, Child], tenants={"acme": Tenant(id="acme", weight=3)}) as rt:
        put = rt.tickets.put

        async def note(tickets: Sequence[Ticket]) -> None:
            sent.extend((ticket.run_id, ticket.weight) for ticket in tickets)
            await put(tickets)

        monkeypatch.setattr(rt.tickets, "put", note)
        handle = await rt.submit(Woken, 1, run_id="r", tenant="acme")
        await handle.signal(Woken.go, 5)
        assert await handle.result() == 5
        later = await rt.submit(Child, 1, run_id="later", tenant="acme", delay_s=60)
        await rt.clock.advance(61)
        await later.result()
        await (await rt.submit(Child, 1, run_id="nobody's")).result()
    assert {run_id for run_id, _ in sent} == {"r", "r/child#1", "later", "nobody's"}
    assert {weight for run_id, weight in sent if run_id != "nobody's"} == {3}
    assert ("nobody's", 1) in sent


async def test_a_tenant_that_nobody_can_look_up_now_counts_one_and_holds_up_no_other() -> None:
    asked: list[str] = []

    async def find(id: str) -> Tenant:
        asked.append(id)
        if id == "unheard of":
            raise UnknownTenant(id, {})
        if id != "acme":
            raise ConnectionError("no database")
        return Tenant(id=id, weight=3)

    tickets = [Ticket(f"r{n}", "child", "1", tenant=tenant) for n, tenant in enumerate(("unheard of", "acme", "b", "acme", "c"))]
    assert [ticket.weight for ticket in await Tenants(find, FakeClock()).weighed(tickets)] == [1, 3, 1, 3, 1]
    assert asked == ["unheard of", "acme", "b"]


async def test_without_tenants_tickets_go_as_they_are() -> None:
    tickets = [Ticket("r", "child", "1", tenant="acme")]
    assert await Tenants(None, FakeClock()).weighed(tickets) is tickets


@pytest.mark.parametrize("weight", [0, MOST_WEIGHT + 1])
def test_a_weight_out_of_bounds_is_refused_where_it_is_written(weight: int) -> None:
    with pytest.raises(ValidationError, match="weight"):
        Tenant(id="acme", weight=weight)
