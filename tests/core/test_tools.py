"""Tools: what a tool declares holds for each of its calls, and a call is one durable step."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from agentkit import (
    Agent,
    ApprovalEvent,
    Context,
    Done,
    InvalidInput,
    PermissionDenied,
    Principal,
    RunBuried,
    RunHandle,
    StepContext,
    StepError,
    tool,
)
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Retry
from agentkit.testing import LocalRuntime, runtime

pytestmark = pytest.mark.anyio


class Bank:
    """The outside world."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.taken_back: list[tuple[str, int]] = []
        self.found: str | None = None
        self.failures = 0


@tool
async def pay(step: StepContext, order: str, cents: int = 100) -> str:
    """Pay back an order."""
    bank = step.get(Bank)
    bank.paid.append(step.idempotency_key)
    if bank.failures:
        bank.failures -= 1
        raise ConnectionError("bank")
    return f"{order}:{cents}"


async def find(step: StepContext, order: str, cents: int) -> Done[str] | None:
    bank = step.get(Bank)
    return None if bank.found is None else Done(f"{order}:{cents}:{bank.found}")


guarded = tool(name="guarded", requires={"pay", "more"})(pay.fn)
approved = tool(name="approved", approve=True)(pay.fn)
both = tool(name="both", approve=True, requires={"pay"})(pay.fn)
effectful = tool(name="effectful", effect="ask", probe=find)(pay.fn)
persistent = tool(name="persistent", policy=Policy("bank", retry=Retry(3, on=(ConnectionError,), wait_s=0.0)))(pay.fn)
TOOLS = {one.name: one for one in (pay, guarded, approved, both, effectful, persistent)}


class Order(BaseModel):
    use: str = "pay"
    arguments: dict[str, Any] = {"order": "17"}
    times: int = 1


class Shop(Agent[Order, list[str]]):
    async def run(self, ctx: Context, order: Order, /) -> list[str]:
        said: list[str] = []
        for _ in range(order.times):
            try:
                said.append(await TOOLS[order.use].perform(ctx, order.arguments))
            except StepError as exc:
                said.append(f"{type(exc).__name__} {exc.kind}: {exc.message}")
            await ctx.durable()
        return said


@asynccontextmanager
async def shop(bank: Bank) -> AsyncGenerator[LocalRuntime]:
    async with runtime(agents=[Shop, ByHand], resources={Bank: bank}) as rt:
        yield rt


async def waiting(rt: LocalRuntime, order: Order, who: Principal | None = None) -> RunHandle[list[str]]:
    handle = await rt.submit(Shop, order, run_id="r", principal=who)
    await rt.settle()
    return handle


# A call is a step


async def test_a_call_is_one_step_under_the_name_of_the_tool() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        assert await rt.run(Shop, Order(times=2), run_id="r") == ["17:100", "17:100"]
        assert await rt.steps("r") == ["pay#1", "pay#2"]
    assert bank.paid == ["r:pay#1", "r:pay#2"]


async def test_a_call_that_is_recorded_is_not_made_again() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        await rt.crash(at="pay#2")
        handle = await waiting(rt, Order(times=2))
        assert await handle.result() == ["17:100", "17:100"]
    assert bank.paid == ["r:pay#1", "r:pay#2", "r:pay#2"]


class ByHand(Agent[str, Any]):
    """Calls a tool in each way that the API offers."""

    async def run(self, ctx: Context, way: str, /) -> Any:
        match way:
            case "step":
                return await ctx.step("mine", guarded, "17", 5)
            case "partial":
                return await ctx.step("mine", partial(guarded, cents=5), "17")
            case "named":
                return await pay.perform(ctx, {"order": "17"}, name="mine", key="a")
            case "undo":
                result = await undoable.perform(ctx, {"order": "17"})
                return await undoable.take_back(ctx, {"order": "17"}, result, name="undo")
            case "in a body":
                return await ctx.step("mine", in_a_body)
            case _:
                return await ctx.step(way, TOOLS[way], "17")


async def in_a_body(step: StepContext) -> str:
    return await pay(step, "17", cents=7)


@pytest.mark.parametrize("way", ["step", "partial"])
async def test_a_step_that_is_given_a_tool_does_all_that_the_tool_declares(way: str) -> None:
    bank = Bank()
    async with shop(bank) as rt:
        with pytest.raises(StepError, match="lacks 'more', 'pay'"):
            await rt.run(ByHand, way)
        assert bank.paid == []
        assert await rt.run(ByHand, way, principal=Principal(id="ann", permissions=frozenset({"pay", "more"}))) == "17:5"


async def test_a_call_may_have_a_name_and_a_key_of_its_own() -> None:
    async with shop(Bank()) as rt:
        await rt.run(ByHand, "named", run_id="r")
        assert await rt.steps("r") == ["mine=a"]


async def test_called_as_a_function_it_is_the_function() -> None:
    async with shop(Bank()) as rt:
        assert await rt.run(ByHand, "in a body", run_id="r") == "17:7"
        assert await rt.steps("r") == ["mine#1"]


