"""What models cost: prices as data, each with the day from which it holds, and costs in whole micro-dollars.

Sums of floats drift, so nothing is added up in dollars: a cost is a whole number of millionths of a dollar, rounded up once for each call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from agentkit.inference.spend import MICRO, Spend
from agentkit.inference.tokens import request_tokens
from agentkit.ports.messages import Request, Usage

ANSWER_TOKENS = 1_000  # of an answer whose length nobody limited: most are shorter
logger = logging.getLogger(__name__)


class Price(BaseModel):
    """What a model costs, in dollars for `per` tokens.

    Args:
        input: for what the model reads.
        output: for what it writes.
        cached_input: for what it reads and had kept from an earlier call; None: as much as `input`.
        per: tokens that the numbers are for.
        as_of: the day from which they hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    input: float = Field(ge=0)
    output: float = Field(default=0.0, ge=0)  # an embedding writes nothing
    cached_input: float | None = Field(default=None, ge=0)
    per: int = Field(default=1_000_000, ge=1)  # as the price lists are written
    as_of: date

    def micro_usd(self, usage: Usage) -> int:
        """What a call costs, in millionths of a dollar, rounded up."""
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        rate = self.input if self.cached_input is None else self.cached_input
        dollars = (
            _exact(self.input) * (usage.input_tokens - cached) + _exact(rate) * cached + _exact(self.output) * usage.output_tokens
        ) / self.per
        return ceil(dollars * MICRO)


def _exact(dollars: float) -> Fraction:
    """The number as it was written, and not the nearest binary one."""
    return Fraction(Decimal(repr(dollars)))


class Estimate(NamedTuple):
    """What a call may cost, before it is sent: the whole of it, and its question alone."""

    whole: Spend
    question: Spend


def estimate(request: Request, price: Price | None) -> Estimate:
    """What a request may cost: its tokens by their estimate, and an answer of `max_tokens`, or of `ANSWER_TOKENS` where it has no limit."""
    asked = Usage(input_tokens=request_tokens(request))
    whole = asked.model_copy(update={"output_tokens": ANSWER_TOKENS if request.max_tokens is None else request.max_tokens})
    return Estimate(_spend(whole, price), _spend(asked, price))


def _spend(usage: Usage, price: Price | None) -> Spend:
    return Spend(0 if price is None else price.micro_usd(usage), usage.input_tokens + usage.output_tokens)


class PriceTable:
    """The prices of models by name. A model may have several, each from its day on: a new price can be deployed before it holds.

    Args:
        prices: by the name under which the model is asked.
    """

    def __init__(self, prices: Mapping[str, Price | Sequence[Price]] | None = None) -> None:
        listed = {model: [price] if isinstance(price, Price) else list(price) for model, price in (prices or {}).items()}
        self._prices = {model: sorted(many, key=lambda price: price.as_of) for model, many in listed.items() if many}
        self._said: set[str] = set()

    def price(self, model: str, day: date) -> Price | None:
        """The price that holds on that day: the newest, and before all of them the oldest. None where the model has none."""
        known = self._prices.get(model)
        if known is None:
            return None
        return max((price for price in known if price.as_of <= day), key=lambda price: price.as_of, default=known[0])

    def priced(self, model: str, usage: Usage, day: date) -> Usage:
        """The usage with its cost. What an engine says itself counts; a model without a price costs nothing."""
        if usage.usd:
            return usage
        price = self.price(model, day)
        return usage if price is None else usage.model_copy(update={"usd": price.micro_usd(usage) / MICRO})

    def missed(self, model: str) -> None:
        """Say, once, that a budget in dollars cannot bound a model. Where nobody counts dollars a price is not missed."""
        if model not in self._said:
            self._said.add(model)
            logger.warning("model %r has no price: its calls count as 0 USD, and no budget in dollars bounds them", model)
