"""What a run has spent on models, as its info says it: its own calls, each once, and with everything below it where that is asked."""

from __future__ import annotations

from datetime import date
from itertools import repeat
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

from agentkit import Agent, Budget, Context, EngineFailed, Price, RateLimited, RunError, StoreUnavailable, Usage
from agentkit.inference.budgets import Budgets
from agentkit.inference.places import Model
from agentkit.inference.spend import Spend
from agentkit.inference.usage import MAX_ID_BYTES, own_usage, usage_account, whole_usage
from agentkit.inmemory.inference import Delay
from agentkit.inmemory.values import InMemoryValues
from agentkit.testing import ScriptedModel, runtime

PRICE = Price(input=1.0, output=2.0, as_of=date(2026, 1, 1))  # a micro-dollar a token read, two a token written
ASKED, ANSWERED = 5, 3  # tokens of "user: How is it? 1" and of "It is well.", as the scripted model counts
ONCE = Usage(input_tokens=ASKED, output_tokens=ANSWERED, usd=0.000_011)
NOTHING = Usage()


class Ask(Agent[str, str]):
    """Asks its model once, and then waits a day."""

    async def run(self, ctx: Context, input: str, /) -> str:
        said = await ctx.generate(input)
        await ctx.sleep(86_400)
        return said.output


class AskMany(Agent[int, list[str]]):
    """Asks once itself, and then through children."""

    async def run(self, ctx: Context, input: int, /) -> list[str]:
        await ctx.generate("How is it? 0")
        return await ctx.map("ask", Ask, [f"How is it? {n}" for n in range(input)])


class AskAll(Agent[int, list[list[str]]]):
    """Has children that have children."""

    async def run(self, ctx: Context, input: int, /) -> list[list[str]]:
        await ctx.start("apart", Ask, "How is it? 9")
        return await ctx.map("many", AskMany, [input] * 2)


class Silent(Agent[None, None]):
    """Asks nobody."""

    async def run(self, ctx: Context, input: None, /) -> None:
        await ctx.sleep(1)


def priced(replies: Any) -> dict[str, object]:
    return {"default": Model(ScriptedModel(replies), price=PRICE)}


def times(n: int) -> Usage:
    return Usage(input_tokens=n * ASKED, output_tokens=n * ANSWERED, usd=n * 11 / 1_000_000)


async def test_a_run_says_what_it_has_spent_while_it_is_under_way_and_after_its_end() -> None:
    async with runtime(agents=[Ask], models=priced(repeat("It is well."))) as rt:
        handle = await rt.submit(Ask, "How is it? 1")
        await rt.settle()
        info = await handle.info()
        assert (info.status, info.usage) == ("waiting", ONCE)
        await rt.clock.advance(86_401)
        info = await handle.info()
        assert (info.status, info.usage) == ("done", ONCE)


async def test_a_run_that_asks_no_model_spends_nothing_and_writes_nothing_about_it() -> None:
    async with runtime(agents=[Silent]) as rt:
        handle = await rt.submit(Silent, None)
        await rt.clock.advance(2)
        assert (await handle.info()).usage == NOTHING
        assert await rt.values.scan("agentkit/budget/") == []


async def test_each_run_counts_its_own_calls_so_the_runs_of_a_list_add_up_and_the_whole_is_there_on_demand() -> None:
    model = ScriptedModel(repeat("It is well."))
    async with runtime(agents=[AskAll, AskMany, Ask], models={"default": Model(model, price=PRICE)}) as rt:
        handle = await rt.submit(AskAll, 3, run_id="r")
        await rt.submit(Ask, "How is it? 1", run_id="r2")  # its id begins like the other's
        await rt.settle()
        spent = {info.run_id: info.usage async for info in rt.runs()}
        assert spent["r"] == NOTHING
        assert spent["r/many#1/0"] == spent["r/many#1/0/ask#1/2"] == spent["r/apart#1"] == ONCE
        assert sum(usage.input_tokens for usage in spent.values()) == len(model.requests) * ASKED
        assert await handle.usage() == times(2 + 6 + 1)
        assert await rt.handle("r/many#1/1").usage() == times(1 + 3)
        assert await rt.handle("r2").usage() == ONCE


