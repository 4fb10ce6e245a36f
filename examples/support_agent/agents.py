"""The agents. `Support` talks; before it answers, `ReadIntent` says what is wanted and `FindPassages` what the handbook says of it."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel

from agentkit import Agent, ChatAgent, Context, Done, Guardrail, Policy, Retry, Ruling, StepContext, UserMessage, tool
from examples.support_agent.shop import HANDBOOK, Order, Passage, Shop

SHOP = Policy("shop", timeout_s=10, retry=Retry(attempts=3, on=(ConnectionError,)))
CARD_NUMBER = re.compile(r"\b(?:\d[ -]?){13,16}\b")
MOST_CENTS = 20_000  # the handbook: above 200 euro a colleague decides
PASSAGES = 2  # more would only distract the model


class Intent(BaseModel):
    """What a customer wants."""

    topic: Literal["order", "refund", "question", "smalltalk"]
    order_id: str | None = None


class ReadIntent(Agent[str, Intent]):
    """Says what a message is about. A small model does."""

    async def run(self, ctx: Context, text: str) -> Intent:
        prompt = f"What does this customer of a shop want, and which order is it about?\n\n{text}"
        return (await ctx.generate(prompt, output=Intent, model="cheap")).output


class FindPassages(Agent[str, list[Passage]]):
    """Finds what the handbook says."""

    async def run(self, ctx: Context, text: str) -> list[Passage]:
        return await ctx.step("search", search, text)


async def search(step: StepContext, text: str) -> list[Passage]:
    """The passages that are nearest in meaning. Only they are journalled; vectors are big and can be made again."""
    wanted, *known = await step.models.embed("embedding", [text, *(f"{passage.title}. {passage.text}" for passage in HANDBOOK)])
    nearness = [sum(a * b for a, b in zip(wanted, vector, strict=True)) for vector in known]
    ranked = sorted(range(len(HANDBOOK)), key=lambda at: -nearness[at])
    return [HANDBOOK[at] for at in ranked[:PASSAGES]]


@tool(policy=SHOP)
async def look_up_order(step: StepContext, order_id: str) -> Order:
    """Status and price of an order of this customer."""
    return await step.get(Shop).order(order_id, step.principal.id)


async def refunded(step: StepContext, order_id: str, cents: int) -> Done[str] | None:
    """Asked after a crash in the middle of a refund: was it paid?"""
    receipt = await step.get(Shop).receipt(step.idempotency_key)
    return None if receipt is None else Done(receipt)


@tool(effect="ask", probe=refunded, requires={"orders:refund"}, policy=SHOP)
async def refund(step: StepContext, order_id: str, cents: int) -> str:
    """Refund part of an order of this customer; returns the receipt."""
    order = await step.get(Shop).order(order_id, step.principal.id)
    return await step.get(Shop).refund(order, cents, key=step.idempotency_key)


class HouseRules(Guardrail):
    """Card numbers never reach a model, and no model pays much."""

    async def input(self, ctx: StepContext, message: UserMessage) -> Ruling:
        return Ruling.replace(CARD_NUMBER.sub("[card number]", message.text))

    async def tool(self, ctx: StepContext, name: str, arguments: dict[str, Any]) -> Ruling:
        if name == "refund" and arguments.get("cents", 0) > MOST_CENTS:
            return Ruling.block(f"a colleague decides on more than {MOST_CENTS / 100:.0f} euro; say that somebody will write")
        return Ruling.passes()


class Support(ChatAgent):
    """Answers customers of the shop."""

    model = "chat"
    instructions = "You are the shop's support agent. Answer in two sentences at most, and promise nothing that the handbook does not."
    tools = (look_up_order, refund)
    guardrails = (HouseRules(),)
    max_history_tokens = 16_000

    async def prepare(self, ctx: Context, message: UserMessage) -> str:
        intent = await ctx.run("intent", ReadIntent, message.text)
        passages = [] if intent.topic == "smalltalk" else await ctx.run("retrieve", FindPassages, message.text)
        about = [
            f"The customer is {ctx.principal.id or 'not signed in'}. It is about: {intent.topic}, order {intent.order_id or 'unknown'}."
        ]
        return "\n".join([self.instructions, *about, *(f"Handbook, {passage.title}: {passage.text}" for passage in passages)])
