"""Signals go in, events come out: taken once by id, shown when durable, resumed from an offset."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from agentkit import Agent, Context, InvalidInput, RunEnded, RunNotFound, Signal, StepContext, StoreUnavailable
from agentkit.testing import LocalRuntime, runtime


class Word(BaseModel):
    text: str


class Collects(Agent[int, list[str]]):
    word = Signal(Word)

    async def run(self, ctx: Context, n: int, /) -> list[str]:
        words = [(await ctx.wait_for(self.word)).text for _ in range(n)]
        await ctx.step("tell", self.tell)
        return words

    async def tell(self, step: StepContext) -> None:
        await step.progress({"percent": 50})
        await step.progress(Word(text="half"))


class Keyed(Agent[None, str]):
    word = Signal(str)

    async def run(self, ctx: Context, _: None, /) -> str:
        return await ctx.wait_for(self.word, key="b") + await ctx.wait_for(self.word, key="a")


# Signals


async def test_signals_are_taken_in_the_order_they_came() -> None:
    async with runtime(agents=[Collects]) as rt:
        handle = await rt.submit(Collects, 3)
        for text in "abc":
            await handle.signal(Collects.word, Word(text=text))
        assert await handle.result() == ["a", "b", "c"]


async def test_a_signal_with_an_id_is_delivered_once_however_often_it_is_sent() -> None:
    async with runtime(agents=[Collects]) as rt:
        handle = await rt.submit(Collects, 2)
        for _ in range(3):
            await handle.signal(Collects.word, Word(text="once"), id="m1")
            await rt.settle()
        await handle.signal(Collects.word, Word(text="twice"), id="m2")
        assert await handle.result() == ["once", "twice"]


async def test_a_signal_is_taken_once_although_its_taker_crashes() -> None:
    async with runtime(agents=[Collects]) as rt:
        handle = await rt.submit(Collects, 2)
        await handle.signal(Collects.word, Word(text="a"))
        await rt.settle()
        await rt.engine.crash()
        await handle.signal(Collects.word, Word(text="b"))
        await rt.settle()
        assert await handle.result() == ["a", "b"]


async def test_a_key_tells_signals_of_one_name_apart() -> None:
    async with runtime(agents=[Keyed]) as rt:
        handle = await rt.submit(Keyed, None)
        await handle.signal(Keyed.word, "A", key="a")
        await handle.signal(Keyed.word, "B", key="b")
        assert await handle.result() == "BA"


async def test_a_value_that_does_not_fit_or_a_run_that_is_not_there_is_refused() -> None:
    async with runtime(agents=[Collects]) as rt:
        handle = await rt.submit(Collects, 1)
        with pytest.raises(InvalidInput, match="signal word"):
            await handle.signal(Collects.word, "no model")  # type: ignore[misc]
        with pytest.raises(RunNotFound):
            await rt.handle("nobody").signal(Collects.word, Word(text="x"))
        await handle.signal(Collects.word, Word(text="x"))
        assert await handle.result() == ["x"]
        with pytest.raises(RunEnded, match="has ended"):
            await handle.signal(Collects.word, Word(text="too late"))


# Events


async def seen(rt: LocalRuntime, run_id: str, after: int = 0) -> list[str]:
    return [describe(e) async for e in rt.handle(run_id).events(after=after)]


def describe(event: Any) -> str:
    if event.type == "status":
        return f"{event.status} {event.waiting_for or ''}".strip()
    return f"{event.step} {event.phase}" if event.type == "step" else f"{event.step} told {event.data}"


EVENTS = [
    "waiting signal:word",
    "running",
    "wait:word#1 finished",
    "tell#1 told {'percent': 50}",
    "tell#1 told {'text': 'half'}",
    "tell#1 finished",
    "done",
]


async def finished(rt: LocalRuntime) -> None:
    handle = await rt.submit(Collects, 1, run_id="r")
    await rt.settle()
    await handle.signal(Collects.word, Word(text="a"))
    await rt.settle()


async def test_events_tell_what_happened_in_order_and_end_with_the_run() -> None:
    async with runtime(agents=[Collects]) as rt:
        await finished(rt)
        assert await seen(rt, "r") == EVENTS


async def test_a_reader_goes_on_after_the_offset_it_has_seen() -> None:
    async with runtime(agents=[Collects]) as rt:
        await finished(rt)
        offsets = [e.offset async for e in rt.handle("r").events()]
        assert offsets == sorted(set(offsets))
        for i, offset in enumerate(offsets, 1):
            assert await seen(rt, "r", after=offset) == EVENTS[i:]


async def test_a_reader_that_came_early_sees_each_event_as_it_becomes_durable_and_never_before() -> None:
    async with runtime(agents=[Collects]) as rt:
        handle = await rt.submit(Collects, 1, run_id="r")
        await rt.settle()
        got: list[str] = []

        async def read() -> None:
            async for event in handle.events():
                assert event.offset in {e.seq for e in await rt.store.load("r", after=-1)}
                got.append(describe(event))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await rt.settle()
            while got != EVENTS[:1]:
                await anyio.lowlevel.checkpoint()
            await handle.signal(Collects.word, Word(text="a"))
        assert got == EVENTS


async def test_the_end_of_a_run_that_others_ended_is_told_too_and_once() -> None:
    async with runtime(agents=[Collects]) as rt:
        late = await rt.submit(Collects, 1, run_id="late", delay_s=60)
        buried = await rt.submit(Collects, 1, run_id="buried")
        await rt.settle()
        await late.cancel("no longer wanted")
        assert await rt.store.bury("buried", b"{}")
        for run_id, told in (("late", ["cancelled"]), ("buried", ["waiting signal:word", "buried"])):
            assert await seen(rt, run_id) == told
            offsets = [e.offset async for e in rt.handle(run_id).events()]
            for i, offset in enumerate(offsets, 1):
                assert await seen(rt, run_id, after=offset) == told[i:]
        assert (await buried.info()).status == "buried"


async def test_what_is_there_is_read_without_waiting_for_more() -> None:
    async with runtime(agents=[Collects]) as rt:
        handle = await rt.submit(Collects, 1, run_id="r")
        await rt.settle()
        async with handle.events() as events:
            assert [describe(e) for e in await events.read() or ()] == EVENTS[:1]
            assert await events.read(0) == []
            await handle.signal(Collects.word, Word(text="a"))
            await rt.settle()
            assert [describe(e) for e in await events.read(0) or ()] == EVENTS[1:]
            assert await events.read(0) is None


async def test_a_reader_waits_for_the_next_event_no_longer_than_it_said() -> None:
    async with runtime(agents=[Collects]) as rt:
        handle = await rt.submit(Collects, 1, run_id="r")
        await rt.settle()
        async with handle.events() as events:
            await events.read()
            assert await events.read(0.01) == []


class Door:
    def __init__(self) -> None:
        self.reached, self.open = anyio.Event(), anyio.Event()


class Holds(Agent[None, None]):
    """One step that lasts until it is let go."""

    async def run(self, ctx: Context, _: None, /) -> None:
        await ctx.step("hold", self.hold)

    async def hold(self, step: StepContext) -> None:
        await step.progress("begun")
        step.get(Door).reached.set()
        await step.get(Door).open.wait()


class Writes(Agent[int, None]):
    async def run(self, ctx: Context, n: int, /) -> None:
        for i in range(n):
            await ctx.step("note", anyio.sleep, 0.001, key=str(i))
            await ctx.durable()


async def test_who_follows_a_run_that_is_at_work_here_reads_its_journal_only_when_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door()
    async with runtime(agents=[Holds, Writes], resources={Door: door}) as rt:
        load, read = rt.store.load, list[str]()

        async def counted(run_id: str, *, after: int = 0) -> Any:
            read.append(run_id)
            return await load(run_id, after=after)

        monkeypatch.setattr(rt.store, "load", counted)
        handle = await rt.submit(Holds, None, run_id="held")
        before = 0
        with anyio.fail_after(10):
            await door.reached.wait()
            async with handle.events() as events, anyio.create_task_group() as tasks:
                assert [describe(e) for e in await events.read() or ()] == ["hold#1 told begun"]
                tasks.start_soon(events.read)
                await rt.run(Writes, 1)  # until then the news of what it has read already may come late
                before = read.count("held")
                await rt.run(Writes, 100)
                assert read.count("held") == before
                door.open.set()
            assert read.count("held") == before + 1


async def test_a_reader_goes_on_after_an_outage_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(agents=[Collects]) as rt:
        await finished(rt)

        async def refuse(run_id: str, after: int = -1) -> Any:
            raise StoreUnavailable("store", "it is gone")

        async with rt.handle("r").events() as events:
            with monkeypatch.context() as outage:
                outage.setattr(rt.store, "load", refuse)
                with pytest.raises(StoreUnavailable):
                    await events.read()
            assert [describe(e) for e in await events.read() or ()] == EVENTS


async def test_a_reader_that_left_is_told_nothing_more() -> None:
    async with runtime(agents=[Collects]) as rt:
        await finished(rt)
        async with rt.handle("r").events() as events:
            pass
        assert await events.read() is None


async def test_events_of_a_run_that_is_not_there_say_so() -> None:
    async with runtime(agents=[Collects]) as rt:
        with pytest.raises(RunNotFound):
            await seen(rt, "nobody")
