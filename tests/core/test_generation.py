"""Models asked from runs: a call is a step and paid for once, its text is told as it comes, its answer has the type that was asked for."""

from __future__ import annotations

from datetime import date
from itertools import repeat
from pathlib import Path

import pytest
from pydantic import BaseModel

from agentkit import Agent, Context, RunHandle, StepContext, StepError
from agentkit.agents.generation import ask
from agentkit.agents.tool import tool
from agentkit.errors import EngineFailed, RequestRefused
from agentkit.inference.places import Model
from agentkit.inmemory.inference import Delay
from agentkit.ports.messages import Message, Request
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Retry
from agentkit.runtime.events import TextDelta, ToolEvent
from agentkit.testing import ScriptedModel, ToolCall, runtime


class Verdict(BaseModel):
    clause: str
    risk: str = "low"
    until: date | None = None


class Writes(Agent[str, str]):
    """Asks twice, and lets the text of the answers be heard."""

    async def run(self, ctx: Context, text: str, /) -> str:
        first = await ask(ctx, Request(model="chat", messages=[Message(role="user", content=text)]), stream=True)
        await ctx.step("note", note, first.text, effect="rerun")  # an effect waits until what came before it is durable
        return first.text + (await ask(ctx, Request(model="chat", messages=[Message(role="user", content="more")]), stream=True)).text


async def note(text: str) -> None: ...


async def heard(handle: RunHandle[str], step: str = "model#1") -> str:
    """What somebody has on the screen who follows the run: a piece replaces what stood at its place and after."""
    text = ""
    async for event in handle.events():
        if isinstance(event, TextDelta) and event.step == step:
            text = text[: event.position] + event.text
    return text


# Steps


class Asks(Agent[str, str]):
    async def run(self, ctx: Context, text: str, /) -> str:
        return (await ctx.generate(text, model="chat")).output


async def test_a_call_is_a_step_and_its_answer_the_result() -> None:
    model = ScriptedModel(["Good morning."])
    async with runtime(agents=[Asks], models={"chat": model}) as rt:
        assert await rt.run(Asks, "Greet them.", run_id="r") == "Good morning."
        assert await rt.steps("r") == ["model#1"]
    assert model.prompts == ["user: Greet them."]
    assert model.requests[0].request_id == "r:model#1"


@pytest.mark.parametrize("at", ["note", "model#2"])
@pytest.mark.parametrize("store", ["memory://", "sqlite:///{}/runs.db"])
async def test_an_answer_that_was_journalled_is_not_paid_for_again_after_a_crash(at: str, store: str, tmp_path: Path) -> None:
    model = ScriptedModel(["One. ", "Two. ", "Three. "])
    async with runtime(agents=[Writes], models={"chat": model}, state=store.format(tmp_path)) as rt:
        handle = await rt.submit(Writes, "go", run_id="r")
        await rt.crash(at=at)
        await rt.settle()
        text = await handle.result()
    assert rt.crashed == 1
    assert text == ("One. Two. " if at == "note" else "One. Three. ")  # the second answer was not yet journalled: it is asked for again
    assert [request.messages[0].content for request in model.requests].count("go") == 1


async def test_a_failed_call_is_a_step_error_of_the_kind_of_its_error_live_and_replayed() -> None:
    class Catches(Agent[str, str]):
        async def run(self, ctx: Context, text: str, /) -> str:
            try:
                await ctx.generate(text, model="chat")
            except StepError as error:
                await ctx.sleep(60)
                return error.kind
            return ""

    async with runtime(agents=[Catches], models={"chat": ScriptedModel([RequestRefused("eu", "no such model")])}) as rt:
        handle = await rt.submit(Catches, "go")
        await rt.clock.advance(100)
        assert await handle.result() == "RequestRefused"


async def test_a_name_without_a_model_fails_as_a_script_without_replies_does() -> None:
    async with runtime(agents=[Asks]) as rt:
        with pytest.raises(StepError, match="chat: there is no reply left for call 1") as caught:
            await rt.run(Asks, "go")
    assert caught.value.kind == "ScriptExhausted"


async def test_an_agents_own_policy_does_not_bound_its_models() -> None:
    class Impatient(Asks):
        policy = Policy("steps", retry=Retry(attempts=5, wait_s=0))

    model = ScriptedModel(repeat(EngineFailed("eu", "502")))
    async with runtime(agents=[Impatient], models={"chat": Model(model, policy=Policy("chat", retry=Retry(attempts=2, wait_s=0)))}) as rt:
        with pytest.raises(StepError):
            await rt.run(Impatient, "go")
    assert len(model.requests) == 2


