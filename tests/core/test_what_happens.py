"""What happens when…: each test is a row of docs/explanation/what-happens-when.md, and its name the first cell of the row.

Each says who is asked how often, what the run sees, what its budget is charged, and what its journal holds afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from agentkit.agents.base import Agent, AnyAgent
from agentkit.agents.context import Context
from agentkit.agents.generation import ask
from agentkit.agents.meta import Principal
from agentkit.agents.spending import account_of_run
from agentkit.agents.step_context import StepContext
from agentkit.agents.tool import tool
from agentkit.durable.codec import PLAIN
from agentkit.errors import (
    ConnectionCut,
    EngineBusy,
    EngineFailed,
    Overloaded,
    QueueFull,
    RateLimited,
    RunCancelled,
    RunError,
    RunTimeout,
)
from agentkit.inference.budgets import Budget
from agentkit.inference.places import Model, Place
from agentkit.inference.pricing import ANSWER_TOKENS
from agentkit.inference.spend import Spend
from agentkit.inmemory.inference import Delay
from agentkit.ports.messages import Message, Request
from agentkit.ports.records import TOLD, Entry, EntryKind
from agentkit.resilience.circuit_breaker import CircuitBreaker
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Retry
from agentkit.resilience.semaphore import Semaphore
from agentkit.runtime.events import BudgetEvent, TextDelta
from agentkit.runtime.handle import RunHandle
from agentkit.runtime.settings import Settings
from agentkit.testing import LocalRuntime, ScriptedModel, ToolCall, runtime

QUESTION = 4 + 4  # tokens by estimate: "How is it?", and its frame
ANSWERED = 4 + 3  # as the model counts them: "user: How is it?" and "It is well."
BUDGET = Budget(tokens=5_000)
AGAIN = Retry(attempts=3, wait_s=1)


class Asks(Agent[str, str]):
    """Asks a model once."""

    async def run(self, ctx: Context, text: str, /) -> str:
        return (await ctx.generate(text, model="chat")).output


class Listens(Agent[str, str]):
    """Asks a model, and has its text told as it comes."""

    async def run(self, ctx: Context, text: str, /) -> str:
        return (await ask(ctx, Request(model="chat", messages=[Message(role="user", content=text)]), stream=True)).text


class AsksThenNotes(Agent[str, str]):
    """Takes one more step once the answer is durable."""

    async def run(self, ctx: Context, text: str, /) -> str:
        answer = (await ctx.generate(text, model="chat")).output
        await ctx.durable()
        return await ctx.step("note", note, answer)


async def note(text: str) -> str:
    return text


@dataclass
class Shop:
    """The outside world of the tool."""

    paid: list[str] = field(default_factory=list[str])
    fails: bool = False
    takes_s: float = 0.0


async def pay(step: StepContext, order: str) -> str:
    """Pay back an order."""
    shop = step.get(Shop)
    await step.clock.sleep(shop.takes_s)
    if shop.fails:
        raise ValueError("no such order")
    shop.paid.append(step.idempotency_key)
    return f"paid {order}"


plain = tool(name="pay")(pay)
bounded = tool(name="pay", policy=Policy("shop", timeout_s=30))(pay)
permitted = tool(name="pay", requires={"orders:pay"})(pay)
approved = tool(name="pay", approve=True)(pay)
effect = tool(name="pay", effect="ask")(pay)
TOOLS = {"plain": plain, "bounded": bounded, "permitted": permitted, "approved": approved, "effect": effect}
PAYS = ToolCall("pay", order="17")


class Pays(Agent[str, str]):
    """Has a model use the tool that its input names."""

    async def run(self, ctx: Context, which: str, /) -> str:
        return (await ctx.generate("How is it?", model="chat", tools=[TOOLS[which]])).output


AGENTS: list[AnyAgent] = [Asks, Listens, AsksThenNotes, Pays]


class Scene:
    """A runtime, the world around it, and the run `r`."""

    def __init__(self, rt: LocalRuntime, shop: Shop) -> None:
        self.rt, self.shop = rt, shop

    async def start(
        self, agent: type[Agent[str, str]] = Asks, text: str = "How is it?", *, budget: Budget = BUDGET, **more: Any
    ) -> RunHandle[str]:
        """Submit `r`, and let happen what happens before time passes."""
        handle = await self.rt.submit(agent, text, run_id="r", budget=budget, **more)
        await self.rt.settle()
        return handle

    async def spent(self) -> int:
        """The tokens that the run's budget was charged. Nothing else of it may be held back."""
        (ledger,) = await self.rt.engine.services.budgets.look([account_of_run("r", BUDGET)], now=self.rt.clock.time())
        assert ledger.reserved == Spend()
        return ledger.spent.tokens

    async def entries(self) -> list[Entry]:
        return await self.rt.store.load("r", after=-1)

    async def journal(self) -> list[str]:
        """What a replay of the run reads: kind and step, and of an error its kind."""
        return [_said(entry) for entry in await self.entries() if entry.kind not in TOLD]


