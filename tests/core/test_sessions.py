"""Sessions: one writer at a time, whoever it is. Messages that wait are answered in order, each once, and nobody is in the way for ever."""

from __future__ import annotations

from functools import partial

import anyio
import anyio.lowlevel
import pytest

from agentkit import ChatAgent, Overloaded, RunBuried, RunCancelled, RunConflict, RunError, SessionSettings, Tenant
from agentkit.agents.turn import LOOK_S
from agentkit.agents.turns import ABSENT_S
from agentkit.ports.messages import Request
from agentkit.ports.records import EntryKind, RunStatus
from agentkit.testing import ToolCall, runtime
from tests.core.talking import Log, Support, always, echo, noting, said, session, status, turns

# One writer


async def test_fifty_messages_sent_at_once_are_answered_one_after_the_other_whatever_crashes() -> None:
    log, model = Log(), always(noting)
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: log}) as rt:
        crashes = iter(["model#1", "note#1", "model#2"] * 5)

        async def crash_now_and_then() -> None:
            if len(log.lines) % 3 == 0 and (at := next(crashes, None)) is not None:
                await rt.crash(at=at)

        log.before_note = crash_now_and_then
        one = session(rt)
        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(partial(one.send, f"message {n}", message_id=str(n)))
        await rt.settle()
        handles = [rt.handle(one.run_id(str(n)), Support) for n in range(50)]
        assert [await handle.result() for handle in handles] == [f"re message {n}" for n in range(50)]
        assert rt.crashed == 15
        order = await turns(one)
        assert sorted(order) == sorted((f"message {n}", f"re message {n}") for n in range(50))
        assert len(await one.history()) == 50 * 4
        assert list(dict.fromkeys(log.lines)) == [asked for asked, _ in order]
        for request in model.requests:  # each knows all that was said before, and nothing that was said since
            asked = said(request)
            assert asked == [text for text, _ in order[: len(asked)]]
        assert (await one.turns.head()).line == ()


async def test_messages_sent_one_after_the_other_are_answered_in_that_order() -> None:
    async with runtime(agents=[Support], models={"chat": always(echo)}) as rt:
        handles = [await session(rt).send(str(n)) for n in range(12)]
        for handle in handles:
            await handle.result()
        assert [asked for asked, _ in await turns(session(rt))] == [str(n) for n in range(12)]


async def test_two_sessions_do_not_wait_for_each_other() -> None:
    model = always(lambda request: ToolCall("refund", cents=5) if said(request) == ["refund"] else echo(request))
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: Log()}) as rt:
        held = await session(rt, name="ann").send("refund")
        await rt.settle()
        assert await status(rt, held.run_id) == RunStatus.PARKED
        assert await (await session(rt, name="bob").send("hello")).result() == "re hello"


async def test_while_a_turn_waits_for_a_human_the_next_message_waits_too_and_holds_no_slot() -> None:
    model = always(
        lambda request: (
            ToolCall("refund", cents=5) if said(request) == ["refund"] and request.messages[-1].role == "user" else echo(request)
        )
    )
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: Log()}) as rt:
        held = await session(rt).send("refund")
        waiting = await session(rt).send("and now?")
        await rt.settle()
        assert [await status(rt, h.run_id) for h in (held, waiting)] == [RunStatus.PARKED, RunStatus.PARKED]
        assert (await waiting.info()).waiting_for == "the messages before it"
        await rt.clock.advance(5 * 86_400)
        assert len(model.requests) == 1
        await held.resolve("refund", "rerun")
        assert await waiting.result() == "re and now?"
        assert [asked for asked, _ in await turns(session(rt))] == ["refund", "and now?"]


async def test_the_same_message_sent_again_is_the_same_run() -> None:
    async with runtime(agents=[Support], models={"chat": always(echo)}) as rt:
        first = await session(rt).send("hi", message_id="m1")
        again = await session(rt).send("hi", message_id="m1")
        assert first.run_id == again.run_id
        await first.result()
        assert (await session(rt).send("hi", message_id="m1")).run_id == first.run_id
        assert await turns(session(rt)) == [("hi", "re hi")]
        assert (await session(rt).turns.head()).line == ()


