"""The support agent: what is wanted, what the handbook says, the tools and the rules of the house, whatever crashes."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agentkit import Principal, RunHandle, Session
from agentkit.testing import LocalRuntime, runtime
from examples.support_agent import rules
from examples.support_agent.agents import Support
from examples.support_agent.app import AGENTS
from examples.support_agent.shop import Shop
from tests.examples.crashes import crashed

ANN = Principal(id="ann", permissions=frozenset({"orders:refund"}))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "refunds.json")


def support(shop: Shop) -> AbstractAsyncContextManager[LocalRuntime]:
    return runtime(agents=AGENTS, models=rules.models(), resources={Shop: shop})


def session(rt: LocalRuntime, who: Principal = ANN) -> Session[str]:
    return rt.session(Support, who.id, tenant="shop", principal=who)


async def ask(rt: LocalRuntime, text: str, who: Principal = ANN) -> str:
    handle: RunHandle[str] = await session(rt, who).send(text)
    return await handle.result()


async def test_intent_retrieval_answer_and_tool_are_steps_and_agents_of_their_own(shop: Shop) -> None:
    async with support(shop) as rt:
        handle = await session(rt).send("Where is order 17?")
        assert await handle.result() == "Your order 17, a desk lamp, was sent on Monday."
        steps = [step for step in await rt.steps(handle.run_id) if not step.startswith("guard:")]
        assert steps == ["intent#1", "retrieve#1", "model#1", "look_up_order#1", "model#2"]
        children = [info.agent async for info in rt.runs() if info.parent_id == handle.run_id]
        assert sorted(children) == ["find-passages", "read-intent"]


async def test_a_question_is_answered_from_the_handbook(shop: Shop) -> None:
    async with support(shop) as rt:
        assert "within 30 days" in await ask(rt, "Within how many days can goods be returned?")


async def test_the_conversation_is_known_the_next_time(shop: Shop) -> None:
    async with support(shop) as rt:
        await ask(rt, "Where is order 17?")
        await ask(rt, "Hello again")
        assert [m.content for m in await session(rt).history() if m.role == "user"] == ["Where is order 17?", "Hello again"]


async def test_a_card_number_reaches_no_model_and_is_not_kept(shop: Shop) -> None:
    models = rules.models()
    async with runtime(agents=AGENTS, models=models, resources={Shop: shop}) as rt:
        await ask(rt, "Refund order 18 to 4111 1111 1111 1111")
        kept = [m.content for m in await session(rt).history()]
    asked = models["chat"].prompts + models["cheap"].prompts
    assert any("[card number]" in prompt for prompt in asked)
    assert not any("4111" in text for text in asked + kept)


async def test_who_may_not_refund_is_told_so_and_nothing_is_paid(shop: Shop) -> None:
    async with support(shop) as rt:
        assert "lacks 'orders:refund'" in await ask(rt, "Refund order 18", Principal(id="ann"))
    assert await shop.refunds() == {}


async def test_what_a_colleague_decides_is_not_paid_by_a_model(shop: Shop) -> None:
    async with support(shop) as rt:
        who = Principal(id="ben", permissions=frozenset({"orders:refund"}))
        assert "a colleague decides" in await ask(rt, "I want my money back for order 19", who)
    assert await shop.refunds() == {}


async def test_orders_of_others_are_not_shown(shop: Shop) -> None:
    async with support(shop) as rt:
        assert "ann has no order '19'" in await ask(rt, "Where is order 19?")


@pytest.mark.parametrize("before", [True, False])
async def test_a_crash_in_the_middle_of_a_refund_pays_once_and_asks_nobody(shop: Shop, before: bool) -> None:
    async with support(shop) as rt:
        handle = await session(rt).send("Please refund order 18")
        await rt.crash(at="refund", before=before)
        await crashed(rt)
        assert await handle.result() == "It is done, receipt 1: 35.00 euro for order 18."
    assert [refund.cents for refund in (await shop.refunds()).values()] == [3500]


async def test_a_refund_is_not_paid_again_by_another_message(shop: Shop) -> None:
    async with support(shop) as rt:
        await ask(rt, "Please refund order 18")
        assert "there are 0 cents left" in await ask(rt, "Please refund order 18")
    assert len(await shop.refunds()) == 1