def _said(entry: Entry) -> str:
    of = f" {PLAIN.decode(entry.body, 'entry')['kind']}" if entry.kind == EntryKind.ERROR else ""
    return f"{EntryKind(entry.kind).name} {entry.key}".strip() + of


async def error_of(handle: RunHandle[Any]) -> str:
    """The kind of the error with which the run ended."""
    with pytest.raises(RunError) as caught:
        await handle.result()
    return caught.value.kind


@asynccontextmanager
async def scene(*models: Iterable[Any] | Model, **more: Any) -> AsyncGenerator[Scene]:
    """A runtime with these models: `chat`, and after it `spare`."""
    served: list[object] = [one if isinstance(one, Model) else ScriptedModel(one) for one in models]
    named = {("chat", "spare")[number]: one for number, one in enumerate(served)}
    shop = Shop()
    async with runtime(agents=AGENTS, models=named, resources={Shop: shop}, **more) as rt:
        yield Scene(rt, shop)


# A model's server


async def test_the_server_of_a_model_answers_429() -> None:
    model = ScriptedModel([RateLimited("eu", "slow down", retry_after_s=60), "It is well."])
    async with scene(Model(model, policy=Policy("chat", retry=AGAIN, timeout_s=300))) as s:
        handle = await s.start()
        await s.rt.clock.advance(59)
        assert len(model.requests) == 1
        await s.rt.clock.advance(1)
        assert await handle.result() == "It is well."
        assert [request.request_id for request in model.requests] == ["r:model#1"] * 2
        assert await s.spent() == ANSWERED
        assert await s.journal() == ["RESULT model#1"]


async def test_the_server_of_a_model_answers_429_and_there_is_no_time_to_wait() -> None:
    model = ScriptedModel([RateLimited("eu", "slow down", retry_after_s=60)])
    async with scene(Model(model, policy=Policy("chat", retry=AGAIN, timeout_s=30))) as s:
        assert await error_of(await s.start()) == "RateLimited"
        assert len(model.requests) == 1
        assert await s.spent() == 0
        assert await s.journal() == ["ERROR model#1 RateLimited"]


async def test_the_server_of_a_model_answers_503_and_another_one_serves_it() -> None:
    busy, idle = ScriptedModel(repeat(EngineBusy("eu1", "too much waits"))), ScriptedModel(["It is well."])
    async with scene(Model(Place(engine=busy, weight=1), Place(engine=idle, weight=0))) as s:
        assert await (await s.start()).result() == "It is well."
        assert (len(busy.requests), len(idle.requests)) == (1, 1)
        assert await s.spent() == ANSWERED
        assert await s.journal() == ["RESULT model#1"]


async def test_the_server_of_a_model_answers_503_and_it_is_the_only_one() -> None:
    model = ScriptedModel(repeat(EngineBusy("eu1", "too much waits")))
    async with scene(Model(model, policy=Policy("chat", retry=AGAIN))) as s:
        handle = await s.start()
        await s.rt.clock.advance(10)
        assert await error_of(handle) == "EngineBusy"
        assert len(model.requests) == AGAIN.attempts
        assert await s.spent() == 0
        assert await s.journal() == ["ERROR model#1 EngineBusy"]


async def test_a_model_fails_and_has_a_fallback() -> None:
    model, spare = ScriptedModel(repeat(EngineFailed("eu1", "500"))), ScriptedModel(["It is well."])
    async with scene(Model(model, policy=Policy("chat", retry=Retry(attempts=2, wait_s=0)), fallback=["spare"]), Model(spare)) as s:
        assert await (await s.start()).result() == "It is well."
        assert (len(model.requests), len(spare.requests)) == (2, 1)
        assert await s.spent() == ANSWERED
        assert await s.journal() == ["RESULT model#1"]


async def test_the_server_of_a_model_hangs() -> None:
    model = ScriptedModel([Delay(3600), "too late"])
    async with scene(Model(model, policy=Policy("chat", retry=AGAIN, timeout_s=30))) as s:
        handle = await s.start()
        await s.rt.clock.advance(30)
        assert await error_of(handle) == "DeadlineExceeded"
        assert len(model.requests) == 1
        assert model.slots.borrowed_tokens == 0  # the call has left the server
        assert await s.spent() == QUESTION
        assert await s.journal() == ["ERROR model#1 DeadlineExceeded"]


