"""Chat agents: a model with tools, made of steps. What goes wrong is told to the model, or ends the run by an error that says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import BaseModel

from agentkit import Agent, ChatAgent, Context, RunCancelled, RunError, StepContext, StepError, TooManyTurns
from agentkit.agents.chat import SAVE_EVERY, Handover, handoff_name
from agentkit.agents.guardrail import Guardrail, Ruling
from agentkit.agents.meta import Principal
from agentkit.agents.tool import tool
from agentkit.inmemory.inference import Delay, ScriptedInference
from agentkit.ports.messages import Attachment, Finished, FinishReason, Message, Request, Text, UserMessage
from agentkit.ports.records import EntryKind
from agentkit.testing import LocalRuntime, ScriptedModel, ToolCall, runtime
from agentkit.testing.crash import until


class Shop:
    """The app's own, with what was done to it."""

    def __init__(self) -> None:
        self.refunds: list[int] = []


@tool
async def look_up(step: StepContext, order: str) -> str:
    """Status of an order."""
    if order == "lost":
        raise LookupError("no such order")
    return f"{order} is on its way"


@tool(effect="rerun", requires={"refund"})
async def refund(step: StepContext, cents: int) -> str:
    """Give money back."""
    step.get(Shop).refunds.append(cents)
    return "refunded"


class Support(ChatAgent):
    """Answers."""

    model = "chat"
    instructions = "Be kind."
    tools = (look_up, refund)


def always(reply: Callable[[Request], object]) -> ScriptedModel:
    return ScriptedModel(reply for _ in range(10_000))


def answers(request: Request) -> list[str]:
    """What the model was told by tools."""
    return [m.content for m in request.messages if m.role == "tool"]


async def ask(agent: type[ChatAgent[str]], model: ScriptedModel, text: str = "hi", **given: object) -> str:
    async with runtime(agents=[agent], models={"chat": model}, resources={Shop: Shop()}) as rt:
        return await rt.run(agent, text, run_id="r", **given)  # type: ignore[arg-type]


async def failed(agent: type[ChatAgent[str]], model: ScriptedModel) -> str:
    with pytest.raises(RunError) as error:
        await ask(agent, model)
    return error.value.kind


# Tools


async def test_without_a_session_it_answers_one_message() -> None:
    model = ScriptedModel(["Hello."])
    assert await ask(Support, model) == "Hello."
    assert [(m.role, m.content) for m in model.requests[0].messages] == [("system", "Be kind."), ("user", "hi")]
    assert [spec.name for spec in model.requests[0].tools] == ["look_up", "refund"]


async def test_tools_of_one_answer_run_side_by_side_each_in_a_scope_of_its_own() -> None:
    model = ScriptedModel([[ToolCall("look_up", order="1"), ToolCall("look_up", order="2")], "Both."])
    async with runtime(agents=[Support], models={"chat": model}) as rt:
        handle = await rt.submit(Support, "hi", run_id="r")
        assert await handle.result() == "Both."
        assert sorted(await rt.steps("r")) == ["gather#1/1/look_up#1", "gather#1/2/look_up#1", "model#1", "model#2"]
    assert answers(model.requests[1]) == ["1 is on its way", "2 is on its way"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (ToolCall("look_up", order="lost"), "LookupError: no such order"),
        (ToolCall("look_up", number=1), "order"),
        (ToolCall("look_pu", order="1"), "did you mean 'look_up'"),
        (ToolCall("refund", cents=1), "PermissionDenied"),
    ],
)
async def test_a_call_that_comes_to_nothing_is_told_to_the_model(call: ToolCall, told: str) -> None:
    model = ScriptedModel([call, "I see."])
    assert await ask(Support, model) == "I see."
    assert told in answers(model.requests[1])[0]


async def test_a_permitted_tool_acts_on_behalf_of_the_principal() -> None:
    shop, model = Shop(), ScriptedModel([ToolCall("refund", cents=5), "Done."])
    async with runtime(agents=[Support], models={"chat": model}, resources={Shop: shop}) as rt:
        assert await rt.run(Support, "hi", principal=Principal(id="ann", permissions=frozenset({"refund"}))) == "Done."
    assert shop.refunds == [5]


async def test_too_many_turns_end_the_run_and_say_so() -> None:
    class Brief(Support):
        """Two calls."""

        max_turns = 2

    model = always(lambda _: ToolCall("look_up", order="1"))
    with pytest.raises(RunError, match="2 calls of the model") as error:
        await ask(Brief, model)
    assert error.value.kind == TooManyTurns.__name__
    assert len(model.requests) == 2