async def test_another_message_under_the_same_id_is_refused_and_leaves_no_place_in_the_line() -> None:
    async with runtime(agents=[Support], models={"chat": always(echo)}) as rt:
        await (await session(rt).send("hi", message_id="m1")).result()
        with pytest.raises(RunConflict):
            await session(rt).send("ho", message_id="m1")
        assert (await session(rt).turns.head()).line == ()


async def test_a_message_sent_again_when_its_run_is_not_kept_any_more_has_its_old_answer() -> None:
    model = always(echo)
    async with runtime(agents=[Support], models={"chat": model}) as rt:
        await (await session(rt).send("hi", message_id="m1")).result()
        await rt.clock.advance(Support.keep_s + 1)
        assert await status(rt, session(rt).run_id("m1")) is None
        assert await (await session(rt).send("hi", message_id="m1")).result() == "re hi"
        assert len(model.requests) == 1
        assert await turns(session(rt)) == [("hi", "re hi")]


async def test_a_message_sent_again_when_its_failed_run_is_not_kept_any_more_is_not_tried_again() -> None:
    def reply(request: Request) -> object:
        return RuntimeError("boom") if request.messages[-1].role == "tool" else ToolCall("note", text="it happened")

    log = Log()
    async with runtime(agents=[Support], models={"chat": always(reply)}, resources={Log: log}) as rt:
        with pytest.raises(RunError):
            await (await session(rt).send("hi", message_id="m1")).result()
        await rt.clock.advance(Support.keep_s + 1)
        with pytest.raises(RunError) as error:
            await (await session(rt).send("hi", message_id="m1")).result()
        assert error.value.kind == "TurnOver"
        assert log.lines == ["it happened"]


async def test_a_message_that_a_quota_refuses_leaves_no_place_in_the_line() -> None:
    async with runtime(agents=[Support], tenants={"small": Tenant(id="small", max_queued=0)}) as rt:
        one = rt.session(Support, "ann", tenant="small")
        with pytest.raises(Overloaded):
            await one.send("hi")
        assert (await one.turns.head()).line == ()


async def test_all_turns_of_a_session_run_the_same_version() -> None:
    class Newer(Support):
        """Version 2."""

        name, version = "support", "2"

    async with runtime(agents=[Support, Newer], models={"chat": always(echo)}) as rt:
        await rt.rollout("support", {"1": 50, "2": 50})
        versions: dict[str, set[str]] = {}
        for n in range(24):
            handle = await rt.session(Support, f"user-{n % 4}").send(str(n))
            versions.setdefault(f"user-{n % 4}", set()).add((await handle.info()).version)
        assert [len(found) for found in versions.values()] == [1] * 4


async def test_over_the_limit_a_message_is_refused_and_nothing_of_it_is_kept() -> None:
    class Busy(ChatAgent):
        """Takes two."""

        model = "chat"
        session = SessionSettings(max_waiting=2)

    async with runtime(agents=[Busy], models={"chat": always(echo)}, worker=False) as rt:
        one = rt.session(Busy, "ann")
        for n in range(2):
            await one.send(str(n))
        with pytest.raises(Overloaded) as refused:
            await one.send("2", message_id="m2")
        assert refused.value.retry_after_s > 0
        assert await status(rt, one.run_id("m2")) is None
        assert len((await one.turns.head()).line) == 2


# Turns that do not end well


async def test_a_cancelled_turn_lets_the_next_one_go_on() -> None:
    model = always(lambda request: ToolCall("refund", cents=5) if said(request) == ["refund"] else echo(request))
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: Log()}) as rt:
        held, waiting = await session(rt).send("refund"), await session(rt).send("hello")
        await rt.settle()
        await held.cancel("enough")
        with pytest.raises(RunCancelled):
            await held.result()
        assert await waiting.result() == "re hello"
        assert await turns(session(rt)) == [("hello", "re hello")]


