"""What model calls cost the runs that make them: reserved, settled, inherited, and never paid twice."""

from __future__ import annotations

from datetime import date
from itertools import repeat
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit.agents.base import Agent, AnyAgent
from agentkit.agents.context import Context
from agentkit.agents.meta import RunMeta
from agentkit.agents.spending import Due, accounts_of, due
from agentkit.agents.step_context import StepContext
from agentkit.agents.tenants import Tenant
from agentkit.errors import (
    AgentKitError,
    BudgetExceeded,
    EngineFailed,
    InferenceTimeout,
    NoTimeLeft,
    RateLimited,
    RequestRefused,
    RunError,
    StepError,
    StoreUnavailable,
    StreamBroken,
    Unreachable,
)
from agentkit.inference.budgets import Budget
from agentkit.inference.ledger import Ledger
from agentkit.inference.places import Model
from agentkit.inference.pricing import ANSWER_TOKENS, Estimate, Price
from agentkit.inference.spend import Spend
from agentkit.inmemory.inference import Delay
from agentkit.ports.messages import Usage
from agentkit.ports.records import Run, RunStatus
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Retry
from agentkit.runtime.events import BudgetEvent
from agentkit.testing.models import ScriptedModel
from agentkit.testing.runtime import LocalRuntime, runtime
from tests.core.spenders import NOW

PRICE = Price(input=1.0, output=2.0, as_of=date(2026, 1, 1))  # a micro-dollar a token read, two a token written
ESTIMATE = Estimate(whole=Spend(90, 60), question=Spend(30, 20))
TOLD = Usage(input_tokens=7, output_tokens=3, usd=0.000_013)


def row(run_id: str = "r", tenant: str = "acme") -> Run:
    return Run(
        run_id, "ask", "1", RunStatus.RUNNING, "w", 1, 0, 0, True, 0, 1, tenant, "", None, "", 0, False, 0, 0, None, None, "", 60.0,
        b"", b"", "", "", NOW, NOW, None,
    )  # fmt: skip


# Who pays


def test_a_run_pays_from_its_own_budget_those_it_inherits_its_session_and_its_tenants_day() -> None:
    meta = RunMeta(budgets={"root": Budget(usd=5.0), "root/child": Budget(usd=1.0)}, session="s-1")
    tenant = Tenant(id="acme", budget_per_day=Budget(usd=50.0), budget_per_session=Budget(tokens=9))
    accounts = accounts_of(row(), meta, tenant, 1_795_305_599.0)
    assert [account.id for account in accounts] == ["run/root", "run/root%2Fchild", "session/acme/s-1", "tenant/acme/2026-11-21"]
    assert accounts_of(row(), meta, tenant, 1_795_305_600.0)[-1].id == "tenant/acme/2026-11-22"


def test_nobody_pays_where_nothing_is_limited() -> None:
    assert accounts_of(row(), RunMeta(session="s-1"), Tenant(id="acme"), NOW) == []


def test_accounts_of_different_names_are_different_whatever_their_length_and_letters() -> None:
    limit = Tenant(id="t", budget_per_session=Budget(usd=1.0))
    names = [("a/b", "c"), ("a", "b/c"), ("a", "ü" * 300), ("a", "ü" * 301), ("ü" * 400, "c")]
    ids = [accounts_of(row(tenant=tenant), RunMeta(session=session), limit, NOW)[0].id for tenant, session in names]
    assert len(set(ids)) == len(names)
    assert max(len(made.encode()) for made in ids) <= 480


# What is due