@pytest.mark.parametrize(("reason", "kind"), [("length", "AnswerCut"), ("content_filter", "AnswerWithheld")])
async def test_an_answer_that_is_not_whole_is_no_answer(reason: FinishReason, kind: str) -> None:
    model = ScriptedInference([[Text("I will"), Finished(reason)]])
    async with runtime(agents=[Support], models={"chat": model}) as rt:
        with pytest.raises(RunError) as error:
            await rt.run(Support, "hi")
        assert error.value.kind == kind


async def test_a_model_that_fails_ends_the_run_with_its_error() -> None:
    assert await failed(Support, ScriptedModel([])) == "ScriptExhausted"


def test_two_tools_of_one_name_are_refused_where_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="look_up"):
        type("Twice", (ChatAgent,), {"tools": (look_up, look_up)})


# Typed answers


class Order(BaseModel):
    number: int
    late: bool = False


class Reader(ChatAgent[Order]):
    """Reads orders."""

    model = "chat"


async def test_a_typed_agent_answers_with_its_type() -> None:
    model = ScriptedModel([Order(number=7)])
    async with runtime(agents=[Reader], models={"chat": model}) as rt:
        assert await rt.run(Reader, "hi") == Order(number=7)
    assert model.requests[0].output is not None
    assert Reader.output_type is Order
    assert Support.output_type is str


async def test_a_typed_answer_is_found_again_in_the_history() -> None:
    async with runtime(agents=[Reader], models={"chat": ScriptedModel([Order(number=7)])}) as rt:
        session = rt.session(Reader, "ann")
        await (await session.send("hi", message_id="m1")).result()
        await rt.clock.advance(Reader.keep_s + 1)
        assert await (await session.send("hi", message_id="m1")).result() == Order(number=7)


async def test_an_answer_of_another_form_is_asked_for_again_and_is_not_kept() -> None:
    model = ScriptedModel(["seven", Order(number=7)])
    async with runtime(agents=[Reader], models={"chat": model}) as rt:
        session = rt.session(Reader, "ann")
        assert await (await session.send("hi")).result() == Order(number=7)
        assert [m.content for m in await session.history()] == ["hi", '{"number":7,"late":false}']
    assert "is not JSON" in model.prompts[1]


async def test_a_model_that_never_finds_the_form_fails_the_run() -> None:
    async with runtime(agents=[Reader], models={"chat": always(lambda _: "seven")}) as rt:
        with pytest.raises(StepError) as error:
            await rt.run(Reader, "hi")
        assert error.value.kind == "OutputInvalid"


# Durability


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", ["model#1", "gather#1/1/look_up#1", "gather#1/2/refund#1", "model#2"])
async def test_a_crash_at_any_step_changes_neither_the_answer_nor_what_was_done(at: str, before: bool) -> None:
    shop = Shop()
    model = always(lambda r: "Done." if answers(r) else [ToolCall("look_up", order="1"), ToolCall("refund", cents=5)])
    who = Principal(id="ann", permissions=frozenset({"refund"}))
    async with runtime(agents=[Support], models={"chat": model}, resources={Shop: shop}) as rt:
        await rt.crash(at=at, before=before)
        handle = await rt.submit(Support, "hi", principal=who)
        await rt.clock.advance(120.0)
        assert await handle.result() == "Done."
        assert rt.crashed == 1
        assert set(shop.refunds) == {5}
        assert [v async for v in rt.verify([handle.run_id]) if not v.ok] == []


async def test_a_long_turn_is_written_down_now_and_then_so_that_its_replay_stays_short() -> None:
    class Long(Support):
        """Goes on and on."""

        max_turns = 3 * SAVE_EVERY

        async def prepare(self, ctx: Context, message: UserMessage, /) -> str:
            return await ctx.step("prepare", greeting)

    prepared: list[str] = []

    async def greeting() -> str:
        prepared.append("prepared")
        return "Be brief."

    model = always(lambda r: "Done." if len(answers(r)) == 2 * SAVE_EVERY + 3 else ToolCall("look_up", order=str(len(answers(r)))))
    async with runtime(agents=[Long], models={"chat": model}) as rt:
        await rt.crash(at=f"model#{2 * SAVE_EVERY + 2}")
        handle = await rt.submit(Long, "hi")
        await rt.settle()
        assert await handle.result() == "Done."
        assert rt.crashed == 1
        entries = await rt.store.load(handle.run_id)
        assert sum(entry.kind == EntryKind.RESULT for entry in entries) < 12
        assert all(request.messages[0].content == "Be brief." for request in model.requests)
        assert prepared == ["prepared"]


async def test_a_cancelled_run_stops_in_the_middle_of_an_answer() -> None:
    model = ScriptedModel([["Well, ", Delay(1000), "no."]])
    async with runtime(agents=[Support], models={"chat": model}) as rt:
        handle = await rt.submit(Support, "hi")
        await _until_told(rt, handle.run_id)
        await handle.cancel("enough")
        with pytest.raises(RunCancelled):
            await handle.result()