async def test_a_connection_is_cut_before_the_answer_begins() -> None:
    model = ScriptedModel([ConnectionCut("eu", "reset"), "It is well."])
    async with scene(Model(model, policy=Policy("chat", retry=AGAIN))) as s:
        handle = await s.start()
        await s.rt.clock.advance(1)
        assert await handle.result() == "It is well."
        assert len(model.requests) == 2
        assert await s.spent() == ANSWERED
        assert await s.journal() == ["RESULT model#1"]


async def test_a_stream_is_cut_in_the_middle() -> None:
    model = ScriptedModel([["It ", "is ", ConnectionCut("eu", "reset")]])
    async with scene(Model(model, policy=Policy("chat", retry=AGAIN))) as s:
        handle = await s.start(Listens)
        assert await error_of(handle) == "StreamBroken"
        assert len(model.requests) == 1
        assert await s.spent() == QUESTION
        assert await s.journal() == ["ERROR model#1 StreamBroken"]
        assert "".join([event.text async for event in handle.events() if isinstance(event, TextDelta)]) == "It is "


async def test_the_circuit_of_a_model_is_open() -> None:
    model = ScriptedModel(repeat(EngineFailed("eu", "500")))
    async with scene(Model(model, policy=Policy("chat", breaker=CircuitBreaker(min_calls=2, open_s=60)))) as s:
        for before in ("a", "b"):
            await error_of(await s.rt.submit(Asks, "How is it?", run_id=before))
        assert await error_of(await s.start()) == "CircuitOpen"
        assert len(model.requests) == 2
        assert await s.spent() == 0
        assert await s.journal() == ["ERROR model#1 CircuitOpen"]


async def test_a_limit_has_no_room() -> None:
    model = ScriptedModel([Delay(3600), "It is well."])
    async with scene(Model(model, policy=Policy("chat", limits=[Semaphore("gpu", 1, max_wait_s=10)]))) as s:
        await s.rt.submit(Asks, "How is it?", run_id="first")
        handle = await s.start()
        await s.rt.clock.advance(10)
        assert await error_of(handle) == "Overloaded"
        assert len(model.requests) == 1
        assert await s.spent() == 0
        assert await s.journal() == ["ERROR model#1 Overloaded"]


# The process, the run and its time


async def test_the_process_crashes_during_a_call_of_a_model() -> None:
    model = ScriptedModel([Delay(3600), "never heard", "It is well."])
    async with scene(Model(model)) as s:
        handle = await s.start()
        await s.rt.engine.crash()
        await s.rt.settle()
        assert await handle.result() == "It is well."
        assert [request.request_id for request in model.requests] == ["r:model#1"] * 2
        assert await s.spent() == ANSWERED
        assert await s.journal() == ["RESULT model#1"]


async def test_the_process_crashes_after_an_answer() -> None:
    model = ScriptedModel(["It is well."])
    async with scene(Model(model)) as s:
        await s.rt.crash(at="note")
        assert await (await s.start(AsksThenNotes)).result() == "It is well."
        assert s.rt.crashed == 1
        assert len(model.requests) == 1
        assert await s.spent() == ANSWERED
        assert await s.journal() == ["RESULT model#1", "RESULT note#1"]


async def test_the_process_crashes_during_an_effect() -> None:
    async with scene([PAYS, "Done."]) as s:
        await s.rt.crash(at="pay")
        handle = await s.start(Pays, "effect")
        await s.rt.clock.advance(61)
        assert (await handle.info()).waiting_for == "operator:pay"
        assert len(s.shop.paid) == 1
        await handle.resolve("pay", "done", result="paid 17")
        assert await handle.result() == "Done."
        assert len(s.shop.paid) == 1
        assert [said for said in await s.journal() if "pay" in said] == ["INTENT pay#1", "RESULT pay#1"]