@pytest.mark.parametrize(
    ("told", "error", "leaves", "expected"),
    [
        (TOLD, None, False, Due(spent=Spend(13, 10, 3))),
        (TOLD, StreamBroken("eu1", "cut"), False, Due(failed=Spend(13, 10, 3))),
        (TOLD, KeyboardInterrupt(), True, Due(stays=True)),
        (None, None, False, Due(spent=ESTIMATE.question)),
        (Usage(), None, False, Due(spent=ESTIMATE.question)),
        (None, InferenceTimeout("eu1", "late"), False, Due(failed=ESTIMATE.question)),
        (None, EngineFailed("eu1", "500"), True, Due(failed=ESTIMATE.question)),
        (None, ValueError("whatever"), False, Due(failed=ESTIMATE.question)),
        (None, Unreachable("eu1", "no route"), False, Due()),
        (None, RateLimited("eu1", "429"), False, Due()),
        (None, RequestRefused("eu1", "400"), False, Due()),
        (None, NoTimeLeft("chat"), False, Due()),
        (None, StoreUnavailable("limits", "gone"), False, Due()),
        (None, KeyboardInterrupt(), False, Due(failed=ESTIMATE.question)),
        (None, KeyboardInterrupt(), True, Due(stays=True)),
    ],
)
def test_what_is_booked_is_the_truth_or_the_question_of_what_may_have_been_computed(
    told: Usage | None, error: BaseException | None, leaves: bool, expected: Due
) -> None:
    assert due(ESTIMATE, told, error, leaves=leaves) == expected


# Runs that spend


class Ask(Agent[str, str]):
    """Asks its model once."""

    async def run(self, ctx: Context, input: str, /) -> str:
        return (await ctx.generate(input)).output


class AskTwice(Agent[str, list[str]]):
    """Asks its model twice."""

    async def run(self, ctx: Context, input: str, /) -> list[str]:
        first = await ctx.generate(f"{input} 1")
        await ctx.durable()
        return [first.output, (await ctx.generate(f"{input} 2")).output]


class AskMany(Agent[int, list[str]]):
    """Asks through children, side by side."""

    async def run(self, ctx: Context, input: int, /) -> list[str]:
        return await ctx.map("ask", Ask, [f"Question {n}?" for n in range(input)], key=lambda question: question)


class Patient(Agent[str, str]):
    """Asks for more when its budget is used up."""

    async def run(self, ctx: Context, input: str, /) -> str:
        try:
            return (await ctx.generate(input)).output
        except StepError as exc:
            if exc.kind != "BudgetExceeded":
                raise
        await ctx.extend_budget(Budget(tokens=5_000))
        return (await ctx.generate(input)).output


AGENTS: list[AnyAgent] = [Ask, AskTwice, AskMany, Patient]
MODELS = {"default": repeat("It is well.")}


def priced(replies: Any) -> dict[str, object]:
    return {"default": Model(ScriptedModel(replies), price=PRICE)}


async def ledger(rt: LocalRuntime, budget: Budget, run_id: str = "r") -> Ledger:
    (account,) = accounts_of(row(run_id), RunMeta(budgets={run_id: budget}), Tenant(id=""), NOW)
    (found,) = await rt.engine.services.budgets.look([account], now=rt.clock.time())
    return found


async def test_a_run_spends_what_its_model_says_and_holds_nothing_after() -> None:
    budget = Budget(usd=1.0)
    async with runtime(agents=AGENTS, models=priced(["It is well."])) as rt:
        await rt.run(Ask, "How is it?", run_id="r", budget=budget)
        assert (await ledger(rt, budget)).spent == Spend(4 + 2 * 3, 4 + 3, 3)  # "user: How is it?", "It is well."
        assert (await ledger(rt, budget)).reserved == Spend()


@pytest.mark.parametrize(("budget", "missed"), [(Budget(usd=1.0), 1), (Budget(tokens=5_000), 0), (None, 0)])
async def test_a_price_is_missed_where_dollars_are_counted(budget: Budget | None, missed: int, caplog: pytest.LogCaptureFixture) -> None:
    async with runtime(agents=AGENTS, models={"default": ScriptedModel(repeat("It is well."))}) as rt:
        await rt.run(AskTwice, "How is it?", run_id="r", budget=budget)
    assert sum("has no price" in record.getMessage() for record in caplog.records) == missed