async def test_calls_from_several_tasks_are_told_apart_by_their_keys() -> None:
    class Both(Agent[str, list[str]]):
        async def run(self, ctx: Context, text: str, /) -> list[str]:
            async def one(branch: Context) -> str:
                return (await branch.generate(text, model="chat")).output

            return [*await ctx.gather(one, one), (await ctx.generate(text, model="chat", key="last")).output]

    async with runtime(agents=[Both], models={"chat": ScriptedModel(repeat("yes"))}) as rt:
        assert await rt.run(Both, "go", run_id="r") == ["yes"] * 3
        assert sorted(await rt.steps("r")) == ["gather#1/1/model#1", "gather#1/2/model#1", "model=last"]


# Text as it comes


async def test_text_is_told_as_it_comes_what_comes_together_in_one_piece() -> None:
    model = ScriptedModel([["Hello ", "big ", Delay(1), "wide ", "world"]])
    async with runtime(agents=[Writes], models={"chat": ScriptedModel([[*("a " * 400).split(), Delay(0)], ""])}) as rt:
        handle = await rt.submit(Writes, "go")
        await handle.result()
        pieces = [event.text async for event in handle.events() if isinstance(event, TextDelta) and event.step == "model#1"]
        assert len(pieces) < 10
    async with runtime(agents=[Writes], models={"chat": model}) as rt:
        handle = await rt.submit(Writes, "go")
        await rt.settle()
        entries = await rt.store.load(handle.run_id, after=-1)
        assert [entry.body for entry in entries] == [b'{"position":0,"text":"Hello "}']  # told while the answer is being made
        await rt.clock.advance(0.9)
        assert await rt.steps(handle.run_id) == []
        entries = await rt.store.load(handle.run_id, after=-1)
        assert b"".join(entry.body for entry in entries).endswith(b'{"position":6,"text":"big "}')  # although nothing came after it


async def test_what_was_heard_is_the_answer_also_after_a_crash_in_the_middle() -> None:
    model = ScriptedModel([["Hello ", "dear ", Delay(3600), "never heard"], "Hello world, again. ", "Bye."])
    async with runtime(agents=[Writes], models={"chat": model}) as rt:
        handle = await rt.submit(Writes, "go", run_id="r")
        await rt.clock.advance(10)
        await rt.engine.crash()
        await rt.settle()
        assert await handle.result() == "Hello world, again. Bye."
        assert await heard(handle) == "Hello world, again. "
        events = [event async for event in handle.events()]
        assert any(isinstance(event, TextDelta) and event.text.startswith("dear") for event in events)


async def test_a_stream_that_breaks_fails_the_step_with_what_was_told_still_there() -> None:
    model = ScriptedModel([["Hello ", EngineFailed("eu", "gone")]])
    async with runtime(agents=[Writes], models={"chat": model}) as rt:
        handle = await rt.submit(Writes, "go")
        with pytest.raises(StepError) as caught:
            await handle.result()
        assert caught.value.kind == "StreamBroken"
        assert await heard(handle) == "Hello "


# Answers of a type


class Judges(Agent[str, Verdict]):
    async def run(self, ctx: Context, text: str, /) -> Verdict:
        reply = await ctx.generate(text, output=Verdict, model="chat")
        return reply.output


async def test_the_model_is_given_a_closed_schema_and_its_json_becomes_the_type() -> None:
    model = ScriptedModel([{"clause": "1", "risk": None, "until": "2026-11-21"}])
    async with runtime(agents=[Judges], models={"chat": model}) as rt:
        assert await rt.run(Judges, "go") == Verdict(clause="1", risk="low", until=date(2026, 11, 21))
    schema = model.requests[0].output
    assert schema is not None
    assert (schema["additionalProperties"], schema["required"]) == (False, ["clause", "risk", "until"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("I think it is fine.", "your answer is not JSON"),
        ({"risk": "high"}, "- clause: Field required"),
        ({"clause": "1", "until": "soon"}, "- until: Input should be a valid date"),
    ],
)
async def test_an_answer_that_does_not_fit_is_asked_for_once_more_with_what_was_wrong(wrong: object, told: str) -> None:
    model = ScriptedModel([wrong, Verdict(clause="1")])
    async with runtime(agents=[Judges], models={"chat": model}) as rt:
        assert await rt.run(Judges, "go", run_id="r") == Verdict(clause="1")
        assert await rt.steps("r") == ["model#1", "model#2"]
    assert told in model.prompts[1]
    assert "pydantic" not in model.prompts[1]


