"""The scripted engine keeps the laws of the port, and what is its own: slots, delays on the test's clock, vectors, outages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isclose
from typing import Any

import anyio
import pytest

from agentkit.errors import ModelNotFound, RateLimited, ScriptExhausted, Unsupported
from agentkit.inmemory.inference import Delay, ScriptedInference
from agentkit.ports.inference import Array, EngineLoad
from agentkit.ports.messages import Event, Finished, Request, Text, conversation
from agentkit.testing.clock import FakeClock
from agentkit.testing.inference import InferenceContract, Tensor
from tests.core.scripted_engine import ScriptedEngine


class TestScriptedInference(InferenceContract):
    @pytest.fixture
    async def engine(self, clock: FakeClock) -> ScriptedEngine:
        return ScriptedEngine(clock)


DONE = [Finished("stop")]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def hello(**more: Any) -> Request:
    return replace(Request(model="m", messages=conversation("Hello")), **more)


async def test_a_delay_passes_on_the_clock_of_the_test(clock: FakeClock) -> None:
    model = ScriptedInference([[Text("a"), Delay(60.0), Text("b"), Finished("stop")]], clock=clock)
    heard: list[Event] = []

    async def listen() -> None:
        async with model.stream(hello()) as events:
            async for event in events:
                heard.append(event)  # noqa: PERF401  the test looks on while it grows

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        await clock.advance(59.0)
        assert heard == [Text("a")]
        await clock.advance(1.0)
    assert heard == [Text("a"), Text("b"), Finished("stop")]


async def test_calls_beyond_the_slots_wait_in_their_order(clock: FakeClock) -> None:
    model = ScriptedInference([[Delay(1.0), Text(str(number)), *DONE] for number in range(4)], slots=2, clock=clock)
    answers: list[str] = []

    async def call() -> None:
        answers.append((await model.generate(hello())).text)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        assert await model.load() == EngineLoad(queued=2, running=2)
        await clock.advance(1.0)
        assert await model.load() == EngineLoad(queued=0, running=2)
        await clock.advance(1.0)
    assert sorted(answers) == ["0", "1", "2", "3"]
    assert sorted(answers[:2]) == ["0", "1"]
    assert await model.load() == EngineLoad(queued=0, running=0)


async def test_a_call_that_is_cancelled_while_it_waits_leaves_its_place(clock: FakeClock) -> None:
    model = ScriptedInference([[Delay(60.0), *DONE], DONE, [Text("third"), *DONE]], slots=1, clock=clock)
    async with anyio.create_task_group() as group:
        group.start_soon(model.generate, hello())
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await model.generate(hello())
        assert await model.load() == EngineLoad(queued=0, running=1)
        group.cancel_scope.cancel()
    assert (await model.generate(hello())).text == "third"


async def test_one_task_may_listen_to_several_streams() -> None:
    model = ScriptedInference([[Text("a"), *DONE], [Text("b"), *DONE]])
    async with model.stream(hello()) as one, model.stream(hello()) as other:
        assert [await anext(one), await anext(other)] == [Text("a"), Text("b")]


async def test_an_answer_may_be_made_for_its_request() -> None:
    def echo(request: Request) -> Sequence[Event]:
        return [Text(request.messages[-1].content), *DONE]

    assert (await ScriptedInference([echo]).generate(hello())).text == "Hello"


async def test_the_same_error_may_be_raised_for_every_call() -> None:
    error = RateLimited("eu1", "slow down", retry_after_s=2.0)
    model = ScriptedInference([[error]] * 3)
    for _ in range(3):
        with pytest.raises(RateLimited, match="eu1: slow down; try again in 2 s") as refused:
            await model.generate(hello())
        assert refused.value is error


async def test_a_call_after_the_last_answer_says_which_one_it_was() -> None:
    model = ScriptedInference([DONE], name="chat")
    await model.generate(hello())
    with pytest.raises(ScriptExhausted, match="chat: there is no reply left for call 2"):
        await model.generate(hello())


async def test_a_model_that_is_misspelt_is_told_the_nearest() -> None:
    with pytest.raises(ModelNotFound, match="did you mean 'chat-large'"):
        await ScriptedInference(serves={"chat-large", "embed"}).generate(hello(model="chat-larg"))


async def test_an_engine_that_was_down_answers_again() -> None:
    model = ScriptedInference([DONE])
    model.down = "no route to host"
    assert not (await model.health()).ready
    model.down = ""
    assert (await model.generate(hello())).finish == "stop"


async def test_vectors_are_near_each_other_for_texts_that_share_words() -> None:
    cat, tom, sea, nothing = (await ScriptedInference().embed("m", ["The black cat", "a black cat!", "deep blue sea", ""])).vectors

    def nearness(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert isclose(nearness(cat, cat), 1.0)
    assert nearness(cat, tom) > nearness(cat, sea)
    assert nearness(nothing, nothing) == 0.0


async def test_tensors_go_to_the_function_that_was_given() -> None:
    def shapes(model: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {model: Tensor(*inputs["x"].shape, 1)}

    given = await ScriptedInference(infer=shapes).infer("m", {"x": Tensor(2, 3)})
    assert {name: tensor.shape for name, tensor in given.items()} == {"m": (2, 3, 1)}
    with pytest.raises(Unsupported, match=r"give ScriptedInference\(infer=…\)"):
        await ScriptedInference().infer("m", {})