async def test_a_call_that_may_cost_more_than_is_left_is_not_sent_and_fails_its_step() -> None:
    model = ScriptedModel(repeat("It is well."))
    async with runtime(agents=AGENTS, models={"default": model}) as rt:
        with pytest.raises(RunError) as caught:
            await rt.run(AskTwice, "How is it?", run_id="r", budget=Budget(tokens=ANSWER_TOKENS + 12))
        assert caught.value.kind == "BudgetExceeded"
        assert "1,012 tokens allowed" in caught.value.message
        assert len(model.requests) == 1


async def test_children_spend_from_the_budget_of_their_root_and_what_none_of_them_uses_is_there_for_the_next() -> None:
    model, budget = ScriptedModel(repeat("It is well.")), Budget(tokens=ANSWER_TOKENS + 60)
    async with runtime(agents=AGENTS, models={"default": model}) as rt:
        await rt.run(AskMany, 8, run_id="r", budget=budget)
        assert (await ledger(rt, budget)).spent.tokens == 8 * 6
        with pytest.raises(RunError) as caught:
            await rt.run(AskMany, 20, run_id="s", budget=budget)
        assert caught.value.kind == "BudgetExceeded"
        assert 50 < (await ledger(rt, budget, "s")).spent.tokens <= 60


async def test_a_call_waits_for_a_slow_one_that_holds_what_it_needs() -> None:
    model = ScriptedModel([Delay(30.0), "It is well.", "It is better."])
    async with runtime(agents=AGENTS, models={"default": model}) as rt:
        handle = await rt.submit(AskMany, 2, budget=Budget(tokens=ANSWER_TOKENS + 60))
        await rt.settle()
        assert len(model.requests) == 1
        await rt.clock.advance(31.0)
        assert sorted(await handle.result()) == ["It is better.", "It is well."]


async def test_children_that_fit_are_rolled_up_once() -> None:
    budget = Budget(usd=1.0)
    async with runtime(agents=AGENTS, models=priced(repeat("It is well."))) as rt:
        await rt.run(AskMany, 8, run_id="r", budget=budget)
        assert (await ledger(rt, budget)).spent.tokens == 8 * (3 + 3)


@pytest.mark.parametrize("before", [True, False])
async def test_a_run_that_crashes_in_a_call_is_not_charged_for_it_twice(before: bool) -> None:
    budget = Budget(tokens=5_000)
    async with runtime(agents=AGENTS, models={"default": ScriptedModel(repeat("It is well."))}) as rt:
        await rt.crash(at="model", before=before)
        handle = await rt.submit(AskTwice, "How is it?", run_id="r", budget=budget)
        await rt.settle()
        assert rt.crashed == 1
        assert await handle.result() == ["It is well."] * 2
        found = await ledger(rt, budget)
        assert found.spent.tokens == 2 * (5 + 3)
        assert found.reserved == Spend()


async def test_a_finished_step_that_is_replayed_costs_nothing() -> None:
    budget = Budget(tokens=5_000)
    model = ScriptedModel(repeat("It is well."))
    async with runtime(agents=AGENTS, models={"default": model}) as rt:
        await rt.crash(at="model#2", before=True)
        handle = await rt.submit(AskTwice, "How is it?", run_id="r", budget=budget)
        await rt.settle()
        await handle.result()
        assert rt.crashed == 1
        assert len(model.requests) == 2
        assert (await ledger(rt, budget)).spent.tokens == 2 * (5 + 3)