async def test_the_children_of_a_run_are_listed_without_theirs_and_without_what_outlives_it() -> None:
    async with runtime(agents=[AskAll, AskMany, Ask], models=priced(repeat("It is well."))) as rt:
        await rt.submit(AskAll, 2, run_id="r")
        await rt.settle()
        assert [info.run_id async for info in rt.runs(parent="r")] == ["r/many#1/0", "r/many#1/1"]
        assert [info.run_id async for info in rt.runs(parent="r", status="done")] == []
        assert [info.run_id async for info in rt.runs(parent="nobody")] == []


@pytest.mark.parametrize("budget", [None, Budget(tokens=50_000)])
@pytest.mark.parametrize("before", [True, False])
async def test_a_run_that_crashes_in_a_call_and_goes_on_elsewhere_counts_it_once(before: bool, budget: Budget | None) -> None:
    async with runtime(agents=[Ask], models=priced(repeat("It is well."))) as rt:
        await rt.crash(at="model", before=before)
        handle = await rt.submit(Ask, "How is it? 1", budget=budget)
        await rt.settle()
        assert rt.crashed == 1
        assert (await handle.info()).usage == ONCE


async def test_what_was_spent_is_there_in_the_next_process_and_a_replay_adds_nothing(tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/agents.db"
    async with runtime(agents=[AskMany, Ask], models=priced(repeat("It is well.")), state=state) as rt:
        await rt.submit(AskMany, 2, run_id="r")
        await rt.settle()
        await rt.engine.crash()
    async with runtime(agents=[AskMany, Ask], models=priced([]), state=state) as rt:
        await rt.clock.advance(86_401)
        assert await rt.handle("r").result() == ["It is well."] * 2
        assert (await rt.handle("r").info()).usage == ONCE
        assert await rt.handle("r").usage() == times(3)


async def test_a_call_that_failed_counts_its_question_if_it_may_have_been_computed_and_nothing_else() -> None:
    async with runtime(agents=[Ask], models=priced([EngineFailed("eu1", "500"), RateLimited("eu1", "slow down")])) as rt:
        with pytest.raises(RunError):
            await rt.run(Ask, "How is it? 1", run_id="computed")
        with pytest.raises(RunError):
            await rt.run(Ask, "How is it? 1", run_id="refused")
        computed = (await rt.handle("computed").info()).usage
        assert computed.input_tokens > 0
        assert computed.output_tokens == 0
        assert (await rt.handle("refused").info()).usage == NOTHING


async def test_a_call_that_is_cut_off_by_a_cancel_counts_its_question() -> None:
    async with runtime(agents=[Ask], models=priced([Delay(60.0), "It is well."])) as rt:
        handle = await rt.submit(Ask, "How is it? 1")
        await rt.settle()
        await handle.cancel()
        await rt.settle()
        info = await handle.info()
        assert (info.status, info.usage.input_tokens > 0) == ("cancelled", True)


async def test_values_that_are_away_cost_no_answer_and_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(Agent[None, None]):
        """Asks again later."""

        async def run(self, ctx: Context, input: None, /) -> None:
            await ctx.generate("How is it? 1")
            await ctx.sleep(60)
            await ctx.generate("How is it? 2")

    async with runtime(agents=[Twice], models=priced(repeat("It is well."))) as rt:

        async def gone(*_: object, **__: object) -> int:
            await anyio.lowlevel.checkpoint()
            raise StoreUnavailable("values", "gone")

        with monkeypatch.context() as outage:
            outage.setattr(rt.values, "put", gone)
            handle = await rt.submit(Twice, None)
            await rt.settle()
        await rt.clock.advance(61)
        info = await handle.info()
        assert (info.status, info.usage) == ("done", times(2))


async def test_runs_with_ids_of_any_length_have_accounts_of_their_own_and_count_for_the_run_above_them() -> None:
    budgets, root = Budgets(InMemoryValues()), "ü" * 200
    below = [f"{root}/{'x' * n}" for n in (1, MAX_ID_BYTES, MAX_ID_BYTES + 1)] + [f"{root}/{'ü' * MAX_ID_BYTES}"]
    accounts = [usage_account(run_id) for run_id in (root, *below)]
    assert len({account.id for account in accounts}) == len(accounts)
    for account in accounts:
        await budgets.settle([account], "call", Spend(5, 7, 3, 2), now=0.0)
    assert await own_usage(budgets, below[:1]) == [Usage(input_tokens=4, output_tokens=3, usd=0.000_005, cached_input_tokens=2)]
    assert (await whole_usage(budgets, root)).input_tokens == 5 * 4
