"""A process that is there for seconds, and goes on with the runs of tickets that a trigger delivered."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from agentkit import Agent, Context, Runtime
from agentkit.errors import Misuse, QueueFull, StoreUnavailable
from agentkit.ports.queue import Ticket
from agentkit.ports.records import RunStatus
from agentkit.runtime.settings import Settings
from agentkit.testing import runtime
from tests.core.doubling import Double, Parent


class Hangs(Agent[None, None]):
    async def run(self, ctx: Context, _: None, /) -> None:
        await ctx.step("hang", anyio.sleep_forever)


AGENTS: list[type[Agent[Any, Any]]] = [Double, Hangs, Parent]


async def ticket_of(rt: Runtime, run_id: str) -> Ticket:
    """The ticket that waits for a run, taken from the queue."""
    (lease,) = [
        lease
        for lease in await rt.tickets.lease(100, wait_s=0, lease_s=1000, kinds={"double@1", "hangs@1", "parent@1"})
        if lease.ticket.run_id == run_id
    ]
    await rt.tickets.finish([lease])
    return lease.ticket


async def test_what_is_served_ends_or_parks_and_its_children_go_to_the_queue() -> None:
    async with runtime(agents=AGENTS, worker=False) as rt:
        handle = await rt.submit(Parent, 4, run_id="r")
        assert await rt.serve([await ticket_of(rt, "r")], within_s=50, grace_s=5) == [True]
        assert (await handle.info()).status == "waiting"
        (child,) = [row.run_id async for row in rt.runs(agent=Double)]
        assert await rt.serve([await ticket_of(rt, child)], within_s=50, grace_s=5) == [True]
        assert await rt.serve([await ticket_of(rt, "r")], within_s=50, grace_s=5) == [True]
        assert await handle.result() == 8


async def test_of_tickets_that_are_not_served_here_each_is_told_apart() -> None:
    async with runtime(agents=AGENTS, worker=False) as rt:
        await rt.submit(Double, 4, run_id="r")
        others = [Ticket("x", "double", "9"), Ticket("y", "stranger", "1")]
        assert await rt.serve([others[0], await ticket_of(rt, "r"), others[1]], within_s=50, grace_s=5) == [False, True, False]


async def test_a_run_that_does_not_leave_is_cut_within_the_grace_and_gets_a_new_ticket() -> None:
    async with Runtime(agents=AGENTS) as rt:
        await rt.submit(Hangs, None, run_id="r")
        assert await rt.serve([await ticket_of(rt, "r")], within_s=0.1, grace_s=2) == [True]
        assert (await ticket_of(rt, "r")).run_id == "r"


@pytest.mark.parametrize("error", [QueueFull("queue", 1, 1.0), StoreUnavailable("queue", "is away")])
async def test_a_run_whose_new_ticket_is_not_taken_keeps_its_old_one(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def put(*_: object, **__: object) -> None:
        raise error

    async with Runtime(agents=AGENTS) as rt:
        await rt.submit(Hangs, None, run_id="r")
        ticket = await ticket_of(rt, "r")
        monkeypatch.setattr(rt.tickets, "put", put)
        assert await rt.serve([ticket], within_s=0.1, grace_s=2) == [False]


async def test_a_worker_serves_no_trigger() -> None:
    async with runtime(agents=AGENTS) as rt:
        with pytest.raises(Misuse, match="worker=False"):
            await rt.serve([], within_s=1, grace_s=1)


async def test_a_registration_that_others_ended_is_replaced_at_the_first_claim() -> None:
    async with runtime(agents=AGENTS, worker=False) as rt:
        dead = rt.engine.worker_id
        await rt.submit(Double, 4, run_id="r")
        ticket = await ticket_of(rt, "r")
        await rt.store.retire(dead)
        assert await rt.serve([ticket], within_s=50, grace_s=5) == [True]
        assert rt.engine.worker_id != dead
        (row,) = await rt.store.get(["r"])
        assert row is not None
        assert row.status == RunStatus.COMPLETED


async def test_a_tick_that_watches_finds_the_dead_and_one_that_does_not_cannot() -> None:
    async with Runtime(agents=AGENTS, settings=Settings(lease_s=0.6)) as rt:
        await rt.store.register("silent", "", "elsewhere")
        assert await rt.tick() == 0
        assert "silent" in {worker.worker_id for worker in await rt.store.workers()}
        await rt.tick(watch_s=1.5 * rt.engine.lease_s)
        assert "silent" not in {worker.worker_id for worker in await rt.store.workers()}