async def test_a_failed_call_costs_its_question_and_the_next_attempt_what_it_takes() -> None:
    budget = Budget(tokens=5_000)

    class Stubborn(Agent[str, str]):
        """Asks again when the engine failed."""

        async def run(self, ctx: Context, input: str, /) -> str:
            try:
                return (await ctx.generate(input)).output
            except StepError:
                return (await ctx.generate(input)).output

    async with runtime(agents=[Stubborn], models={"default": ScriptedModel([EngineFailed("eu1", "500"), "It is well."])}) as rt:
        await rt.run(Stubborn, "How is it?", run_id="r", budget=budget)
        question = 4 + 4  # of 10 characters, and its frame
        assert (await ledger(rt, budget)).spent.tokens == question + 4 + 3


async def test_a_call_that_was_not_computed_costs_nothing() -> None:
    budget = Budget(tokens=5_000)
    async with runtime(agents=AGENTS, models={"default": ScriptedModel([RateLimited("eu1", "slow down")])}) as rt:
        with pytest.raises(RunError):
            await rt.run(Ask, "How is it?", run_id="r", budget=budget)
        found = await ledger(rt, budget)
        assert (found.spent, found.reserved) == (Spend(), Spend())


async def test_a_cancelled_call_costs_its_question_and_holds_nothing() -> None:
    budget = Budget(tokens=5_000)
    async with runtime(agents=AGENTS, models={"default": ScriptedModel([Delay(60.0), "It is well."])}) as rt:
        handle = await rt.submit(Ask, "How is it?", run_id="r", budget=budget)
        await rt.settle()
        assert (await ledger(rt, budget)).reserved.tokens == 8 + ANSWER_TOKENS
        await handle.cancel()
        await rt.settle()
        found = await ledger(rt, budget)
        assert (found.spent.tokens, found.reserved) == (8, Spend())


async def test_a_run_that_leaves_in_a_call_keeps_its_reservation_for_its_next_activation() -> None:
    budget = Budget(tokens=5_000)
    async with runtime(agents=AGENTS, models={"default": ScriptedModel([Delay(60.0), "Too late.", "It is well."])}) as rt:
        handle = await rt.submit(Ask, "How is it?", run_id="r", budget=budget)
        await rt.settle()
        await rt.engine.crash()
        await rt.settle()
        assert await handle.result() == "It is well."
        found = await ledger(rt, budget)
        assert (found.spent.tokens, found.reserved) == (4 + 3, Spend())


async def test_a_reservation_outlives_the_process_that_made_it(tmp_path: Path) -> None:
    budget, state = Budget(tokens=5_000), f"sqlite:///{tmp_path}/agents.db"
    async with runtime(agents=AGENTS, models={"default": ScriptedModel([Delay(60.0), "Too late."])}, state=state) as rt:
        await rt.submit(Ask, "How is it?", run_id="r", budget=budget)
        await rt.settle()
    async with runtime(agents=AGENTS, state=state, worker=False) as rt:
        found = await ledger(rt, budget)
        assert (found.spent, found.reserved.tokens) == (Spend(), 8 + ANSWER_TOKENS)


async def test_an_attempt_that_failed_costs_its_question_and_leaves_the_calls_own_entry_to_the_next() -> None:
    budget = Budget(tokens=5_000)

    async def by_hand(step: StepContext) -> str:
        return (await step.models.generate("default", "How is it?")).output

    class Retries(Agent[None, str]):
        """Calls its model in a step with a policy."""

        async def run(self, ctx: Context, input: None, /) -> str:
            return await ctx.step("by hand", by_hand, policy=Policy("patient", retry=Retry(attempts=2, wait_s=1.0)))

    async with runtime(agents=[Retries], models={"default": ScriptedModel([EngineFailed("eu1", "500"), "It is well."])}) as rt:
        handle = await rt.submit(Retries, None, run_id="r", budget=budget)
        await rt.settle()
        await rt.clock.advance(10.0)
        assert await handle.result() == "It is well."
        assert (await ledger(rt, budget)).spent.tokens == 8 + 4 + 3