async def test_a_plain_function_is_called_on_a_thread_and_its_call_is_awaited() -> None:
    @tool
    def where(n: int) -> tuple[int, bool]:
        return n, threading.current_thread() is threading.main_thread()

    assert await where(3) == (3, False)
    assert await tool(executor="async")(where.fn)(3) == (3, True)


async def test_unknown_and_missing_arguments_are_told_before_anything_is_journalled() -> None:
    class Wrong(Agent[None, None]):
        async def run(self, ctx: Context, _: None, /) -> None:
            with pytest.raises(TypeError, match=r"unknown: \['cent'\], missing: \['order'\]"):
                await pay.perform(ctx, {"cent": 1})

    async with runtime(agents=[Wrong]) as rt:
        await rt.run(Wrong, None, run_id="r")
        assert await rt.steps("r") == []


# Policies and effects


async def test_the_policy_of_a_tool_makes_its_attempts_inside_one_step() -> None:
    bank = Bank()
    bank.failures = 2
    async with shop(bank) as rt:
        assert await rt.run(Shop, Order(use="persistent"), run_id="r") == ["17:100"]
    assert bank.paid == ["r:persistent#1"] * 3


async def test_an_effect_that_a_crash_left_unknown_is_decided_as_the_tool_says() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        await rt.crash(at="effectful")
        handle = await waiting(rt, Order(use="effectful"))
        bank.found = "there"
        await rt.clock.advance(61)
        assert await handle.result() == ["17:100:there"]
    assert len(bank.paid) == 1


async def test_a_probe_that_finds_nothing_lets_it_run_again() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        await rt.crash(at="effectful")
        handle = await waiting(rt, Order(use="effectful"))
        await rt.clock.advance(61)
        assert await handle.result() == ["17:100"]
    assert bank.paid == ["r:effectful#1"] * 2


# Undo


undoable = tool(name="undoable")(pay.fn)


@undoable.undo
async def unpay(step: StepContext, result: str, *, cents: int) -> None:
    step.get(Bank).taken_back.append((result, cents))


async def test_an_undo_is_a_step_that_gets_the_result_and_the_arguments_it_names() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        await rt.run(ByHand, "undo", run_id="r")
        assert await rt.steps("r") == ["undoable#1", "undo#1"]
    assert bank.taken_back == [("17:100", 100)]


async def test_an_undo_that_a_crash_cut_off_is_run_again() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        await rt.crash(at="undo")
        handle = await rt.submit(ByHand, "undo")
        await rt.settle()
        await handle.result()
    assert bank.taken_back == [("17:100", 100)] * 2


def test_an_undo_that_asks_for_what_the_tool_has_not_is_refused_where_it_is_written() -> None:
    async def wrong(result: str, amount: int) -> None: ...

    with pytest.raises(TypeError, match=r"its undo asks for \['amount'\]; there is only \['cents', 'order', 'result'\]"):
        tool(undo=wrong)(pay.fn)


def test_whether_a_tool_can_be_undone_is_known() -> None:
    assert undoable.has_undo
    assert not pay.has_undo


# Permissions


async def test_a_principal_who_lacks_a_permission_is_told_which_and_nothing_has_run() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        ann = Principal(id="ann", permissions=frozenset({"pay"}))
        assert await rt.run(Shop, Order(use="guarded"), principal=ann) == [
            "PermissionDenied PermissionDenied: tool 'guarded': principal 'ann' lacks 'more'"
        ]
    assert bank.paid == []


async def test_a_run_without_a_principal_may_do_what_requires_nothing() -> None:
    async with shop(Bank()) as rt:
        assert await rt.run(Shop, Order()) == ["17:100"]
        (said,) = await rt.run(Shop, Order(use="guarded"))
        assert said.endswith("a run without a principal lacks 'more', 'pay'")


async def test_a_principal_who_has_what_is_required_passes() -> None:
    async with shop(Bank()) as rt:
        boss = Principal(id="boss", permissions=frozenset({"pay", "more", "other"}))
        assert await rt.run(Shop, Order(use="guarded"), principal=boss) == ["17:100"]


