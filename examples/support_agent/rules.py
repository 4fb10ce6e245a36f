"""Answers by rules, for where there is no server: enough of a model to try the agent out, and the same every time."""

from __future__ import annotations

import re

from agentkit.ports.messages import Request
from agentkit.testing import ScriptedModel, ToolCall
from examples.common.offline import instructions, offline, question, tool_answers
from examples.support_agent.agents import Intent
from examples.support_agent.shop import Order

ORDER_ID = re.compile(r"\border (\w+)\b")


def models(pace_s: float = 0.0) -> dict[str, ScriptedModel]:
    """Every model that the support agent names."""
    return {"chat": offline(talk, pace_s=pace_s), "cheap": offline(read_intent, pace_s=pace_s), "embedding": offline(talk)}


def read_intent(request: Request) -> Intent:
    """By the words of the message."""
    text = question(request).rpartition("\n\n")[2].lower()
    order = ORDER_ID.search(text)
    if "refund" in text or "money back" in text:
        return Intent(topic="refund", order_id=order and order[1])
    if order:
        return Intent(topic="order", order_id=order[1])
    return Intent(topic="question" if "?" in text else "smalltalk")


def talk(request: Request) -> object:
    """Look the order up; pay it back if that is asked for; then say what came of it."""
    told = tool_answers(request)
    if failed := next((answer for answer in told if "failed:" in answer or "was not called" in answer), None):
        return f"I could not do that: {failed}"
    order = re.search(r"It is about: (\w+), order (\w+)\.", instructions(request))
    if order is None or order[2] == "unknown":
        handbook = re.search(r"^Handbook, \w+: (.+)$", instructions(request), re.MULTILINE)
        return handbook[1] if handbook else "Good day! What can I do for you?"
    if not told:
        return ToolCall("look_up_order", order_id=order[2])
    found = Order.model_validate_json(told[0])
    if order[1] == "refund" and len(told) == 1:
        return ToolCall("refund", order_id=found.id, cents=found.cents)
    return f"It is done, {told[1]}." if len(told) > 1 else f"Your order {found.id}, {found.item}, was {found.status}."
