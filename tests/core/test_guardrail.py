"""Guardrails: they look, let pass, change or stop; each look is journalled, and no answer is an answer too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit.agents.base import Agent, AnyAgent
from agentkit.agents.context import Context
from agentkit.agents.guardrail import Guardrail, Ruling, guard, watched
from agentkit.agents.step_context import StepContext
from agentkit.errors import GuardrailTripped, InvalidSetting, RunError, StoreUnavailable
from agentkit.ports.messages import Attachment, ToolCall, UserMessage
from agentkit.testing.runtime import runtime

LOOKS: list[str] = []
"""What the guardrails of these tests were shown, in order."""


@pytest.fixture(autouse=True)
def nothing_seen_yet() -> None:
    LOOKS.clear()


class NoCards(Guardrail):
    """Takes card numbers out of what is said, and keeps them out of tools."""

    async def input(self, ctx: StepContext, message: UserMessage, /) -> Ruling:
        LOOKS.append(f"{ctx.run_id}: {message.text}")
        return Ruling.replace(message.text.replace("4111", "****"), "a card number")

    async def tool(self, ctx: StepContext, name: str, arguments: dict[str, Any], /) -> Ruling:
        LOOKS.append(f"{name}: {arguments}")
        return Ruling.replace({**arguments, "note": "****"}) if "4111" in arguments.get("note", "") else Ruling.passes()


class NoAnger(Guardrail):
    """Stops what is shouted."""

    async def input(self, ctx: StepContext, message: UserMessage, /) -> Ruling:
        LOOKS.append(f"anger? {message.text}")
        return Ruling.block("shouting") if message.text.isupper() else Ruling.passes()

    async def output(self, ctx: StepContext, text: str, /) -> Ruling:
        return Ruling.block("shouting") if text.isupper() else Ruling.passes()


class Broken(Guardrail):
    """Never gives an answer."""

    async def output(self, ctx: StepContext, text: str, /) -> Ruling:
        LOOKS.append(text)
        raise ConnectionError("the judge is away")


class Lenient(Broken):
    fail = "open"


class CutOff(Guardrail):
    """Its own store does not answer, the first time."""

    async def output(self, ctx: StepContext, text: str, /) -> Ruling:
        LOOKS.append(text)
        if len(LOOKS) == 1:
            raise StoreUnavailable("values", "gone")
        return Ruling.passes()


class Asleep(Guardrail):
    """Takes longer than it may."""

    timeout_s = 2.0

    async def output(self, ctx: StepContext, text: str, /) -> Ruling:
        await ctx.clock.sleep(60.0)
        return Ruling.passes()


class WrongKind(Guardrail):
    """Replaces a text by something else."""

    async def output(self, ctx: StepContext, text: str, /) -> Ruling:
        return Ruling(action="replace", value=17)


RAILS = {rail.name: rail() for rail in (NoCards, NoAnger, Broken, Lenient, CutOff, Asleep, WrongKind)}


class Says(Agent[list[str], str]):
    """Has the named guardrails look at its answer, which is the last of its input."""

    async def run(self, ctx: Context, input: list[str], /) -> str:
        *names, text = input
        text = await guard(ctx, [RAILS[name] for name in names], "output", text)
        await ctx.durable()
        await ctx.step("send", send, text)
        return text


class Hears(Agent[list[str], str]):
    """Has the named guardrails look at what it is told."""

    async def run(self, ctx: Context, input: list[str], /) -> str:
        *names, text = input
        message = UserMessage(text=text, attachments=[Attachment(media_type="image/png", url="https://example.org/a.png")])
        heard = await guard(ctx, [RAILS[name] for name in names], "input", message)
        assert heard.attachments == message.attachments
        return heard.text


class Calls(Agent[str, str]):
    """Has a tool call looked at, and returns its arguments."""

    async def run(self, ctx: Context, input: str, /) -> str:
        call = await guard(ctx, [RAILS["no-cards"]], "tool", ToolCall(id="1", name="refund", arguments=input))
        assert (call.id, call.name) == ("1", "refund")
        return call.arguments


AGENTS: list[AnyAgent] = [Says, Hears, Calls]


async def send(text: str) -> None:
    LOOKS.append(f"sent {text}")


async def test_each_guardrail_looks_at_what_the_last_one_left() -> None:
    async with runtime(agents=AGENTS) as rt:
        assert await rt.run(Hears, ["no-cards", "no-anger", "My card is 4111."], run_id="r") == "My card is ****."
        assert LOOKS == ["r: My card is 4111.", "anger? My card is ****."]
        assert await rt.steps("r") == ["guard:input:no-cards#1", "guard:input:no-anger#1"]


async def test_what_is_blocked_ends_the_run_with_the_reason() -> None:
    async with runtime(agents=AGENTS) as rt:
        with pytest.raises(RunError) as caught:
            await rt.run(Says, ["no-anger", "NEVER!"])
        assert caught.value.kind == "GuardrailTripped"
        assert caught.value.message == "guardrail 'no-anger' stopped the output: shouting"
        assert LOOKS == []


async def test_a_guardrail_is_asked_for_the_hooks_that_it_has_and_no_other() -> None:
    async with runtime(agents=AGENTS) as rt:
        assert await rt.run(Says, ["no-cards", "4111"], run_id="r") == "4111"
        assert await rt.steps("r") == ["send#1"]
    assert watched([NoAnger()], "output")
    assert not watched([NoCards(), NoAnger()][:1], "output")


async def test_a_replay_asks_no_guardrail_again() -> None:
    async with runtime(agents=AGENTS) as rt:
        await rt.crash(at="send", before=True)
        handle = await rt.submit(Says, ["lenient", "All is well."])
        await rt.settle()
        assert rt.crashed == 1
        assert await handle.result() == "All is well."
        assert LOOKS == ["All is well.", "sent All is well."]


@pytest.mark.parametrize(("rail", "why"), [("broken", "ConnectionError: the judge is away"), ("wrong-kind", "TypeError")])
async def test_one_that_fails_closed_blocks_when_it_gives_no_answer(rail: str, why: str) -> None:
    async with runtime(agents=AGENTS) as rt:
        with pytest.raises(RunError, match=f"it gave no answer .{why}"):
            await rt.run(Says, [rail, "All is well."])


async def test_one_that_fails_open_lets_pass_when_it_gives_no_answer() -> None:
    async with runtime(agents=AGENTS) as rt:
        assert await rt.run(Says, ["lenient", "All is well."]) == "All is well."


async def test_one_that_takes_too_long_gives_no_answer() -> None:
    async with runtime(agents=AGENTS) as rt:
        handle = await rt.submit(Says, ["asleep", "All is well."])
        await rt.settle()
        await rt.clock.advance(2.0)
        with pytest.raises(RunError, match="no end within 2 s"):
            await handle.result()


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"cents": 100, "note": "card 4111"}, {"cents": 100, "note": "****"}),
        ({"cents": 100, "note": "thanks"}, {"cents": 100, "note": "thanks"}),
    ],
)
async def test_a_tools_arguments_are_looked_at_by_name(given: dict[str, Any], left: dict[str, Any]) -> None:
    async with runtime(agents=AGENTS) as rt:
        assert json.loads(await rt.run(Calls, json.dumps(given))) == left
        assert [f"refund: {given}"] == LOOKS


@pytest.mark.parametrize("broken", ["{", "[1]", '"4111"'])
async def test_arguments_that_are_no_object_are_left_to_the_tool_which_refuses_them(broken: str) -> None:
    async with runtime(agents=AGENTS) as rt:
        assert await rt.run(Calls, broken) == broken
        assert LOOKS == []


async def test_a_store_that_is_away_is_no_answer_of_the_guardrail_it_is_asked_again_when_the_store_is_back() -> None:
    async with runtime(agents=AGENTS) as rt:
        handle = await rt.submit(Says, ["cut-off", "All is well."])
        await rt.settle()
        await rt.clock.advance(10.0)
        assert await handle.result() == "All is well."
        assert LOOKS == ["All is well.", "All is well.", "sent All is well."]


async def test_a_cancellation_is_no_failure_of_the_guardrail() -> None:
    async with runtime(agents=AGENTS) as rt:
        handle = await rt.submit(Says, ["asleep", "All is well."], run_id="r")
        await rt.settle()
        await handle.cancel()
        await rt.settle()
        assert (await handle.info()).status == "cancelled"


def test_a_guardrail_must_say_what_its_silence_means_and_for_how_long_it_may_be_silent() -> None:
    with pytest.raises(InvalidSetting, match="must be 'open' or 'closed'"):
        type("Vague", (Guardrail,), {"fail": "maybe"})
    with pytest.raises(InvalidSetting, match="must be above 0"):
        type("Hasty", (Guardrail,), {"timeout_s": 0.0})


def test_a_tripped_guardrail_says_which_one_what_it_stopped_and_why() -> None:
    tripped = GuardrailTripped("no-anger", "output", "shouting", "r")
    assert (tripped.guardrail, tripped.hook, tripped.reason, tripped.run_id) == ("no-anger", "output", "shouting", "r")
    assert str(tripped) == "GuardrailTripped: guardrail 'no-anger' stopped the output: shouting (run 'r')"
