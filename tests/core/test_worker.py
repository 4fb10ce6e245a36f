"""The worker: what becomes of tickets. A ticket is a hint; the claim decides."""

from __future__ import annotations

from typing import ClassVar, cast

import anyio
import anyio.lowlevel
import pytest

from agentkit import Agent, Context, RunBuried, Settings, StepContext
from agentkit.ports.queue import Ticket
from agentkit.ports.records import Claimed, Release, Run, RunStatus, RunWrite
from agentkit.runtime.engine import Held
from agentkit.runtime.worker import Answers, Worker
from agentkit.testing import LocalRuntime, runtime


class Adds(Agent[int, int]):
    made: ClassVar[list[int]] = []

    async def run(self, ctx: Context, n: int, /) -> int:
        return await ctx.step("add", self.body, n)

    async def body(self, n: int) -> int:
        self.made.append(n)
        return n + 1


async def tickets(rt: LocalRuntime) -> tuple[int, int, int, int]:
    """Ready, delayed, leased, dead."""
    depths = (await rt.tickets.depth()).values()
    return sum(d.ready for d in depths), sum(d.delayed for d in depths), sum(d.leased for d in depths), sum(d.dead for d in depths)


async def test_a_ticket_of_a_run_that_is_gone_or_has_ended_is_finished() -> None:
    async with runtime(agents=[Adds]) as rt:
        await rt.run(Adds, 1, run_id="r")
        await rt.tickets.put([Ticket("r", "adds", "1", 7), Ticket("never was", "adds", "1")])
        await rt.settle()
        assert await tickets(rt) == (0, 0, 0, 0)


async def test_a_duplicate_of_a_ticket_starts_nothing_twice() -> None:
    Adds.made = []
    async with runtime(agents=[Adds]) as rt:
        handle = await rt.submit(Adds, 1, run_id="r")
        await rt.tickets.put([Ticket("r", "adds", "1", wake) for wake in range(1, 6)])
        await rt.settle()
        assert await handle.result() == 2
        assert Adds.made == [1]
        assert await tickets(rt) == (0, 0, 0, 0)


async def test_a_ticket_of_another_kind_is_left_to_others() -> None:
    async with runtime(agents=[Adds]) as rt:
        await rt.tickets.put([Ticket("x", "stranger", "1")])
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert await tickets(rt) == (1, 0, 0, 0)


async def test_a_ticket_whose_run_is_of_a_version_not_served_here_is_given_back_with_a_delay() -> None:
    class Adds2(Adds):
        name = "adds"
        version = "2"

    async with runtime(agents=[Adds2], worker=False) as rt:
        await rt.submit(Adds2, 1, run_id="r")
        store, queue = rt.store, rt.tickets
        del rt.registry._agents["adds", "2"]  # pyright: ignore[reportPrivateUsage] - an older release comes now
        rt.registry.add(Adds)
        (lease,) = await queue.lease(1, wait_s=0, lease_s=10, kinds={"adds@2"})
        await queue.finish([lease])
        await queue.put([Ticket("r", "adds", "1", 1)])
        assert (await store.claim(rt.engine.worker_id, ["r"], rt.registry.serves())) == ["unknown"]


async def test_a_ticket_delivered_too_often_without_an_answer_is_buried_and_its_run_with_it() -> None:
    async with runtime(agents=[Adds], worker=False, settings=Settings(max_deliveries=2, grace_s=0)) as rt:
        handle = await rt.submit(Adds, 1, run_id="r")
        for _ in range(2):  # two workers that died with it in their hands
            assert await rt.tickets.lease(1, wait_s=0, lease_s=10, kinds={"adds@1"})
            rt.clock.jump(11)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Worker(rt.engine, Answers(rt.tickets), rt.clock).work_queue)
            while (await handle.info()).status != "buried":
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        with pytest.raises(RunBuried, match="delivered 2 times without an answer"):
            await handle.result()
        assert [d.reason async for d in rt.queue.dead()] == ["delivered 2 times without an answer"]


async def test_a_drain_gives_tickets_back_without_a_delivery_counted() -> None:
    started = anyio.Event()

    class Slow(Agent[None, None]):
        async def run(self, ctx: Context, _: None, /) -> None:
            await ctx.step("s", self.body)

        async def body(self) -> None:
            started.set()
            await anyio.sleep_forever()

    async with runtime(agents=[Slow]) as rt:
        await rt.submit(Slow, None, run_id="r")
        await started.wait()
    (lease,) = await rt.tickets.lease(1, wait_s=0, lease_s=10, kinds={"slow@1"})
    assert lease.deliveries == 1


class Holds(Agent[int, int]):
    """Waits in its step until the test lets the claim go on."""

    at_work: ClassVar[dict[int, anyio.Event]]
    go_on: ClassVar[dict[int, anyio.Event]]

    @classmethod
    def begin(cls) -> None:
        cls.at_work, cls.go_on = {fence: anyio.Event() for fence in (1, 2)}, {fence: anyio.Event() for fence in (1, 2)}

    async def run(self, ctx: Context, n: int, /) -> int:
        return await ctx.step("hold", self.body, n)

    async def body(self, step: StepContext, n: int) -> int:
        self.at_work[step.fence].set()
        await self.go_on[step.fence].wait()
        return n + 1


async def test_a_claim_that_the_store_has_forgotten_writes_nothing_beside_one_of_the_same_number(monkeypatch: pytest.MonkeyPatch) -> None:
    Holds.begin()
    async with runtime(agents=[Holds]) as rt:
        handle = await rt.submit(Holds, 1, run_id="r")
        await Holds.at_work[1].wait()
        before, (row,) = rt.engine.worker_id, await rt.store.get(["r"])

        async def claim(*_: object, **__: object) -> list[Claimed]:
            return [Claimed(cast("Run", row), rt.clock.time())]

        with monkeypatch.context() as forgetful:
            forgetful.setattr(rt.store, "claim", claim)
            await rt.engine.take([Held(Ticket("r", "holds", "1"))])
        while rt.engine.worker_id == before:
            await anyio.lowlevel.checkpoint()
        Holds.go_on[2].set()
        for _ in range(10):  # nobody says that the registration is over; the sweep finds out
            await rt.clock.advance(rt.engine.lease_s / 2)
        assert await handle.result() == 2
        assert Holds.at_work[2].is_set()


async def test_a_run_that_is_claimed_again_before_its_release_was_heard_of_stays_at_work() -> None:
    Holds.begin()
    async with runtime(agents=[Holds]) as rt:
        handle = await rt.submit(Holds, 1, run_id="r")
        await Holds.at_work[1].wait()
        before = rt.engine.worker_id
        await rt.store.write(before, [RunWrite("r", 1, (), release=Release(RunStatus.READY))])
        await rt.engine.take([Held(Ticket("r", "holds", "1"))])
        await Holds.at_work[2].wait()
        Holds.go_on[1].set()
        for _ in range(200):  # what is left of the first one ends
            await anyio.lowlevel.checkpoint()
        assert rt.engine.active["r"][0].run.fence == 2
        Holds.go_on[2].set()
        assert await handle.result() == 2
        assert rt.engine.worker_id == before
