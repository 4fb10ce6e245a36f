"""What a session keeps: its history, and small values each with a lifetime of its own; and how a run reads and writes them."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from agentkit import Agent, ChatAgent, Context, InvalidKey, NotSerialisable, RunCancelled, RunError, SessionSettings, StepContext
from agentkit.agents.meta import Principal
from agentkit.agents.tool import tool
from agentkit.durable.secret import Secret
from agentkit.ports.messages import Message, UserMessage
from agentkit.testing import LocalRuntime, ScriptedModel, ToolCall, runtime
from agentkit.testing.runtime import RuntimeClock
from tests.core.talking import Log, Support, always, echo, said, session, turns

HOUR = 3600.0


class Short(ChatAgent):
    """Remembers little."""

    model = "chat"
    session = SessionSettings(keep_messages=4, history_s=HOUR, preferences_s=HOUR, scratchpad_s=60.0, secrets_s=60.0)


async def test_history_is_trimmed_by_whole_turns_and_what_is_trimmed_is_gone_from_the_store() -> None:
    async with runtime(agents=[Short], models={"chat": always(echo)}) as rt:
        one = rt.session(Short, "ann")
        for n in range(5):
            await (await one.send(str(n))).result()
        assert [m.content for m in await one.history()] == ["3", "re 3", "4", "re 4"]
        assert [m.content for m in await one.history(last=3)] == ["re 3", "4", "re 4"]
        assert len(await rt.values.scan("agentkit/session/")) == 3


async def test_a_turn_longer_than_a_value_may_be_is_kept_whole() -> None:
    async with runtime(agents=[Short], models={"chat": always(echo)}) as rt:
        rt.values.max_value_bytes = 5_000
        one, text = rt.session(Short, "ann"), "漢" * 4_000
        await (await one.send(text)).result()
        assert [m.content for m in await one.history()] == [text, f"re {text}"]


async def test_each_turn_is_forgotten_when_its_time_is_over() -> None:
    async with runtime(agents=[Short], models={"chat": always(echo)}) as rt:
        one = rt.session(Short, "ann")
        await (await one.send("old")).result()
        await rt.clock.advance(0.7 * HOUR)
        await (await one.send("new")).result()
        await rt.clock.advance(0.7 * HOUR)
        assert [m.content for m in await one.history()] == ["new", "re new"]
        await rt.clock.advance(HOUR)
        assert await one.history() == []
        assert await (await one.send("again")).result() == "re again"


async def test_an_append_with_the_same_key_is_made_once() -> None:
    async with runtime(agents=[Support], models={"chat": always(echo)}) as rt:
        one = session(rt)
        for _ in range(2):
            await one.append([Message(role="assistant", content="A colleague took over.")], key="note-1")
        await (await one.send("hi")).result()
        assert [m.content for m in await one.history()] == ["A colleague took over.", "hi", "re hi"]


class Prefs(BaseModel):
    language: str


async def test_preferences_scratchpad_and_secrets_have_their_own_lifetimes() -> None:
    async with runtime(agents=[Short]) as rt:
        one = rt.session(Short, "ann")
        await one.set("prefs", Prefs(language="de"))
        await one.set("brief", 1, ttl_s=5.0)
        await one.scratchpad.set("draft", ["a", "b"])
        await one.secrets.set("token", Secret("hunter2"))
        assert await one.get("prefs", Prefs) == Prefs(language="de")
        assert await one.scratchpad.get("draft", list[str]) == ["a", "b"]
        secret = await one.secrets.get("token")
        assert secret is not None
        assert secret.get_secret_value() == "hunter2"
        assert "hunter2" not in repr(secret)
        await rt.clock.advance(10.0)
        assert await one.get("brief", int) is None
        await rt.clock.advance(60.0)
        assert await one.scratchpad.get("draft", list[str]) is None
        assert await one.secrets.get("token") is None
        assert await one.get("prefs", Prefs) == Prefs(language="de")
        await one.preferences.remove("prefs")
        assert await one.get("prefs", Prefs) is None


async def test_a_value_of_another_shape_or_that_json_cannot_hold_is_refused() -> None:
    async with runtime(agents=[Short]) as rt:
        one = rt.session(Short, "ann")
        await one.set("prefs", [1])
        with pytest.raises(NotSerialisable):
            await one.get("prefs", Prefs)
        with pytest.raises(NotSerialisable):
            await one.set("prefs", object())
        with pytest.raises(NotSerialisable, match="belongs in `secrets`"):
            await one.set("prefs", {"login": [Secret("hunter2")]})


async def test_a_session_of_another_tenant_agent_or_id_is_another_one() -> None:
    async with runtime(agents=[Short, Support]) as rt:
        await rt.session(Short, "a/b", tenant="t").set("x", 1)
        for other in (rt.session(Short, "a/b"), rt.session(Support, "a/b", tenant="t"), rt.session(Short, "b", tenant="t/a")):
            assert await other.get("x", int) is None
        long = rt.session(Short, "é" * 100, tenant="t" * 400)
        await long.set("x", 2)
        assert await long.get("x", int) == 2


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb"])
def test_an_id_that_cannot_be_a_key_is_refused(name: str) -> None:
    with pytest.raises(InvalidKey):
        LocalRuntime.session(_made(), Support, name)


def _made() -> LocalRuntime:
    return LocalRuntime(clock=RuntimeClock(), agents=[Support])


async def test_a_deleted_session_is_forgotten_whole_and_what_was_under_way_is_cancelled() -> None:
    model = always(lambda request: ToolCall("refund", cents=5) if said(request)[-1] == "refund" else echo(request))
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: Log()}) as rt:
        one = session(rt)
        await (await one.send("hi")).result()
        await one.set("prefs", Prefs(language="de"))
        held, waiting = await one.send("refund"), await one.send("hello")
        await rt.settle()
        await one.delete()
        for handle in (held, waiting):
            with pytest.raises(RunCancelled):
                await handle.result()
        await rt.settle()
        assert await rt.values.scan("agentkit/session/") == []
        assert await (await one.send("anew")).result() == "re anew"
        assert await turns(one) == [("anew", "re anew")]


# Inside a run


class Remembers(ChatAgent):
    """Knows who asks."""

    model = "chat"

    async def prepare(self, ctx: Context, message: UserMessage, /) -> str:
        assert ctx.session is not None
        prefs = await ctx.session.get("prefs", Prefs)
        asked = await ctx.session.scratchpad.get("asked", int) or 0
        await ctx.session.scratchpad.set("asked", asked + 1)
        return f"Speak {prefs.language if prefs else 'en'}. {ctx.principal.id} asked {asked} times."


async def test_in_a_run_the_verbs_of_a_session_are_durable_steps() -> None:
    model = always(echo)
    async with runtime(agents=[Remembers], models={"chat": model}) as rt:
        one = rt.session(Remembers, "ann", principal=Principal(id="ann"))
        await one.set("prefs", Prefs(language="de"))
        await (await one.send("one")).result()
        await rt.crash(at="model")
        handle = await one.send("two")
        await rt.settle()
        await handle.result()
        assert await rt.steps(handle.run_id) == ["session.get#1", "session.get#2", "session.set#1", "model#1"]
        assert model.requests[-1].messages[0].content == "Speak de. ann asked 1 times."
        assert await one.scratchpad.get("asked", int) == 2


class Busy(ChatAgent):
    """Does all that one can do with a session in a run."""

    model = "chat"

    async def prepare(self, ctx: Context, message: UserMessage, /) -> str:
        session = ctx.session
        assert session is not None
        for _ in range(2):
            await session.append([Message(role="assistant", content=f"{session.id} called.")], key=ctx.run_id)
        await session.scratchpad.set("x", 1)
        await session.scratchpad.remove("x")
        if message.text == "more":
            await session.send("later")
        return str([m.content for m in await session.history(last=1)])


async def test_in_a_run_a_session_is_read_added_to_and_spoken_to_once_whatever_crashes() -> None:
    model = always(echo)
    async with runtime(agents=[Busy], models={"chat": model}) as rt:
        one = rt.session(Busy, "ann")
        await rt.crash(at="model")
        handle = await one.send("more")
        await rt.settle()
        assert await handle.result() == "re more"
        assert [m.content for m in await one.history()] == ["ann called.", "more", "re more", "ann called.", "later", "re later"]
        assert [v async for v in rt.verify([handle.run_id]) if not v.ok] == []


@pytest.mark.parametrize("verb", ["get", "set", "delete"])
async def test_what_no_replay_could_repeat_is_refused_in_run(verb: str) -> None:
    class Careless(ChatAgent):
        """Does what it must not."""

        async def prepare(self, ctx: Context, message: UserMessage, /) -> str:
            assert ctx.session is not None
            if verb == "delete":
                await ctx.session.delete()
            elif verb == "set":
                await ctx.session.secrets.set("token", Secret("x"))
            else:
                await ctx.session.secrets.get("token")
            return ""

    async with runtime(agents=[Careless]) as rt:
        one = rt.session(Careless, "ann")
        await one.secrets.set("token", Secret("hunter2"))
        with pytest.raises(RunError, match="Misuse"):
            await (await one.send("go")).result()
        await one.secrets.remove("token")
        assert await one.secrets.get("token") is None


async def test_a_secret_is_read_in_a_tool_and_is_in_no_journal() -> None:
    @tool
    async def call_api(step: StepContext) -> str:
        """Calls."""
        assert step.session is not None
        token = await step.session.secrets.get("token")
        return "called" if token is not None and token.get_secret_value() == "hunter2" else "no token"

    class Caller(ChatAgent):
        """Calls an API."""

        model = "chat"
        tools = (call_api,)

    model = ScriptedModel([ToolCall("call_api"), "ok"])
    async with runtime(agents=[Caller], models={"chat": model}) as rt:
        one = rt.session(Caller, "ann")
        await one.secrets.set("token", Secret("hunter2"))
        handle = await one.send("go")
        assert await handle.result() == "ok"
        assert "called" in model.prompts[1]
        entries = await rt.store.load(handle.run_id, after=-1)
        assert not any(b"hunter2" in entry.body or "hunter2" in entry.fp for entry in entries)


class Helper(ChatAgent):
    """Helps, and is not the one who talks."""

    model = "chat"


class Boss(ChatAgent):
    """Has somebody help before it answers."""

    model = "chat"

    async def prepare(self, ctx: Context, message: UserMessage, /) -> str:
        assert ctx.session is not None
        return await ctx.run("help", Helper, f"help with {message.text}") + f" in {await ctx.session.get('place', str)}"


async def test_a_child_that_only_works_for_a_turn_is_no_turn_itself() -> None:
    model = always(echo)
    async with runtime(agents=[Boss, Helper], models={"chat": model}) as rt:
        one = rt.session(Boss, "ann")
        await one.set("place", "Rome")
        for text in ("one", "two"):
            await (await one.send(text)).result()
        assert await turns(one) == [("one", "re one"), ("two", "re two")]
        assert [m.content for m in model.requests[2].messages] == ["help with two"]
        assert model.requests[3].messages[0].content == "re help with two in Rome"


class Lone(Agent[str, bool]):
    async def run(self, ctx: Context, input: str, /) -> bool:
        return ctx.session is None


async def test_a_run_outside_of_a_session_has_none() -> None:
    async with runtime(agents=[Lone]) as rt:
        assert await rt.run(Lone, "")
