"""Verdicts by rules, for where there is no server."""

from __future__ import annotations

from datetime import date

from agentkit import Model, Price
from agentkit.ports.messages import Request
from examples.common.offline import offline, question
from examples.compliance_reviewer.agents import Verdict

RISKY = {
    "unlimited liability": "its liability has no bound",
    "automatically renewed": "it renews itself",
    "sole discretion": "the other party decides alone",
}
PRICE = Price(input=0.40, output=1.60, as_of=date(2026, 10, 1))  # a price as any: budgets count these answers too


def models(pace_s: float = 0.0) -> dict[str, object]:
    """Every model that the reviewer names."""
    return {"legal": Model(offline(judge, pace_s=pace_s), price=PRICE)}


def judge(request: Request) -> Verdict:
    """Risky are the words above."""
    number, _, text = question(request).rpartition("\n\n")[2].partition(". ")
    reason = next((reason for words, reason in RISKY.items() if words in text.lower()), None)
    return Verdict(clause=number, risk="high" if reason else "low", reason=reason or "usual")