class DeniedThenStops(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        try:
            await guarded.perform(ctx, {"order": "17"})
        except PermissionDenied as exc:
            said = exc.message
        else:
            said = "allowed"
        await ctx.sleep(60)
        return said


async def test_what_was_denied_stays_denied_in_a_replay_even_if_the_tool_has_become_free(monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(agents=[DeniedThenStops], resources={Bank: Bank()}) as rt:
        handle = await rt.submit(DeniedThenStops, None)
        await rt.settle()
        monkeypatch.setattr(guarded, "requires", frozenset[str]())
        await rt.clock.advance(61)
        assert "lacks" in await handle.result()


def test_one_permission_may_be_written_as_a_text() -> None:
    assert tool(requires="orders:pay")(pay.fn).requires == {"orders:pay"}


# Approval


async def test_a_tool_that_needs_approval_parks_before_it_starts() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle = await waiting(rt, Order(use="approved"))
        info = await handle.info()
        assert (info.status, info.waiting_for) == ("waiting", "approval:approved")
        assert bank.paid == []
        await handle.resolve("approved", "rerun")
        assert await handle.result() == ["17:100"]
    assert bank.paid == ["r:approved#1"]


async def test_who_approves_sees_the_arguments() -> None:
    async with shop(Bank()) as rt:
        handle = await waiting(rt, Order(use="approved", arguments={"order": "17", "cents": 9}))
        await handle.resolve("approved", "rerun")
        await handle.result()
        events = [(e.step, e.granted, e.arguments) async for e in handle.events() if isinstance(e, ApprovalEvent)]
    assert events == [("approved#1", False, {"order": "17", "cents": 9}), ("approved#1", True, None)]


@pytest.mark.parametrize("restarts", [0, 3])
async def test_a_human_is_asked_once_however_often_the_run_starts_again(restarts: int) -> None:
    async with shop(Bank()) as rt:
        handle = await waiting(rt, Order(use="approved"))
        for _ in range(restarts):
            await rt.engine.crash()
            await rt.settle()
        await rt.crash(at="approved")
        await handle.resolve("approved", "rerun")
        await rt.settle()
        assert await handle.result() == ["17:100"]
        asked = [e async for e in handle.events() if isinstance(e, ApprovalEvent)]
    assert [e.granted for e in asked] == [False, True]


async def test_a_refusal_is_an_error_of_the_step_with_the_reason() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle = await waiting(rt, Order(use="approved"))
        await handle.resolve("approved", "fail", result="too expensive")
        assert await handle.result() == ["StepError NotApproved: a human refused it: too expensive"]
    assert bank.paid == []


async def test_a_human_who_did_it_by_hand_gives_the_result() -> None:
    bank = Bank()
    async with shop(bank) as rt:
        handle = await waiting(rt, Order(use="approved"))
        await handle.resolve("approved", "done", result="by hand")
        assert await handle.result() == ["by hand"]
    assert bank.paid == []


async def test_each_call_is_approved_for_itself() -> None:
    async with shop(Bank()) as rt:
        handle = await waiting(rt, Order(use="approved", times=2))
        await handle.resolve("approved", "rerun")
        await rt.settle()
        assert (await handle.info()).waiting_for == "approval:approved"
        with pytest.raises(InvalidInput, match=r"open are: approved#2"):
            await handle.resolve("approved#1", "rerun")
        await handle.resolve("approved#2", "rerun")
        assert await handle.result() == ["17:100", "17:100"]


class Fickle(Agent[None, str]):
    """Asks for something else each time it starts."""

    cents = 0

    async def run(self, ctx: Context, _: None, /) -> str:
        Fickle.cents += 1
        paid: str = await approved.perform(ctx, {"order": "17", "cents": Fickle.cents})
        return paid


async def test_an_approval_holds_for_the_arguments_that_were_shown_and_no_others() -> None:
    bank = Bank()
    async with runtime(agents=[Fickle], resources={Bank: bank}) as rt:
        handle = await rt.submit(Fickle, None)
        await rt.settle()
        await handle.resolve("approved", "rerun")
        with pytest.raises(RunBuried, match="JournalMismatch"):
            await handle.result()
    assert bank.paid == []


async def test_nobody_is_asked_to_approve_what_is_not_permitted() -> None:
    async with shop(Bank()) as rt:
        (said,) = await rt.run(Shop, Order(use="both"))
    assert said.startswith("PermissionDenied")


async def test_a_yes_that_was_said_twice_does_not_answer_for_a_crash_later() -> None:
    bank = Bank()
    risky = tool(name="risky", approve=True, effect="ask")(pay.fn)
    TOOLS["risky"] = risky
    async with shop(bank) as rt:
        handle = await waiting(rt, Order(use="risky"))
        await rt.crash(at="risky")
        key = "approval:risky#1"
        for answer in ("one", "two"):
            await rt.store.signal("r", answer, key, b'{"answer": "rerun", "result": null}')
        await rt.settle()
        await rt.clock.advance(61)
        assert (await handle.info()).waiting_for == "operator:risky"
        await handle.resolve("risky", "done", result="seen on the statement")
        assert await handle.result() == ["seen on the statement"]
    assert len(bank.paid) == 1


async def test_a_run_that_is_cancelled_while_it_waits_for_approval_ends() -> None:
    async with shop(Bank()) as rt:
        handle = await waiting(rt, Order(use="approved"))
        await handle.cancel("changed my mind")
        await rt.settle()
        assert (await handle.info()).status == "cancelled"


# Cancellation


async def test_a_cancelled_run_ends_a_tool_in_the_loop() -> None:
    ended = anyio.Event()

    @tool
    async def hang() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    class Hangs(Agent[None, None]):
        async def run(self, ctx: Context, _: None, /) -> None:
            await hang.perform(ctx, {})

    async with runtime(agents=[Hangs]) as rt:
        handle = await rt.submit(Hangs, None)
        await until(lambda: started(rt))
        await handle.cancel()
        await ended.wait()


async def started(rt: LocalRuntime) -> bool:
    return any(activation.execution is not None and activation.execution.bodies for activation, _ in rt.engine.active.values())


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():  # noqa: ASYNC110 - the runtime has no event for it
        await anyio.sleep(0.001)