async def test_the_worker_is_drained_during_a_call(tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/agents.db"
    async with scene([Delay(3600), "never heard"], state=state) as s:
        await s.start()
    async with scene(["It is well."], state=state) as s:
        await s.rt.settle()
        assert await s.rt.handle("r", Asks).result() == "It is well."
        assert await s.spent() == ANSWERED
        assert await s.journal() == ["RESULT model#1"]


async def test_the_run_is_cancelled_during_a_call() -> None:
    model = ScriptedModel([Delay(3600), "too late"])
    async with scene(Model(model)) as s:
        handle = await s.start()
        await handle.cancel("enough")
        await s.rt.settle()
        with pytest.raises(RunCancelled, match="enough"):
            await handle.result()
        assert len(model.requests) == 1
        assert model.slots.borrowed_tokens == 0
        assert await s.spent() == QUESTION
        assert await s.journal() == ["CANCEL cancel", "ERROR model#1 RunCancelled"]


async def test_the_deadline_of_the_run_passes_during_a_call() -> None:
    model = ScriptedModel([Delay(3600), "too late"])
    async with scene(Model(model, policy=Policy("chat", retry=AGAIN, timeout_s=600))) as s:
        handle = await s.start(timeout_s=60)
        await s.rt.clock.advance(60)
        with pytest.raises(RunTimeout):
            await handle.result()
        assert len(model.requests) == 1
        assert model.slots.borrowed_tokens == 0
        assert await s.spent() == QUESTION
        assert await s.journal() == ["CANCEL cancel", "ERROR model#1 RunCancelled"]


# Money


async def test_the_budget_is_used_up() -> None:
    model = ScriptedModel(["It is well."])
    async with scene(Model(model)) as s:
        assert await error_of(await s.start(budget=Budget(tokens=ANSWER_TOKENS))) == "BudgetExceeded"
        assert model.requests == []
        assert await s.spent() == 0
        assert await s.journal() == ["ERROR model#1 BudgetExceeded"]


async def test_the_soft_limit_of_a_budget_is_passed() -> None:
    async with scene(["It is well."]) as s:
        handle = await s.start(budget=Budget(tokens=5_000, soft=0.001))
        assert await handle.result() == "It is well."
        assert [event.account async for event in handle.events() if isinstance(event, BudgetEvent)] == ["run/r"]
        assert await s.spent() == ANSWERED
        assert await s.journal() == ["RESULT model#1"]


# Tools


async def test_a_tool_fails() -> None:
    model = ScriptedModel([PAYS, "Sorry."])
    async with scene(Model(model)) as s:
        s.shop.fails = True
        assert await (await s.start(Pays, "plain")).result() == "Sorry."
        assert "pay failed: ValueError: no such order" in model.prompts[1]
        assert await s.journal() == ["RESULT model#1", "ERROR pay#1 ValueError", "RESULT model#2"]


async def test_a_tool_hangs() -> None:
    model = ScriptedModel([PAYS, "Sorry."])
    async with scene(Model(model)) as s:
        s.shop.takes_s = 3600
        handle = await s.start(Pays, "bounded")
        await s.rt.clock.advance(30)
        assert await handle.result() == "Sorry."
        assert "pay failed: DeadlineExceeded" in model.prompts[1]
        assert s.shop.paid == []
        assert await s.journal() == ["RESULT model#1", "ERROR pay#1 DeadlineExceeded", "RESULT model#2"]


async def test_the_arguments_of_a_tool_do_not_fit() -> None:
    model = ScriptedModel([ToolCall("pay", number=17), "Sorry."])
    async with scene(Model(model)) as s:
        assert await (await s.start(Pays, "plain")).result() == "Sorry."
        assert "pay was not called, for its arguments do not fit" in model.prompts[1]
        assert s.shop.paid == []
        assert await s.journal() == ["RESULT model#1", "RESULT model#2"]


async def test_the_principal_lacks_a_permission() -> None:
    model = ScriptedModel([PAYS, "Sorry."])
    async with scene(Model(model)) as s:
        assert await (await s.start(Pays, "permitted", principal=Principal(id="ann"))).result() == "Sorry."
        assert "PermissionDenied: tool 'pay': principal 'ann' lacks 'orders:pay'" in model.prompts[1]
        assert s.shop.paid == []
        assert await s.journal() == ["RESULT model#1", "ERROR pay#1 PermissionDenied", "RESULT model#2"]


async def test_a_human_refuses_a_call() -> None:
    model = ScriptedModel([PAYS, "Sorry."])
    async with scene(Model(model)) as s:
        handle = await s.start(Pays, "approved")
        assert (await handle.info()).waiting_for == "approval:pay"
        await handle.resolve("pay", "fail", result="too much")
        assert await handle.result() == "Sorry."
        assert "NotApproved: a human refused it: too much" in model.prompts[1]
        assert s.shop.paid == []
        assert await s.journal() == ["RESULT model#1", "APPROVAL pay#1", "ERROR pay#1 NotApproved", "RESULT model#2"]


# Too much at a time


async def test_the_queue_is_full() -> None:
    async with scene(["It is well."], settings=Settings(queue="memory://?max_depth=1", grace_s=0.0), worker=False) as s:
        await s.rt.submit(Asks, "How is it?", run_id="first")
        with pytest.raises(QueueFull):
            await s.start()
        (row,) = await s.rt.store.get(["r"])
        assert row is not None
        assert await s.journal() == []


async def test_the_runtime_has_too_many_runs_waiting() -> None:
    async with scene([Delay(3600), "It is well."], settings=Settings(concurrency=1, max_waiting=0, grace_s=0.0)) as s:
        await s.rt.submit(Asks, "How is it?", run_id="first")
        await s.rt.settle()
        with pytest.raises(Overloaded):
            await s.rt.run(Asks, "How is it?", run_id="r")
        assert await s.rt.store.get(["r"]) == [None]