async def test_more_may_be_allowed_from_inside_the_run_once() -> None:
    budget = Budget(tokens=100)
    async with runtime(agents=AGENTS, models={"default": ScriptedModel(["It is well."])}) as rt:
        await rt.crash(at="extend_budget")
        handle = await rt.submit(Patient, "How is it?", run_id="r", budget=budget)
        await rt.settle()
        assert rt.crashed == 1
        assert await handle.result() == "It is well."
        assert (await ledger(rt, budget)).allowed(budget) == (None, 5_100)


async def test_extending_where_nothing_is_limited_changes_nothing() -> None:
    class Generous(Agent[str, str]):
        """Allows itself more, without need."""

        async def run(self, ctx: Context, input: str, /) -> str:
            await ctx.extend_budget(Budget(usd=1.0))
            return (await ctx.generate(input)).output

    async with runtime(agents=[Generous], models={"default": ScriptedModel(["It is well."])}) as rt:
        assert await rt.run(Generous, "How is it?") == "It is well."


async def test_the_soft_limit_is_told_once_as_an_event() -> None:
    async with runtime(agents=AGENTS, models={"default": ScriptedModel(repeat("It is well."))}) as rt:
        handle = await rt.submit(AskTwice, "How is it?", run_id="r", budget=Budget(tokens=2_000, soft=0.002))
        await handle.result()
        events = [event async for event in handle.events() if isinstance(event, BudgetEvent)]
        assert [(event.account, event.tokens, event.usd, event.soft) for event in events] == [("run/r", 2_000, None, 0.002)]


async def test_a_tenants_day_is_shared_by_its_runs_and_ends_with_the_day() -> None:
    tenants = {"acme": Tenant(id="acme", budget_per_day=Budget(tokens=ANSWER_TOKENS + 13))}
    async with runtime(agents=AGENTS, models={"default": ScriptedModel(repeat("It is well."))}, tenants=tenants) as rt:
        await rt.run(Ask, "How is it?", tenant="acme")
        with pytest.raises(RunError, match="tenant/acme/"):
            await rt.run(Ask, "How is it?", tenant="acme")
        await rt.clock.advance(86_400)
        await rt.run(Ask, "How is it?", tenant="acme")


async def test_calls_that_a_step_makes_itself_are_on_the_runs_account_each_for_itself() -> None:
    budget = Budget(tokens=5_000)

    async def both(step: StepContext) -> list[str]:
        return [(await step.models.generate("default", f"How is it {n}?")).output for n in (1, 2)]

    class ByHand(Agent[None, list[str]]):
        """Calls its model inside of a step of its own."""

        async def run(self, ctx: Context, input: None, /) -> list[str]:
            return await ctx.step("both", both)

    async with runtime(agents=[ByHand], models={"default": ScriptedModel(repeat("It is well."))}) as rt:
        await rt.run(ByHand, None, run_id="r", budget=budget)
        assert (await ledger(rt, budget)).spent.tokens == 2 * (5 + 3)


async def test_a_store_that_does_not_take_the_settlement_does_not_cost_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(agents=AGENTS, models={"default": ScriptedModel(["It is well."])}) as rt:

        async def gone(*_: object, **__: object) -> list[object]:
            await anyio.lowlevel.checkpoint()
            raise StoreUnavailable("values", "gone")

        monkeypatch.setattr(rt.engine.services.budgets, "settle", gone)
        assert await rt.run(Ask, "How is it?", run_id="r", budget=Budget(tokens=5_000)) == "It is well."


def test_a_budget_exceeded_is_one_of_our_errors_and_no_fault_of_the_backend() -> None:
    error = BudgetExceeded("run/r", "usd", limit=5.0, spent=4.5, asked=0.75)
    assert isinstance(error, AgentKitError)
    assert not error.counts_as_failure
    assert str(error) == (
        "budget of 'run/r': 5 usd allowed, 4.5 spent or reserved, 0.75 asked; ask for less (max_tokens), or allow more (ctx.extend_budget)"
    )
