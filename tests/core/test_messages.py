"""What is said to models and comes back: which messages there can be, and how events make an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentkit.errors import ProtocolBroken, StreamBroken, Unsupported
from agentkit.ports.inference import Capabilities
from agentkit.ports.messages import (
    Answer,
    Attachment,
    CallArguments,
    CallComplete,
    CallStarted,
    Event,
    Finished,
    Message,
    Reasoning,
    Request,
    Text,
    ToolCall,
    ToolSpec,
    Usage,
    Used,
    UserMessage,
    assemble,
    conversation,
)

PICTURE = Attachment(media_type="image/png", url="https://example.com/a.png")
CALL = ToolCall(id="c1", name="find", arguments='{"id": 17}')


def test_a_text_is_one_message_of_a_user() -> None:
    assert conversation("Hello") == [Message(role="user", content="Hello")]


def test_a_user_message_keeps_its_attachments() -> None:
    message = UserMessage(text="See:", attachments=[PICTURE])
    assert conversation(message) == [Message(role="user", content="See:", attachments=[PICTURE])]


def test_a_conversation_is_taken_as_it_is() -> None:
    said = [Message(role="system", content="Be brief."), Message(role="user", content="Hello")]
    assert conversation(said) == said


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"role": "user", "tool_calls": [CALL]}, id="a user calls no tool"),
        pytest.param({"role": "tool"}, id="a tool answers a call"),
        pytest.param({"role": "assistant", "tool_call_id": "c1"}, id="only a tool answers a call"),
        pytest.param({"role": "robot"}, id="a role is one of four"),
        pytest.param({"role": "user", "colour": "red"}, id="an unknown field is a slip"),
    ],
)
def test_a_message_that_no_conversation_has_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Message(content="x", **fields)


@pytest.mark.parametrize(
    "message",
    [
        Message(role="user", content="é 😀", attachments=[PICTURE]),
        Message(role="assistant", content="", tool_calls=[CALL]),
        Message(role="tool", content="gone", tool_call_id="c1"),
    ],
)
def test_a_message_is_the_same_after_it_was_stored(message: Message) -> None:
    assert Message.model_validate_json(message.model_dump_json()) == message


def test_nothing_said_can_be_changed() -> None:
    with pytest.raises(ValidationError):
        setattr(Message(role="user", content="x"), "content", "y")  # noqa: B010  a type checker refuses the plain assignment


def test_an_answer_is_the_next_message_of_the_conversation() -> None:
    answer = Answer(text="Let me see.", tool_calls=[CALL], finish="tool_calls")
    assert answer.message == Message(role="assistant", content="Let me see.", tool_calls=[CALL])


@given(pieces=st.lists(st.text()), usages=st.lists(st.integers(0, 100)))
def test_the_text_is_all_its_pieces_and_the_last_usage_counts(pieces: list[str], usages: list[int]) -> None:
    events: list[Event] = [*map(Text, pieces), *(Used(Usage(output_tokens=n)) for n in usages), Finished("length")]
    assert assemble(events) == Answer(text="".join(pieces), usage=Usage(output_tokens=([0, *usages])[-1]), finish="length")


@given(st.data(), st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_calls_are_put_together_however_their_pieces_are_mixed(data: st.DataObject, arguments: list[str]) -> None:
    pieces = [(index, char) for index, text in enumerate(arguments) for char in text]
    turns = data.draw(st.permutations([index for index, _ in pieces]))
    queues = {index: iter(text) for index, text in enumerate(arguments)}
    events: list[Event] = [CallStarted(index, f"c{index}", "f") for index in range(len(arguments))]
    events += [CallArguments(index, next(queues[index])) for index in turns]
    events += [CallComplete(index) for index in range(len(arguments))]
    answer = assemble([*events, Finished("tool_calls")])
    assert [(call.id, call.arguments) for call in answer.tool_calls] == [(f"c{n}", text) for n, text in enumerate(arguments)]


def test_what_a_model_thinks_aloud_is_no_part_of_the_text() -> None:
    answer = assemble([Reasoning("Hm, "), Text("Yes"), Reasoning("so."), Text("!"), Finished("stop")])
    assert (answer.text, answer.reasoning) == ("Yes!", "Hm, so.")


def test_events_without_an_end_make_no_answer_but_keep_what_came() -> None:
    with pytest.raises(StreamBroken) as broken:
        assemble([Text("It is "), Text("sun")])
    assert broken.value.text == "It is sun"


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([CallArguments(0, "{}")], id="arguments of no call"),
        pytest.param([CallComplete(0)], id="the end of no call"),
        pytest.param([CallStarted(0, "a", "f"), CallStarted(0, "b", "g")], id="two calls of one index"),
        pytest.param([Finished("stop"), Text("more")], id="more after the end"),
    ],
)
def test_events_that_make_no_sense_are_the_fault_of_the_protocol(events: list[Event]) -> None:
    with pytest.raises(ProtocolBroken):
        assemble(events)


TOOL = ToolSpec("find", "Finds.", {"type": "object"})


@pytest.mark.parametrize(
    ("ability", "more"),
    [
        ("tools", {"tools": [TOOL]}),
        ("output", {"output": {"type": "object"}}),
        ("attachments", {"messages": conversation(UserMessage(text="See:", attachments=[PICTURE]))}),
        ("seed", {"seed": 0}),
    ],
)
def test_a_request_may_ask_for_what_is_offered_and_for_nothing_else(ability: str, more: dict[str, Any]) -> None:
    request = replace(Request(model="m", messages=conversation("Hello")), **more)
    Capabilities().check(request, "eu1")
    with pytest.raises(Unsupported, match=f"eu1: model 'm' is asked for {ability}"):
        Capabilities()._replace(**{ability: False}).check(request, "eu1")