async def test_a_second_answer_that_does_not_fit_is_the_error() -> None:
    async with runtime(agents=[Judges], models={"chat": ScriptedModel(["no", "no"])}) as rt:
        with pytest.raises(StepError, match="your answer is not JSON") as caught:
            await rt.run(Judges, "go", run_id="r")
    assert caught.value.kind == "OutputInvalid"


async def test_a_type_that_is_no_object_is_an_answer_too() -> None:
    class Lists(Agent[str, list[Verdict]]):
        async def run(self, ctx: Context, text: str, /) -> list[Verdict]:
            return (await ctx.generate(text, output=list[Verdict], model="chat")).output

    async with runtime(agents=[Lists], models={"chat": ScriptedModel(['[{"clause": "1"}]'])}) as rt:
        assert await rt.run(Lists, "go") == [Verdict(clause="1")]


# Tools


@tool
async def look_up(step: StepContext, order_id: str) -> str:
    """Status of an order."""
    if order_id == "0":
        raise ValueError("no such order")
    return f"order {order_id} is sent"


class Looks(Agent[str, str]):
    async def run(self, ctx: Context, text: str, /) -> str:
        return (await ctx.generate(text, model="chat", tools=[look_up])).output


async def test_tools_are_steps_of_their_own_and_their_answers_go_back_to_the_model() -> None:
    model = ScriptedModel([ToolCall("look_up", order_id="17"), "It is on its way."])
    async with runtime(agents=[Looks], models={"chat": model}) as rt:
        handle = await rt.submit(Looks, "Where is 17?", run_id="r")
        assert await handle.result() == "It is on its way."
        assert await rt.steps("r") == ["model#1", "look_up#1", "model#2"]
        told = [(event.tool, event.phase) async for event in handle.events() if isinstance(event, ToolEvent)]
    assert "tool: order 17 is sent" in model.prompts[1]
    assert told == [("look_up", "called"), ("look_up", "returned")]


async def test_several_tools_are_called_side_by_side_and_answer_in_order() -> None:
    model = ScriptedModel([[ToolCall("look_up", order_id="1"), ToolCall("look_up", order_id="2")], "Both."])
    async with runtime(agents=[Looks], models={"chat": model}) as rt:
        assert await rt.run(Looks, "go", run_id="r") == "Both."
        assert set(await rt.steps("r")) == {"model#1", "gather#1/1/look_up#1", "gather#1/2/look_up#1", "model#2"}
    assert [message.content for message in model.requests[1].messages[-2:]] == ["order 1 is sent", "order 2 is sent"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (ToolCall("look_up", order_id="0"), "look_up failed: ValueError: no such order"),
        (ToolCall("look_up"), "order_id"),
        (ToolCall("lookup", order_id="1"), "there is no tool 'lookup'; did you mean 'look_up'?"),
    ],
)
async def test_what_a_tool_cannot_do_is_told_to_the_model(call: ToolCall, told: str) -> None:
    model = ScriptedModel([call, "Sorry."])
    async with runtime(agents=[Looks], models={"chat": model}) as rt:
        assert await rt.run(Looks, "go") == "Sorry."
    assert told in model.requests[1].messages[-1].content


async def test_a_model_that_calls_tools_for_ever_is_stopped() -> None:
    async with runtime(agents=[Looks], models={"chat": ScriptedModel(repeat(ToolCall("look_up", order_id="1")))}) as rt:
        with pytest.raises(StepError) as caught:
            await rt.run(Looks, "go")
    assert caught.value.kind == "TooManyRounds"


async def test_the_reply_says_what_all_its_calls_took() -> None:
    class Sums(Agent[str, int]):
        async def run(self, ctx: Context, text: str, /) -> int:
            return (await ctx.generate(text, output=Verdict, model="chat")).usage.output_tokens

    async with runtime(agents=[Sums], models={"chat": ScriptedModel(["one two three", '{"clause": "1"}'])}) as rt:
        assert await rt.run(Sums, "go") == 3 + 2
