"""Prices and estimates: exact, dated, and said when they are missing."""

from __future__ import annotations

import logging
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentkit.inference.pricing import ANSWER_TOKENS, Price, PriceTable, estimate
from agentkit.inference.spend import Spend
from agentkit.inference.tokens import ATTACHMENT_TOKENS, conversation_tokens, estimate_tokens, message_tokens, request_tokens
from agentkit.ports.messages import Attachment, Message, Request, ToolCall, ToolSpec, Usage

DAY = date(2026, 10, 1)
MINI = Price(input=0.40, output=1.60, cached_input=0.10, as_of=DAY)


def usage(read: int, written: int = 0, cached: int = 0) -> Usage:
    return Usage(input_tokens=read, output_tokens=written, cached_input_tokens=cached)


@pytest.mark.parametrize(
    ("read", "written", "cached", "micro_usd"),
    [
        (1_000_000, 0, 0, 400_000),
        (0, 1_000_000, 0, 1_600_000),
        (1_000_000, 0, 1_000_000, 100_000),
        (10, 10, 5, 19),
        (1, 0, 0, 1),
        (0, 0, 0, 0),
    ],
)
def test_a_cost_is_a_whole_number_of_micro_dollars_rounded_up(read: int, written: int, cached: int, micro_usd: int) -> None:
    assert MINI.micro_usd(usage(read, written, cached)) == micro_usd


def test_what_was_kept_costs_as_much_as_what_was_read_where_no_price_says_otherwise() -> None:
    assert Price(input=0.40, as_of=DAY).micro_usd(usage(1_000_000, cached=500_000)) == 400_000


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5)), max_size=50))
def test_a_sum_of_costs_is_the_exact_one_but_for_less_than_a_micro_dollar_a_call(calls: list[tuple[int, int]]) -> None:
    exact = sum((Fraction(4, 10) * read + Fraction(16, 10) * written for read, written in calls), Fraction())
    total = sum(MINI.micro_usd(usage(*call)) for call in calls)
    assert 0 <= total - exact <= len(calls)


@given(st.integers(0, 10**12))
def test_a_cost_survives_its_way_through_dollars(micro_usd: int) -> None:
    assert Spend.of(Usage(usd=Spend(micro_usd).usd)).micro_usd == micro_usd


def test_the_price_of_a_day_is_the_newest_that_holds_on_it() -> None:
    new = Price(input=0.20, output=0.80, as_of=date(2026, 12, 1))
    table = PriceTable({"chat": [new, MINI]})
    days = [date(2026, 1, 1), DAY, date(2026, 11, 30), date(2026, 12, 1), date(2027, 1, 1)]
    assert [table.price("chat", day) for day in days] == [MINI, MINI, MINI, new, new]


def test_a_usage_is_priced_by_the_table_unless_the_engine_named_its_cost() -> None:
    table = PriceTable({"chat": MINI})
    assert table.priced("chat", usage(1_000_000), DAY).usd == 0.4
    assert table.priced("chat", Usage(input_tokens=1_000_000, usd=0.3), DAY).usd == 0.3


def test_a_model_without_a_price_costs_nothing() -> None:
    assert PriceTable({"chat": MINI}).priced("draft", usage(1_000), DAY).usd == 0.0


def test_a_price_that_is_missed_is_asked_for_once(caplog: pytest.LogCaptureFixture) -> None:
    table = PriceTable({"chat": MINI})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            table.missed("draft")
    assert [record.getMessage() for record in caplog.records] == [
        "model 'draft' has no price: its calls count as 0 USD, and no budget in dollars bounds them"
    ]


@pytest.mark.parametrize("wrong", [{"input": -1.0}, {"input": 1.0, "per": 0}, {"input": 1.0, "output": -0.1}, {"input": 1.0, "inptu": 2.0}])
def test_a_price_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Price.model_validate({"as_of": DAY, **wrong})


# Estimates


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("abc", 1), ("abcd", 2), ("语言模型", 4), ("naïve", 3)])
def test_three_plain_characters_are_a_token_and_so_is_each_other_one(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


@given(st.text(), st.text())
def test_a_longer_text_never_has_fewer_tokens(start: str, more: str) -> None:
    assert estimate_tokens(start) <= estimate_tokens(start + more) <= estimate_tokens(start) + estimate_tokens(more)


def test_a_request_counts_all_that_the_model_reads() -> None:
    bare = Request(model="chat", messages=[Message(role="user", content="Where is my order?")])
    call = Message(role="assistant", content="", tool_calls=[ToolCall(id="1", name="look_up", arguments='{"order": 17}')])
    image = Message(role="user", content="", attachments=[Attachment(media_type="image/png", url="data:image/png;base64," + "A" * 100_000)])
    tool = ToolSpec("look_up", "Looks up an order.", {"type": "object", "properties": {"order": {"type": "integer"}}})
    assert message_tokens(call) > message_tokens(Message(role="assistant", content=""))
    assert ATTACHMENT_TOKENS <= message_tokens(image) < 2 * ATTACHMENT_TOKENS
    assert conversation_tokens([call, image]) == message_tokens(call) + message_tokens(image)
    with_tools = Request(model="chat", messages=bare.messages, tools=[tool], output={"type": "object"})
    assert request_tokens(with_tools) > request_tokens(bare) == conversation_tokens(bare.messages)


def test_an_estimate_is_the_question_and_an_answer_as_long_as_it_may_be() -> None:
    asked = Request(model="chat", messages=[Message(role="user", content="x" * 300)])
    read = request_tokens(asked)
    open_ended = estimate(asked, MINI)
    assert open_ended.question == Spend(MINI.micro_usd(usage(read)), read)
    assert open_ended.whole == Spend(MINI.micro_usd(usage(read, ANSWER_TOKENS)), read + ANSWER_TOKENS)
    short = Request(model="chat", messages=asked.messages, max_tokens=0)
    assert estimate(short, MINI).whole == estimate(short, MINI).question
    assert estimate(asked, None).whole.micro_usd == 0