async def test_one_that_is_cancelled_while_it_waits_leaves_the_line() -> None:
    model = always(lambda request: ToolCall("refund", cents=5) if said(request) == ["refund"] else echo(request))
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: Log()}) as rt:
        held, middle, last = [await session(rt).send(text) for text in ("refund", "never mind", "hello")]
        await rt.settle()
        await middle.cancel()
        await rt.settle()
        assert len((await session(rt).turns.head()).line) == 2
        await held.cancel()
        assert await last.result() == "re hello"


async def test_one_that_is_cancelled_before_it_ever_ran_is_in_nobodys_way() -> None:
    async with runtime(agents=[Support], models={"chat": always(echo)}, worker=False) as rt:
        first, second = await session(rt).send("one"), await session(rt).send("two")
        await first.cancel()
        assert await status(rt, first.run_id) == RunStatus.CANCELLED
        assert await rt.drive(second.run_id, within_s=60.0) == "done"


async def test_a_turn_that_is_buried_lets_the_next_one_go_on_when_it_looks() -> None:
    log = Log()
    model = always(lambda request: ToolCall("note", text="x") if said(request)[-1] == "kills its process" else echo(request))
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: log}) as rt:
        log.before_note = partial(rt.crash, at="note")
        first = await session(rt).send("kills its process")
        await rt.settle()
        with pytest.raises(RunBuried):
            await first.result()
        second = await session(rt).send("hello")
        await rt.clock.advance(LOOK_S + 1)
        assert await second.result() == "re hello"
        assert await turns(session(rt)) == [("hello", "re hello")]


async def test_a_turn_that_fails_is_forgotten_and_the_next_one_goes_on() -> None:
    def reply(request: Request) -> object:
        return RuntimeError("boom") if said(request)[-1] == "bad" else echo(request)

    async with runtime(agents=[Support], models={"chat": always(reply)}) as rt:
        bad, good = await session(rt).send("bad"), await session(rt).send("good")
        with pytest.raises(RunError):
            await bad.result()
        assert await good.result() == "re good"
        assert await turns(session(rt)) == [("good", "re good")]


async def test_of_a_turn_that_fails_after_its_tools_the_next_one_knows_what_they_did() -> None:
    def reply(request: Request) -> object:
        if said(request)[-1] != "bad":
            return echo(request)
        return RuntimeError("boom") if request.messages[-1].role == "tool" else ToolCall("note", text="it happened")

    model = always(reply)
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: Log()}) as rt:
        bad, good = await session(rt).send("bad"), await session(rt).send("good")
        with pytest.raises(RunError):
            await bad.result()
        assert await good.result() == "re good"
        assert "note({" in model.prompts[-1]
        assert "There was no answer" in model.prompts[-1]


async def test_a_sender_that_dies_before_its_run_is_made_holds_nobody_up_for_long() -> None:
    async with runtime(agents=[Support], models={"chat": always(echo)}) as rt:
        await session(rt).turns.enter("support.of-a-dead-process")
        handle = await session(rt).send("hello")
        await rt.settle()
        assert await status(rt, handle.run_id) == RunStatus.PARKED
        await rt.clock.advance(ABSENT_S + 3 * LOOK_S)
        assert await handle.result() == "re hello"


async def test_a_wake_that_is_lost_is_made_up_for_by_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    model = always(lambda request: ToolCall("refund", cents=5) if said(request) == ["refund"] else echo(request))
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: Log()}) as rt:
        held, waiting = await session(rt).send("refund"), await session(rt).send("hello")
        await rt.settle()

        async def nobody(*_: object) -> None:
            return None

        monkeypatch.setattr("agentkit.agents.turn.Turn._wake", nobody)
        await held.cancel()
        await rt.settle()
        assert await status(rt, waiting.run_id) == RunStatus.PARKED
        await rt.clock.advance(LOOK_S + 1)
        assert await waiting.result() == "re hello"


