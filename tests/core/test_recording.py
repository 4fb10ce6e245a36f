"""A recording asks the real model once, and answers from its file ever after."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import SecretStr

from agentkit.errors import ContextTooLong, InferenceError, Misuse, NotRecorded, RateLimited, StreamBroken, Unsupported
from agentkit.inmemory.inference import ScriptedInference
from agentkit.ports.inference import Capabilities, Inference
from agentkit.ports.messages import Answer, Event, Message, Request, Text, ToolSpec, conversation
from agentkit.testing import Delay, FakeClock, Recording, ScriptedModel, ToolCall
from agentkit.testing.contract import race


def asks(text: str = "Hello", **more: Any) -> Request:
    return replace(Request(model="chat", messages=conversation(text)), **more)


async def heard(model: Inference, request: Request) -> list[Event]:
    async with model.stream(request) as events:
        return [event async for event in events]


def files(folder: Path) -> list[str]:
    return [file.name for file in folder.rglob("*") if file.is_file()]


def written(path: Path) -> str:
    return path.read_text()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls" / "chat.jsonl"


async def test_what_was_recorded_is_answered_without_the_real_model(path: Path) -> None:
    real = ScriptedModel(["Good day.", [ToolCall("look_up", order_id="17")], "Sent."])
    seen: list[list[object]] = []
    for inner in (real, None):
        model = Recording(path, inner)
        await model.open()
        found: list[object] = [await model.generate(asks()), await heard(model, asks("Where is 17?")), await heard(model, asks("Thanks"))]
        found.append(await model.embed("embed", ["a cat"]))
        seen.append(found)
        await model.aclose()
    assert seen[0] == seen[1]
    assert len(real.requests) == 3


async def test_once_the_file_is_there_the_real_model_is_not_touched(path: Path) -> None:
    await one_call(Recording(path, ScriptedModel(["Good day."])))
    untouched = ScriptedModel()
    untouched.down = "no network here"
    assert (await one_call(Recording(path, untouched))).text == "Good day."
    assert untouched.requests == []


async def one_call(model: Recording, request: Request | None = None) -> Answer:
    await model.open()
    try:
        return await model.generate(request or asks())
    finally:
        await model.aclose()


async def test_the_same_request_is_answered_in_the_order_in_which_it_was_recorded(path: Path) -> None:
    for model in (Recording(path, ScriptedModel(["one", "two"])), Recording(path)):
        await model.open()
        assert [(await model.generate(asks())).text for _ in range(2)] == ["one", "two"]
        await model.aclose()
    await model.open()
    await model.generate(asks())
    await model.generate(asks())
    with pytest.raises(NotRecorded, match="recorded 2 times and is now made once more"):
        await model.generate(asks())


async def test_calls_at_the_same_time_each_get_their_own_answer(path: Path) -> None:
    def echo(request: Request) -> str:
        return f"You said {request.messages[0].content}"

    texts = [f"text {number}" for number in range(8)]
    for model in (Recording(path, ScriptedModel([echo] * 8)), Recording(path)):
        await model.open()
        answers = await race(*(partial(model.generate, asks(text)) for text in texts))
        assert [answer.text for answer in answers if isinstance(answer, Answer)] == [f"You said {text}" for text in texts]
        await model.aclose()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        pytest.param(RateLimited("eu1", "slow down", retry_after_s=3.0), RateLimited, id="refused"),
        pytest.param(ContextTooLong("eu1", "9000 tokens"), ContextTooLong, id="too long"),
        pytest.param(["It is on", RateLimited("eu1", "reset")], StreamBroken, id="cut"),
    ],
)
@pytest.mark.parametrize("how", ["generate", "stream"])
async def test_an_error_comes_again_as_it_came(path: Path, reply: object, kind: type[InferenceError], how: str) -> None:
    errors: list[InferenceError] = []
    for model in (Recording(path, ScriptedModel([reply])), Recording(path)):
        await model.open()
        with pytest.raises(InferenceError) as failed:
            await (model.generate(asks()) if how == "generate" else heard(model, asks()))
        errors.append(failed.value)
        await model.aclose()
    assert [type(error) for error in errors] == [kind, kind]
    assert str(errors[0]) == str(errors[1])
    assert errors[0].retry_after_s == errors[1].retry_after_s
    assert getattr(errors[0], "text", "") == getattr(errors[1], "text", "")


async def test_a_call_that_is_not_in_the_file_is_shown_beside_the_nearest_that_is(path: Path) -> None:
    real = ScriptedModel(["a", "b"])
    model = Recording(path, real)
    await model.open()
    await model.generate(asks("Where is parcel 17?", temperature=0.5))
    await model.generate(asks("Something else", max_tokens=5))
    await model.aclose()
    with pytest.raises(NotRecorded) as missing:
        await one_call(Recording(path), asks("Where is parcel 18?", temperature=0.5))
    message = str(missing.value)
    assert str(path) in message
    assert '-   "content": "Where is parcel 17?",' in message
    assert '+   "content": "Where is parcel 18?",' in message
    assert "Something else" not in message
    assert "Delete the file to record anew" in message


async def test_without_a_file_and_a_model_there_is_nothing_to_answer_from(path: Path) -> None:
    with pytest.raises(NotRecorded, match="there is no such file"):
        await Recording(path).open()


async def test_how_a_call_is_treated_is_not_part_of_what_is_asked(path: Path) -> None:
    await one_call(Recording(path, ScriptedModel(["Good day."])), asks(request_id="1", priority="high", affinity="x"))
    assert (await one_call(Recording(path), asks(request_id="2", timeout_s=3.0))).text == "Good day."


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [ToolSpec("f", "Does it.", {"type": "object"})]},
        {"output": {"type": "object"}},
        {"temperature": 0.0},
        {"seed": 0},
        {"stop": ["END"]},
        {"extra": {"top_k": 1}},
        {"messages": [Message(role="system", content="Hello")]},
        {"model": "other"},
    ],
)
async def test_whatever_is_asked_otherwise_is_another_call(path: Path, more: dict[str, Any]) -> None:
    await one_call(Recording(path, ScriptedModel(["Good day."])))
    with pytest.raises(NotRecorded):
        await one_call(Recording(path), asks(**more))


async def test_secrets_are_not_in_the_file(path: Path) -> None:
    request = asks(extra={"password": SecretStr("hunter2"), "nested": [{"key": SecretStr("hunter2")}]})
    await one_call(Recording(path, ScriptedModel(["Good day."])), request)
    assert "hunter2" not in written(path)
    assert (await one_call(Recording(path), request)).text == "Good day."


async def test_the_file_is_whole_or_not_there(path: Path) -> None:
    model = Recording(path, ScriptedModel(["Good day."]))
    await model.open()
    await model.generate(asks())
    assert files(path.parent.parent) == []
    await model.aclose()
    assert files(path.parent.parent) == [path.name]
    head, line = (json.loads(line) for line in written(path).splitlines())
    assert head["agentkit_recording"] == 1
    assert line["asked"]["messages"] == [{"role": "user", "content": "Hello"}]


async def test_what_was_recorded_before_a_cancellation_is_kept(path: Path) -> None:
    model = Recording(path, ScriptedModel(["Good day."]))
    with anyio.CancelScope() as scope:
        await model.open()
        try:
            await model.generate(asks())
            scope.cancel()
        finally:
            await model.aclose()
    assert (await one_call(Recording(path))).text == "Good day."


async def test_a_stream_that_was_left_plays_as_far_as_it_was_heard(path: Path) -> None:
    for model in (Recording(path, ScriptedModel(["one two three"])), Recording(path)):
        await model.open()
        async with model.stream(asks()) as events:
            assert [await anext(events), await anext(events)] == [Text("one "), Text("two ")]
        await model.aclose()
    await model.open()
    with pytest.raises(StreamBroken, match="went away here"):
        await heard(model, asks())


async def test_events_come_at_once_or_as_the_real_model_gave_them(path: Path) -> None:
    clock = FakeClock()
    real = ScriptedModel([["one", Delay(4.0), "two"]], clock=clock)
    texts: list[str] = []

    async def listen(model: Recording) -> None:
        await model.open()
        texts.append("".join(event.text for event in await heard(model, asks()) if isinstance(event, Text)))
        await model.aclose()

    for model in (Recording(path, real, clock=clock), Recording(path, paced=True, clock=clock)):
        texts.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(listen, model)
            while not clock.sleepers:  # noqa: ASYNC110  the clock has no event for it
                await anyio.sleep(0.001)
            await clock.advance(3.9)
            assert texts == []
            await clock.advance(0.1)
        assert texts == ["onetwo"]
    await listen(Recording(path, clock=clock))
    assert texts == ["onetwo", "onetwo"]


async def test_capabilities_are_recorded_too(path: Path) -> None:
    real = ScriptedInference([lambda request: [Text("x")]], capabilities=Capabilities(tools=False, seed=False))
    model = Recording(path, real)
    await model.open()
    with pytest.raises(StreamBroken):
        await model.generate(asks())
    await model.aclose()
    model = Recording(path)
    await model.open()
    assert await model.capabilities() == await real.capabilities()
    assert (await model.health()).ready
    await model.aclose()


async def test_tensors_are_not_recorded(path: Path) -> None:
    with pytest.raises(Unsupported, match="tensors are not recorded"):
        await Recording(path, ScriptedModel()).infer("m", {})


async def test_a_recording_that_is_not_open_says_so(path: Path) -> None:
    with pytest.raises(Misuse, match=r"is not open: call open\(\)"):
        await Recording(path, ScriptedModel()).generate(asks())


@pytest.mark.parametrize(
    ("text", "line"), [("", 1), ("Dear diary\n", 1), ('{"agentkit_recording": 2, "capabilities": {}}\n', 1), ("HEAD\nno call\n", 2)]
)
async def test_a_file_that_is_no_recording_is_not_taken_for_one(path: Path, text: str, line: int) -> None:
    await one_call(Recording(path, ScriptedModel(["Good day."])))
    await anyio.Path(path).write_text(text.replace("HEAD", written(path).splitlines()[0]))
    with pytest.raises(NotRecorded, match=f"line {line} is no line of a recording"):
        await Recording(path).open()