async def _until_told(rt: LocalRuntime, run_id: str) -> None:
    async def told() -> bool:
        return any(e.kind == EntryKind.TEXT for e in await rt.store.load(run_id, after=-1))

    await until("some text is told", told)


# What is shown


async def test_the_text_and_the_tools_are_told_as_they_come() -> None:
    model = ScriptedModel([ToolCall("look_up", order="1"), "It is on its way."])
    async with runtime(agents=[Support], models={"chat": model}) as rt:
        handle = await rt.submit(Support, "hi")
        await handle.result()
        events = [event async for event in handle.events()]
    assert "".join(event.text for event in events if event.type == "text") == "It is on its way."
    assert [(event.tool, event.phase) for event in events if event.type == "tool"] == [("look_up", "called"), ("look_up", "returned")]


async def test_history_is_trimmed_to_what_the_model_may_be_shown() -> None:
    class Forgetful(Support):
        """Sees little."""

        max_history_tokens = 5

        def count_tokens(self, message: Message, /) -> int:
            return 1

    model = always(lambda request: f"re {request.messages[-1].content}")
    async with runtime(agents=[Forgetful], models={"chat": model}) as rt:
        session = rt.session(Forgetful, "ann")
        for n in range(4):
            await (await session.send(str(n))).result()
        assert len(await session.history()) == 8
    assert [m.content for m in model.requests[-1].messages] == ["Be kind.", "2", "re 2", "3"]


# Handing over


class Billing(ChatAgent):
    """Knows about invoices."""

    model = "billing"


class Desk(ChatAgent):
    """The first one to ask."""

    model = "desk"
    handoffs = (Billing,)


Billing.handoffs = (Desk,)


def to(agent: type[ChatAgent[str]], note: str = "") -> ToolCall:
    return ToolCall(handoff_name(agent), note=note)


async def test_another_agent_takes_over_and_keeps_the_conversation_until_it_hands_it_back() -> None:
    desk = ScriptedModel(["Hello.", to(Billing, "it is about invoice 7"), "Back again."])
    billing = ScriptedModel(["Invoice 7 is paid.", "Anything else?", to(Desk)])
    async with runtime(agents=[Desk], models={"desk": desk, "billing": billing}) as rt:
        session = rt.session(Desk, "ann")
        replies = [await (await session.send(text)).result() for text in ("hi", "my invoice?", "really?", "thanks")]
        assert replies == ["Hello.", "Invoice 7 is paid.", "Anything else?", "Back again."]
        said = [(m.role, m.content) for m in await session.history()]
        assert said == [
            ("user", "hi"), ("assistant", "Hello."),
            ("user", "my invoice?"), ("assistant", "Invoice 7 is paid."),
            ("user", "really?"), ("assistant", "Anything else?"),
            ("user", "thanks"), ("assistant", "Back again."),
        ]  # fmt: skip
        assert (await session.turns.head()).in_charge == "desk"
    assert "handed over to you by desk: it is about invoice 7" in billing.prompts[0]
    assert "assistant: Hello." in billing.prompts[0]
    assert len(desk.requests) == 3


async def test_what_another_agent_answers_is_told_to_whoever_follows_the_first() -> None:
    models = {"desk": ScriptedModel([to(Billing)]), "billing": ScriptedModel(["It is paid."])}
    async with runtime(agents=[Desk], models=models) as rt:
        handle = await rt.session(Desk, "ann").send("my invoice?")
        await handle.result()
        assert "".join([event.text async for event in handle.events() if event.type == "text"]) == "It is paid."


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", ["model", "say"])
async def test_a_crash_while_another_agent_has_the_conversation_doubles_nothing(at: str, before: bool) -> None:
    models = {"desk": always(lambda _: to(Billing)), "billing": always(lambda request: f"re {request.messages[-1].content}")}
    async with runtime(agents=[Desk], models=models) as rt:
        session = rt.session(Desk, "ann")
        await (await session.send("one")).result()
        await rt.crash(at=at, before=before)
        handle = await session.send("two")
        await rt.settle()
        assert await handle.result() == "re two"
        assert rt.crashed == 1
        assert [m.content for m in await session.history()] == ["one", "re one", "two", "re two"]


async def test_a_handoff_outside_of_a_session_is_made_all_the_same() -> None:
    models = {"desk": ScriptedModel([to(Billing)]), "billing": ScriptedModel(["It is paid."])}
    async with runtime(agents=[Desk], models=models) as rt:
        assert await rt.run(Desk, "my invoice?") == "It is paid."