async def test_a_wake_passes_over_those_who_will_never_take_it() -> None:
    model = always(lambda request: ToolCall("refund", cents=5) if said(request)[-1] == "refund" else echo(request))
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: Log()}) as rt:
        ended = await session(rt).send("hi")
        await ended.result()
        held = await session(rt).send("refund")
        await session(rt).turns.enter(ended.run_id)  # as if it had been cancelled before it ever ran
        await session(rt).turns.append("other", [])
        waiting = await session(rt).send("hello")
        await rt.settle()
        await held.cancel()
        assert await waiting.result() == "re hello"


async def test_a_buried_turn_that_is_revived_takes_a_new_place_at_the_end() -> None:
    log = Log()
    async with runtime(agents=[Support], models={"chat": always(noting)}, resources={Log: log}) as rt:
        log.before_note = partial(rt.crash, at="note")
        first = await session(rt).send("first")
        await rt.settle()
        with pytest.raises(RunBuried):
            await first.result()
        log.before_note = anyio.lowlevel.checkpoint
        second = await session(rt).send("second")
        await rt.clock.advance(LOOK_S + 1)
        await second.result()
        await rt.queue.redrive([first.run_id])
        assert await first.result() == "re first"
        assert [asked for asked, _ in await turns(session(rt))] == ["second", "first"]


async def test_what_was_said_is_durable_in_the_runs_journal_before_the_session_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(agents=[Support], models={"chat": always(echo)}) as rt:
        put, behind = rt.values.put, list[int]()

        async def watched(key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
            if "/turn/" in key:
                executions = [activation.execution for activation, _ in rt.engine.active.values()]
                behind.extend(ex.claim.seq - ex.claim.acked for ex in executions if ex is not None)
            return await put(key, value, expected=expected, ttl_s=ttl_s)

        monkeypatch.setattr(rt.values, "put", watched)
        await (await session(rt).send("hi")).result()
        assert behind == [0]


async def test_a_fork_of_a_turn_is_no_turn() -> None:
    async with runtime(agents=[Support], models={"chat": always(echo)}) as rt:
        first = await session(rt).send("hello", message_id="1")
        await first.result()
        fork = await rt.fork(first.run_id, at="model")
        assert await fork.result() == "re hello"
        assert await turns(session(rt)) == [("hello", "re hello")]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", ["model#1", "note#1", "model#2"])
async def test_a_turn_that_crashes_at_a_step_says_everything_once(at: str, before: bool) -> None:
    async with runtime(agents=[Support], models={"chat": always(noting)}, resources={Log: Log()}) as rt:
        await (await session(rt).send("first")).result()
        await rt.crash(at=at, before=before)
        handle = await session(rt).send("second")
        await rt.settle()
        assert await handle.result() == "re second"
        assert rt.crashed == 1
        assert await rt.steps(handle.run_id) == ["model#1", "note#1", "model#2"]
        assert [m.role for m in await session(rt).history()] == ["user", "assistant", "tool", "assistant"] * 2


async def test_a_process_that_dies_between_the_history_and_the_end_of_its_run_doubles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(agents=[Support], models={"chat": always(echo)}) as rt:
        crashes = ["once"]  # when the next one would be woken, the turn has been written

        async def dies(*_: object) -> None:
            if crashes:
                crashes.pop()
                await rt.engine.crash()
                await anyio.sleep_forever()

        monkeypatch.setattr("agentkit.agents.turn.Turn._wake", dies)
        handle = await session(rt).send("hello")
        await rt.settle()
        assert await handle.result() == "re hello"
        assert not crashes
        assert await turns(session(rt)) == [("hello", "re hello")]


async def test_a_turn_that_waited_replays_without_looking_at_the_session() -> None:
    model = always(lambda request: ToolCall("refund", cents=5) if said(request) == ["refund"] else echo(request))
    async with runtime(agents=[Support], models={"chat": model}, resources={Log: Log()}) as rt:
        held, waiting = await session(rt).send("refund"), await session(rt).send("hello")
        await rt.settle()
        await held.cancel()
        await waiting.result()
        await session(rt).delete()
        assert [v async for v in rt.verify([held.run_id, waiting.run_id]) if not v.ok] == []
        assert any(entry.kind == EntryKind.VOID for entry in await rt.store.load(waiting.run_id, after=-1))
