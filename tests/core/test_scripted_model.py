"""A scripted model says what the test wrote down, and remembers what it was asked."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from agentkit.errors import EngineBusy, RateLimited, StreamBroken
from agentkit.ports.messages import Answer, CallArguments, Event, Message, Request, Text, conversation
from agentkit.ports.messages import ToolCall as AskedCall
from agentkit.testing import Delay, FakeClock, ScriptedModel, ToolCall


class Verdict(BaseModel):
    clause: str
    risk: str


def asks(*messages: Message) -> Request:
    return Request(model="chat", messages=messages or conversation("Hello"))


async def answer(*replies: object) -> Answer:
    return await ScriptedModel(replies).generate(asks())


async def test_a_text_streams_word_by_word_and_loses_no_space() -> None:
    async with ScriptedModel(["  It is\n on its way. "]).stream(asks()) as events:
        texts = [event.text async for event in events if isinstance(event, Text)]
    assert "".join(texts) == "  It is\n on its way. "
    assert len(texts) == 5


async def test_a_tool_call_comes_in_pieces_and_is_whole_in_the_end() -> None:
    model = ScriptedModel([ToolCall("look_up", order_id="17")] * 2)
    async with model.stream(asks()) as events:
        heard: list[Event] = [event async for event in events]
    assert sum(isinstance(event, CallArguments) for event in heard) == 2
    whole = await model.generate(asks())
    assert whole.tool_calls == [AskedCall(id="call_1_0", name="look_up", arguments='{"order_id":"17"}')]
    assert whole.finish == "tool_calls"


async def test_a_list_of_calls_is_one_answer_whose_calls_have_ids_of_their_own() -> None:
    calls = (await answer([ToolCall("a"), "Let me see.", ToolCall("b", n=1)])).tool_calls
    assert [(call.name, call.arguments) for call in calls] == [("a", "{}"), ("b", '{"n":1}')]
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Verdict(clause="1", risk="high"), '{"clause":"1","risk":"high"}'),
        ([Verdict(clause="1", risk="low")], '[{"clause":"1","risk":"low"}]'),
        (["a", "b"], '["a","b"]'),
        ({"n": 1}, '{"n":1}'),
        (None, "null"),
    ],
)
async def test_any_other_value_is_said_as_json(value: object, text: str) -> None:
    assert (await answer(value)).text == text


async def test_an_error_is_raised_and_the_next_call_has_the_next_reply() -> None:
    model = ScriptedModel([EngineBusy("eu1", "full"), "Sent."])
    with pytest.raises(EngineBusy):
        await model.generate(asks())
    assert (await model.generate(asks())).text == "Sent."


async def test_a_stream_breaks_where_its_error_stands() -> None:
    with pytest.raises(StreamBroken, match="eu1: reset") as broken:
        await answer(["It is on", RateLimited("eu1", "reset")])
    assert broken.value.text == "It is on"
    assert isinstance(broken.value.__cause__, RateLimited)


@pytest.mark.parametrize("replies", [[Delay(5.0), "Sent."], [[Delay(2.0), "Sent", Delay(3.0), "."]]], ids=["between", "inside"])
async def test_a_delay_holds_back_what_follows_it(replies: list[Any]) -> None:
    clock = FakeClock()
    model = ScriptedModel(replies, clock=clock)
    answers: list[str] = []

    async def call() -> None:
        answers.append((await model.generate(asks())).text)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        await clock.advance(4.9)
        assert answers == []
        await clock.advance(0.1)
    assert answers == ["Sent."]


async def test_a_function_makes_a_reply_for_its_request() -> None:
    def echo(request: Request) -> str:
        return f"You said {request.messages[-1].content}"

    model = ScriptedModel(repeat(echo))
    assert [(await model.generate(asks(*conversation(text)))).text for text in ("a", "b")] == ["You said a", "You said b"]


async def test_prompts_are_whole_conversations_as_text() -> None:
    model = ScriptedModel(repeat("Sent."))
    called = Message(role="assistant", content="", tool_calls=[AskedCall(id="c", name="look_up", arguments='{"order_id":"17"}')])
    await model.generate(asks(Message(role="system", content="Be brief."), *conversation("Where is 17?")))
    await model.generate(asks(called, Message(role="tool", content="sent", tool_call_id="c")))
    assert model.prompts == [
        "system: Be brief.\nuser: Where is 17?",
        'assistant: \n  calls look_up({"order_id":"17"})\ntool: sent',
    ]


async def test_tokens_are_counted_in_words() -> None:
    usage = (await answer("It is on its way.")).usage
    assert (usage.input_tokens, usage.output_tokens, usage.usd) == (2, 5, 0.0)
