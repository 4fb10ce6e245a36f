"""Effects: an intent first, then the body; after a crash the declared policy decides, and not before the deadline in the intent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from agentkit import Agent, Context, Done, InvalidInput, RunHandle, StepContext, StepError
from agentkit.ports.records import EntryKind
from agentkit.testing import LocalRuntime, runtime

Policy = Literal["rerun", "ask", "fail"]


class Bank:
    """The outside world: what was charged, by idempotency key."""

    def __init__(self) -> None:
        self.charges: list[str] = []
        self.attempts: list[int] = []
        self.probes = 0
        self.found: int | None = None
        self.unreachable = False
        self.on_charge: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint

    async def charge(self, step: StepContext, cents: int) -> int:
        self.charges.append(step.idempotency_key)
        self.attempts.append(step.attempt)
        await self.on_charge()
        return cents

    async def find(self, cents: int) -> Done[int] | None:
        self.probes += 1
        if self.unreachable:
            raise ConnectionError("bank")
        return None if self.found is None else Done(self.found)


class Order(BaseModel):
    effect: Policy | None = "ask"
    probe: bool = False


class Pay(Agent[Order, str]):
    async def run(self, ctx: Context, order: Order, /) -> str:
        bank = ctx.get(Bank)
        await ctx.step("price", price)
        try:
            paid = await ctx.step("charge", bank.charge, 100, effect=order.effect, probe=bank.find if order.probe else None)
        except StepError as exc:
            return f"{exc.kind}: {exc.message}"
        return f"paid {paid}"


async def price() -> int:
    return 100


@asynccontextmanager
async def shop(bank: Bank) -> AsyncGenerator[LocalRuntime]:
    async with runtime(agents=[Pay], resources={Bank: bank}) as rt:
        yield rt


async def kinds(rt: LocalRuntime, key: str = "charge#1") -> list[EntryKind]:
    return [EntryKind(e.kind) for e in await rt.store.load("r") if e.key == key]


async def crashed_in_the_charge(rt: LocalRuntime, order: Order) -> RunHandle[str]:
    await rt.crash(at="charge")
    handle = await rt.submit(Pay, order, run_id="r")
    await rt.settle()
    assert rt.crashed == 1
    return handle


# The intent


class LooksAtItsJournal(Agent[None, list[str]]):
    async def run(self, ctx: Context, _: None, /) -> list[str]:
        await ctx.step("before", price)
        return await ctx.step("effect", self.body, ctx, effect="fail", fingerprint="journal")

    async def body(self, step: StepContext, ctx: Context) -> list[str]:
        entries = await ctx.execution.host.store.load(step.run_id)
        return [f"{e.key} {EntryKind(e.kind).name}" for e in entries if e.key]


async def test_when_the_body_of_an_effect_starts_its_intent_and_all_before_it_are_durable() -> None:
    async with runtime(agents=[LooksAtItsJournal]) as rt:
        assert await rt.run(LooksAtItsJournal, None) == ["before#1 RESULT", "effect#1 INTENT"]


async def test_no_body_starts_while_its_intent_is_not_acknowledged() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        gate, write = anyio.Event(), rt.store.write

        async def held(*args: Any, **options: Any) -> Any:
            await gate.wait()
            return await write(*args, **options)

        rt.store.write = held  # type: ignore[method-assign]
        handle = await rt.submit(Pay, Order())
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert bank.charges == []
        gate.set()
        assert await handle.result() == "paid 100"


class Brief(Agent[None, int]):
    async def run(self, ctx: Context, _: None, /) -> int:
        return await ctx.step("brief", price, effect="fail", timeout_s=0.3)


async def test_a_store_that_was_away_for_the_time_of_an_effect_costs_its_intent_not_the_effect() -> None:
    async with runtime(agents=[Brief]) as rt:
        write, delays = rt.store.write, [0.4]

        async def late(worker_id: str, batch: Any, **options: Any) -> Any:
            if delays and any(e.kind == EntryKind.INTENT for one in batch for e in one.entries):
                await anyio.sleep(delays.pop())
            return await write(worker_id, batch, **options)

        rt.store.write = late  # type: ignore[method-assign]
        assert await rt.run(Brief, None, run_id="r") == 100
        assert await kinds(rt, "brief#1") == [EntryKind.INTENT, EntryKind.VOID, EntryKind.INTENT, EntryKind.RESULT]


async def test_an_effect_that_went_well_is_an_intent_and_a_result() -> None:
    async with shop(Bank()) as rt:
        await rt.run(Pay, Order(), run_id="r")
        assert await kinds(rt) == [EntryKind.INTENT, EntryKind.RESULT]
        assert await kinds(rt, "price#1") == [EntryKind.RESULT]


class Strict(Agent[None, int]):
    durability = "strict"

    async def run(self, ctx: Context, _: None, /) -> int:
        return await ctx.step("price", price)


async def test_in_the_strict_class_every_step_has_an_intent() -> None:
    async with runtime(agents=[Strict]) as rt:
        await rt.run(Strict, None, run_id="r")
        assert await kinds(rt, "price#1") == [EntryKind.INTENT, EntryKind.RESULT]


# After a crash


async def test_rerun_runs_it_again_under_the_same_key_with_the_next_attempt() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle = await crashed_in_the_charge(rt, Order(effect="rerun"))
        assert await handle.result() == "paid 100"
    assert bank.charges == ["r:charge#1"] * 2
    assert bank.attempts == [1, 2]


async def test_fail_fails_the_step_and_does_not_touch_the_outside_world_again() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle = await crashed_in_the_charge(rt, Order(effect="fail"))
        await rt.clock.advance(61)
        assert (await handle.result()).startswith("EffectUnknown: a crash left unknown whether it happened")
    assert len(bank.charges) == 1


@pytest.mark.parametrize("effect", ["fail", "ask"])
@pytest.mark.parametrize("probe", [True, False])
async def test_nothing_is_probed_or_decided_before_the_deadline_of_the_intent(effect: Policy, probe: bool) -> None:
    bank = Bank()
    bank.found = 100
    async with shop(bank) as rt:
        handle = await crashed_in_the_charge(rt, Order(effect=effect, probe=probe))
        info = await handle.info()
        assert (info.status, info.waiting_for) == ("waiting", "effect:charge")
        await rt.clock.advance(59)
        assert bank.probes == 0
        assert (await handle.info()).waiting_for == "effect:charge"
        await rt.clock.advance(2)
        assert bank.probes == int(probe)
        assert (await handle.info()).waiting_for != "effect:charge"
        if effect == "ask" and not probe:
            await handle.cancel()


@pytest.mark.parametrize("effect", ["rerun", "fail", "ask"])
async def test_a_probe_that_finds_the_effect_answers_for_it(effect: Policy) -> None:
    bank = Bank()
    bank.found = 99
    async with shop(bank) as rt:
        handle = await crashed_in_the_charge(rt, Order(effect=effect, probe=True))
        await rt.clock.advance(61)
        assert await handle.result() == "paid 99"
    assert len(bank.charges) == bank.probes == 1


@pytest.mark.parametrize("effect", ["rerun", "fail", "ask"])
async def test_a_probe_that_does_not_find_it_lets_it_run(effect: Policy) -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle = await crashed_in_the_charge(rt, Order(effect=effect, probe=True))
        await rt.clock.advance(61)
        assert await handle.result() == "paid 100"
    assert bank.attempts == [1, 2]


@pytest.mark.parametrize(("effect", "result"), [("rerun", "paid 100"), ("fail", "EffectUnknown")])
async def test_when_the_probe_itself_fails_the_policy_decides(effect: Policy, result: str) -> None:
    bank = Bank()
    bank.unreachable = True
    async with shop(bank) as rt:
        handle = await crashed_in_the_charge(rt, Order(effect=effect, probe=True))
        await rt.clock.advance(61)
        assert (await handle.result()).startswith(result)
    assert bank.probes == 1


async def test_a_crash_before_the_body_asks_too_for_nobody_can_tell() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        await rt.crash(at="charge", before=True)
        handle = await rt.submit(Pay, Order(effect="ask"), run_id="r")
        await rt.clock.advance(61)
        assert (await handle.info()).waiting_for == "operator:charge"
        assert bank.charges == []
        await handle.resolve("charge", "rerun")
        assert await handle.result() == "paid 100"
    assert bank.attempts == [2]


async def test_each_crash_counts_one_attempt() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        bank.on_charge = lambda: rt.crash(at="charge") if len(bank.attempts) < 3 else anyio.lowlevel.checkpoint()
        handle = await rt.submit(Pay, Order(effect="rerun"), run_id="r")
        await rt.settle()
        assert await handle.result() == "paid 100"
    assert bank.attempts == [1, 2, 3]
    assert set(bank.charges) == {"r:charge#1"}


# Asking an operator


async def asking(rt: LocalRuntime) -> RunHandle[str]:
    handle = await crashed_in_the_charge(rt, Order(effect="ask"))
    await rt.clock.advance(61)
    assert (await handle.info()).waiting_for == "operator:charge"
    return handle


@pytest.mark.parametrize("step", ["charge", "charge#1"])
async def test_an_operator_who_says_done_gives_the_result(step: str) -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle = await asking(rt)
        await handle.resolve(step, "done", result=98)
        assert await handle.result() == "paid 98"
    assert len(bank.charges) == 1


async def test_an_operator_who_says_rerun_has_it_run_again() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle = await asking(rt)
        await handle.resolve("charge", "rerun")
        assert await handle.result() == "paid 100"
        assert await kinds(rt) == [EntryKind.INTENT, EntryKind.VOID, EntryKind.INTENT, EntryKind.RESULT]
    assert bank.attempts == [1, 2]


async def test_an_operator_who_says_fail_fails_the_step() -> None:
    async with shop(Bank()) as rt:
        handle = await asking(rt)
        await handle.resolve("charge", "fail")
        assert await handle.result() == "EffectFailed: an operator said that it failed"


async def test_it_asks_again_after_a_second_crash() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle = await asking(rt)
        await rt.crash(at="charge")
        await handle.resolve("charge", "rerun")
        await rt.clock.advance(61)
        assert (await handle.info()).waiting_for == "operator:charge"
        await handle.resolve("charge", "done", result=1)
        assert await handle.result() == "paid 1"
    assert bank.attempts == [1, 2]


async def test_a_step_that_does_not_ask_cannot_be_resolved_and_the_error_names_those_that_do() -> None:
    async with shop(Bank()) as rt:
        handle = await asking(rt)
        with pytest.raises(InvalidInput, match=r"0 steps fit 'pay'; open are: charge#1"):
            await handle.resolve("pay", "done")
        with pytest.raises(InvalidInput, match="0 steps fit 'price'"):
            await handle.resolve("price", "done")
        await handle.cancel()


async def test_an_answer_that_does_not_fit_the_type_of_the_step_is_refused_and_it_goes_on_asking() -> None:
    async with shop(Bank()) as rt:
        handle = await asking(rt)
        await handle.resolve("charge", "done", result="not a number")
        await rt.settle()
        assert (await handle.info()).waiting_for == "operator:charge"
        await handle.resolve("charge", "done", result=5)
        assert await handle.result() == "paid 5"
        refused = [e for e in await rt.store.load("r") if e.kind == EntryKind.PROGRESS]
        assert len(refused) == 1
        assert b"integer" in refused[0].body


async def test_a_run_that_asks_can_be_cancelled() -> None:
    async with shop(Bank()) as rt:
        handle = await asking(rt)
        await handle.cancel("enough")
        await rt.settle()
        assert (await handle.info()).status == "cancelled"


# Not started after all


async def held_intent(rt: LocalRuntime) -> tuple[RunHandle[str], anyio.Event]:
    """A run whose INTENT is on its way and not answered."""
    gate, sent, write = anyio.Event(), anyio.Event(), rt.store.write

    async def held(worker_id: str, batch: Any, *, sync: bool = True) -> Any:
        if any(e.kind == EntryKind.INTENT for w in batch for e in w.entries) and not gate.is_set():
            sent.set()
            await gate.wait()
        return await write(worker_id, batch, sync=sync)

    rt.store.write = held  # type: ignore[method-assign]
    handle = await rt.submit(Pay, Order(effect="ask"), run_id="r")
    await sent.wait()
    return handle, gate


async def test_an_effect_that_a_drain_kept_from_starting_is_void_so_nobody_is_asked_about_it() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle, gate = await held_intent(rt)
        rt.engine.active["r"][0].drain()
        gate.set()
        await rt.settle()
        assert await handle.result() == "paid 100"
        assert await kinds(rt) == [EntryKind.INTENT, EntryKind.VOID, EntryKind.INTENT, EntryKind.RESULT]
    assert len(bank.charges) == 1


async def test_an_effect_that_a_cancel_kept_from_starting_is_void() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle, gate = await held_intent(rt)
        await handle.cancel()
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        gate.set()
        await rt.settle()
        assert (await handle.info()).status == "cancelled"
        assert await kinds(rt) == [EntryKind.INTENT, EntryKind.VOID]
    assert bank.charges == []


class Slow(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        try:
            await ctx.step("slow", anyio.sleep_forever, effect="ask", timeout_s=0.01)
        except StepError as exc:
            return exc.kind
        return "ended"


async def test_the_body_of_an_effect_is_cut_at_the_deadline_that_its_intent_names() -> None:
    async with runtime(agents=[Slow]) as rt:
        assert await rt.run(Slow, None, run_id="r") == "TimeoutError"
        assert await kinds(rt, "slow#1") == [EntryKind.INTENT, EntryKind.ERROR]


async def test_an_effect_that_fails_is_not_made_again() -> None:
    class Breaks(Agent[None, str]):
        calls = 0

        async def run(self, ctx: Context, _: None, /) -> str:
            try:
                await ctx.step("s", self.body, effect="ask")
            except StepError as exc:
                await ctx.sleep(3600)
                return exc.kind
            return ""

        async def body(self) -> None:
            type(self).calls += 1
            raise ConnectionResetError

    async with runtime(agents=[Breaks]) as rt:
        handle = await rt.submit(Breaks, None)
        await rt.clock.advance(4000)
        assert await handle.result() == "ConnectionResetError"
        assert Breaks.calls == 1
