"""Trimming a conversation: what a model is shown is bounded, whole, and never half of a tool call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.agents.history import blocks, last, trim
from agentkit.ports.messages import Message, ToolCall


def cost(message: Message) -> int:
    return len(message.content)


def total(messages: list[Message]) -> int:
    return sum(map(cost, messages))


texts = st.text("x", max_size=12)


@st.composite
def answers(draw: st.DrawFn, n: int) -> list[Message]:
    """An assistant's message, with its tools' answers if it calls any."""
    ids = [f"{n}-{i}" for i in range(draw(st.integers(0, 3)))]
    calls = [ToolCall(id=one, name="look_up", arguments="{}") for one in ids]
    said = Message(role="assistant", content=draw(texts), tool_calls=calls)
    return [said, *(Message(role="tool", content=draw(texts), tool_call_id=one) for one in ids)]


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    found = [Message(role="system", content=draw(texts)) for _ in range(draw(st.integers(0, 2)))]
    for n in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            found.append(Message(role="user", content=draw(texts)))
        else:
            found += draw(answers(n))
    return found


def orphans(messages: list[Message]) -> set[str]:
    called = [call.id for message in messages for call in message.tool_calls]
    answered = [message.tool_call_id for message in messages if message.role == "tool"]
    return set(called) ^ set(answered)


@given(conversations(), st.integers(0, 120))
def test_no_call_is_left_without_its_answer_and_no_answer_without_its_call(messages: list[Message], most: int) -> None:
    assert orphans(trim(messages, most, cost)) == set()


@given(conversations(), st.integers(0, 120))
def test_what_is_left_stands_in_its_old_order(messages: list[Message], most: int) -> None:
    rest = iter(messages)
    assert all(any(kept is message for message in rest) for kept in trim(messages, most, cost))


@given(conversations(), st.integers(0, 120))
def test_the_systems_messages_and_the_newest_of_the_user_always_stay(messages: list[Message], most: int) -> None:
    kept = trim(messages, most, cost)
    assert [m for m in kept if m.role == "system"] == [m for m in messages if m.role == "system"]
    assert [m for m in kept if m.role == "user"][-1:] == [m for m in messages if m.role == "user"][-1:]


@given(conversations(), st.integers(0, 120))
def test_it_fits_unless_what_must_stay_alone_does_not(messages: list[Message], most: int) -> None:
    kept = trim(messages, most, cost)
    least = trim(messages, 0, cost)
    assert total(kept) <= max(most, total(least))


@given(conversations(), st.integers(0, 120))
def test_what_fits_is_left_as_it_is(messages: list[Message], most: int) -> None:
    if total(messages) <= most:
        assert sorted(map(id, trim(messages, most, cost))) == sorted(map(id, messages))


@given(conversations(), st.integers(0, 120), st.integers(0, 60))
def test_more_room_never_shows_less(messages: list[Message], most: int, more: int) -> None:
    shown = {id(message) for message in trim(messages, most, cost)}
    assert shown <= {id(message) for message in trim(messages, most + more, cost)}


@given(conversations(), st.integers(0, 30))
def test_the_last_messages_begin_with_no_orphan(messages: list[Message], n: int) -> None:
    found = last(messages, n)
    assert len(found) <= n
    assert not found or found[0].role != "tool"
    assert found == messages[len(messages) - len(found) :]


@given(conversations())
def test_blocks_are_the_conversation_in_parts(messages: list[Message]) -> None:
    assert [message for block in blocks(messages) for message in block] == messages
    assert all(orphans(block) == set() for block in blocks(messages))


def test_without_a_limit_everything_is_shown() -> None:
    messages = [Message(role="user", content="x" * 1_000_000)] * 3
    assert trim(messages, None) == messages


def test_older_exchanges_go_first_and_whole() -> None:
    def said(text: str) -> list[Message]:
        return [Message(role="user", content=text), Message(role="assistant", content=text)]

    assert [m.content for m in trim([*said("aaaa"), *said("b"), *said("c")], 5, cost)] == ["b", "b", "c", "c"]


def test_of_a_long_exchange_its_question_and_its_newest_blocks_stay() -> None:
    def called(n: int) -> list[Message]:
        call = ToolCall(id=str(n), name="f", arguments="{}")
        return [Message(role="assistant", content="", tool_calls=[call]), Message(role="tool", content=str(n) * 10, tool_call_id=str(n))]

    kept = trim([Message(role="user", content="?"), *called(1), *called(2), *called(3)], 25, cost)
    assert [m.content for m in kept] == ["?", "", "2" * 10, "", "3" * 10]


@pytest.mark.parametrize(
    ("message", "least"),
    [
        (Message(role="user", content="word " * 100), 100),
        (Message(role="user", content="漢" * 100), 100),
        (Message(role="user", content=""), 1),
    ],
)
def test_an_estimate_of_tokens_errs_on_the_high_side(message: Message, least: int) -> None:
    assert len(trim([message, message], least)) == 1