class Ledger(Agent[str, str]):
    """Any agent that takes a text."""

    async def run(self, ctx: Context, text: str, /) -> str:
        return f"ledger: {text}"


async def test_an_agent_that_does_not_chat_may_take_over_too() -> None:
    class Front(ChatAgent):
        """Asks the ledger."""

        model = "chat"
        handoffs = (Ledger,)

    model = ScriptedModel([ToolCall(handoff_name(Ledger), note="")])
    async with runtime(agents=[Front], models={"chat": model}) as rt:
        session = rt.session(Front, "ann")
        assert await (await session.send("balance?")).result() == "ledger: balance?"
        assert [m.content for m in await session.history()] == ["balance?", "ledger: balance?"]


class Archive(Agent[UserMessage, int]):
    """Any agent that takes a message, and answers with something else."""

    async def run(self, ctx: Context, message: UserMessage, /) -> int:
        return len(message.attachments)


async def test_what_an_agent_of_another_type_answers_becomes_a_text() -> None:
    class Clerk(ChatAgent):
        """Asks the archive."""

        model = "chat"
        handoffs = (Archive,)

    model = ScriptedModel([[ToolCall("hand_over_to_archive")]])
    async with runtime(agents=[Clerk], models={"chat": model}) as rt:
        assert await rt.run(Clerk, UserMessage(text="file it", attachments=[Attachment(media_type="image/png", url="data:,x")])) == "1"


async def test_a_handover_goes_through_the_input_of_a_run_whole() -> None:
    given = Handover(text="x", conversation=[Message(role="user", content="a")], said=[Message(role="user", content="x")], by="desk")
    models = {"billing": always(lambda request: str(len(request.messages)))}
    async with runtime(agents=[Billing], models=models) as rt:
        assert await rt.run(Billing, given) == "3"
        assert await rt.run(Billing, UserMessage(text="x")) == "1"


# Guardrails


class NoSwearing(Guardrail):
    async def input(self, ctx: StepContext, message: UserMessage, /) -> Ruling:
        if message.text == "damn":
            return Ruling.block("mind your language")
        return Ruling.replace(message.text.replace("heck", "****"))

    async def output(self, ctx: StepContext, text: str, /) -> Ruling:
        return Ruling.replace(text.replace("secret", "[…]"))

    async def tool(self, ctx: StepContext, name: str, arguments: dict[str, object], /) -> Ruling:
        return Ruling.block("not that one") if arguments.get("order") == "13" else Ruling.passes()


class Guarded(Support):
    """Watched."""

    guardrails = (NoSwearing(),)


async def test_what_a_guardrail_stops_no_model_reads_and_no_session_keeps() -> None:
    model = always(lambda request: f"re {request.messages[-1].content}")
    async with runtime(agents=[Guarded], models={"chat": model}) as rt:
        session = rt.session(Guarded, "ann")
        with pytest.raises(RunError) as error:
            await (await session.send("damn")).result()
        assert error.value.kind == "GuardrailTripped"
        assert await (await session.send("what the heck")).result() == "re what the ****"
        assert [m.content for m in await session.history()] == ["what the ****", "re what the ****"]
    assert len(model.requests) == 1


async def test_an_answer_is_shown_only_after_the_guardrails_have_seen_it() -> None:
    async with runtime(agents=[Guarded], models={"chat": ScriptedModel(["the secret is out"])}) as rt:
        handle = await rt.submit(Guarded, "hi")
        assert await handle.result() == "the […] is out"
        assert [event.text async for event in handle.events() if event.type == "text"] == ["the […] is out"]


async def test_a_tool_call_that_a_guardrail_stops_is_told_to_the_model() -> None:
    model = ScriptedModel([[ToolCall("look_up", order="13"), ToolCall("look_up", order="14")], "I see."])
    assert await ask(Guarded, model) == "I see."
    assert "not that one" in answers(model.requests[1])[0]
    assert answers(model.requests[1])[1] == "14 is on its way"


class Priced(BaseModel):
    cents: int


async def test_a_model_that_is_asked_to_mend_its_answer_is_shown_the_question_however_little_fits() -> None:
    class Terse(ChatAgent[Priced]):
        """Answers with a price, and remembers little."""

        model = "chat"
        tools = (look_up,)
        max_history_tokens = 60

    model = ScriptedModel([ToolCall("look_up", order="17 " * 100), "It costs three euros.", '{"cents": 300}'])
    async with runtime(agents=[Terse], models={"chat": model}) as rt:
        assert await rt.run(Terse, "What does it cost?") == Priced(cents=300)
    assert "What does it cost?" in [message.content for message in model.requests[-1].messages]
    assert [message.role for message in model.requests[-1].messages][-2:] == ["assistant", "user"]
