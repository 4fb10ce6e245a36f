"""Cancel: journalled where it strikes, so that a replay takes the same path; clean-up runs under a shield."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from agentkit import Agent, Context, RunCancelled, RunTimeout, Signal
from agentkit.testing import runtime


class World:
    """Side effects that a test looks at."""

    def __init__(self) -> None:
        self.did: list[str] = []

    async def do(self, what: str) -> str:
        self.did.append(what)
        return what


STEPS = 10


class Job(Agent[None, str]):
    """Ten steps; when cancelled it undoes what it did, in reverse."""

    next = Signal(int)

    async def run(self, ctx: Context, _: None, /) -> str:
        world = ctx.get(World)
        done: list[int] = []
        try:
            for n in range(STEPS):
                await ctx.wait_for(self.next)
                await ctx.step(f"do{n}", world.do, f"do {n}")
                done.append(n)
        except RunCancelled:
            async with ctx.shield():
                for n in reversed(done):
                    await ctx.step(f"undo{n}", world.do, f"undo {n}")
            raise
        return "all"


async def cancelled_after(steps: int, crash_in_undo: int | None) -> list[str]:
    world = World()
    async with runtime(agents=[Job], resources={World: world}) as rt:
        handle = await rt.submit(Job, None, run_id="r")
        for n in range(steps):
            await handle.signal(Job.next, n)
            await rt.settle()
        if crash_in_undo is not None:
            await rt.crash(at=f"undo{crash_in_undo}", before=True)
        await handle.cancel("enough")
        await rt.settle()
        assert (await handle.info()).status == "cancelled"
        assert rt.crashed == (crash_in_undo is not None)
        with pytest.raises(RunCancelled, match="run 'r' was cancelled: enough"):
            await handle.result()
    return world.did


@pytest.mark.parametrize("steps", range(STEPS))
async def test_a_cancel_at_any_step_undoes_just_what_was_done(steps: int) -> None:
    assert await cancelled_after(steps, None) == [f"do {n}" for n in range(steps)] + [f"undo {n}" for n in reversed(range(steps))]


@pytest.mark.parametrize(("steps", "crash"), [(s, c) for s in range(1, STEPS) for c in range(s)])
async def test_a_crash_at_any_step_of_the_undo_goes_on_with_the_undo(steps: int, crash: int) -> None:
    did = await cancelled_after(steps, crash)
    assert did[:steps] == [f"do {n}" for n in range(steps)]
    assert list(dict.fromkeys(did[steps:])) == [f"undo {n}" for n in reversed(range(steps))]


async def test_an_end_wins_over_a_cancel_that_comes_after_it() -> None:
    async with runtime(agents=[Job], resources={World: World()}) as rt:
        handle = await rt.submit(Job, None)
        for n in range(STEPS):
            await handle.signal(Job.next, n)
        assert await handle.result() == "all"
        await handle.cancel()
        assert await handle.result() == "all"


async def test_a_cancel_sent_twice_strikes_once_and_the_first_reason_stands() -> None:
    async with runtime(agents=[Job], resources={World: World()}) as rt:
        handle = await rt.submit(Job, None)
        await rt.settle()
        await handle.cancel("one")
        await handle.cancel("two")
        with pytest.raises(RunCancelled, match="one"):
            await handle.result()


async def test_a_run_that_never_started_ends_at_once() -> None:
    async with runtime(agents=[Job], resources={World: World()}) as rt:
        handle = await rt.submit(Job, None, delay_s=1000)
        await handle.cancel("not needed")
        info = await handle.info()
        assert info.status == "cancelled"
        assert info.attempts == 0


class InABody(Agent[None, None]):
    started: anyio.Event

    async def run(self, ctx: Context, _: None, /) -> None:
        await ctx.step("slow", self.body)

    async def body(self) -> None:
        self.started.set()
        await anyio.sleep_forever()


async def test_a_running_body_is_cut_and_the_run_ends() -> None:
    InABody.started = anyio.Event()
    async with runtime(agents=[InABody]) as rt:
        handle = await rt.submit(InABody, None)
        await InABody.started.wait()
        await handle.cancel("stop")
        with pytest.raises(RunCancelled, match="stop"):
            await handle.result()


class Shielded(InABody):
    async def run(self, ctx: Context, _: None, /) -> None:
        async with ctx.shield():
            await ctx.step("slow", self.body)

    async def body(self) -> None:
        self.started.set()
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        self.finished = True


async def test_a_body_under_a_shield_is_not_cut() -> None:
    Shielded.started = anyio.Event()
    async with runtime(agents=[Shielded]) as rt:
        handle = await rt.submit(Shielded, None, run_id="r")
        await Shielded.started.wait()
        await handle.cancel("stop")
        await rt.settle()
        assert (await handle.info()).status == "cancelled"
        assert await rt.steps("r") == ["slow#1"]


class ShieldedWait(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        async with ctx.shield():
            await ctx.sleep(3600)
        return "slept"


async def test_a_wait_under_a_shield_parks_like_any_other() -> None:
    async with runtime(agents=[ShieldedWait]) as rt:
        handle = await rt.submit(ShieldedWait, None)
        await rt.settle()
        assert (await handle.info()).status == "waiting"
        await rt.clock.advance(4000)
        assert await handle.result() == "slept"


class Swallows(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        try:
            await ctx.sleep(3600)
        except RunCancelled:
            pass
        return "as if nothing had happened"


async def test_a_run_that_swallows_its_cancel_is_cancelled_all_the_same() -> None:
    async with runtime(agents=[Swallows]) as rt:
        handle = await rt.submit(Swallows, None)
        await rt.settle()
        await handle.cancel("stop")
        with pytest.raises(RunCancelled):
            await handle.result()


# on_end


class Cleans(Agent[str, str]):
    async def run(self, ctx: Context, how: str, /) -> str:
        world = ctx.get(World)
        ctx.on_end("close", world.do, "close a")
        ctx.on_end("close", world.do, "close b")
        await ctx.step("work", world.do, "work")
        await ctx.sleep(60)
        if how == "fail":
            raise ValueError("no")
        if how == "wait":
            await ctx.sleep(3600)
        return "well"


@pytest.mark.parametrize(("how", "status"), [("end", "done"), ("fail", "failed"), ("wait", "cancelled")])
@pytest.mark.parametrize("crash", [True, False])
async def test_clean_up_runs_once_however_the_run_ends_last_registered_first_and_not_at_a_park(how: str, status: str, crash: bool) -> None:
    world = World()
    async with runtime(agents=[Cleans], resources={World: world}) as rt:
        handle = await rt.submit(Cleans, how, run_id="r")
        await rt.settle()
        assert world.did == ["work"]
        if crash:
            await rt.crash(at="on_end/close=1", before=True)
        await rt.clock.advance(61)
        if how == "wait":
            await handle.cancel()
            await rt.settle()
        assert (await handle.info()).status == status
        assert rt.crashed == crash
    assert world.did[:3] == ["work", "close b", "close a"] or crash
    assert list(dict.fromkeys(world.did)) == ["work", "close b", "close a"]


class SameTwice(Agent[None, None]):
    async def run(self, ctx: Context, _: None, /) -> None:
        world = ctx.get(World)
        ctx.on_end("close", world.do, "same")
        ctx.on_end("close", world.do, "same")


async def test_the_same_clean_up_registered_twice_runs_twice() -> None:
    world = World()
    async with runtime(agents=[SameTwice], resources={World: world}) as rt:
        await rt.run(SameTwice, None)
    assert world.did == ["same", "same"]


class BreaksInTheEnd(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        world = ctx.get(World)
        ctx.on_end("good", world.do, "still runs")
        ctx.on_end("bad", self.bad)
        return "well"

    async def bad(self) -> None:
        raise ValueError("clean-up")


async def test_a_clean_up_that_fails_changes_neither_the_others_nor_the_result() -> None:
    world = World()
    async with runtime(agents=[BreaksInTheEnd], resources={World: world}) as rt:
        assert await rt.run(BreaksInTheEnd, None) == "well"
    assert world.did == ["still runs"]


# Deadlines


async def test_a_deadline_ends_the_run_wherever_it_is() -> None:
    async with runtime(agents=[Swallows]) as rt:
        handle = await rt.submit(Swallows, None, timeout_s=100)
        await rt.clock.advance(99)
        assert (await handle.info()).status == "waiting"
        await rt.clock.advance(2)
        with pytest.raises(RunTimeout, match="its deadline passed"):
            await handle.result()


async def test_a_signal_whose_id_is_cancel_does_not_keep_a_cancel_out() -> None:
    async with runtime(agents=[Job], resources={World: World()}) as rt:
        handle = await rt.submit(Job, None)
        await handle.signal(Job.next, 1, id="cancel")
        await rt.settle()
        await handle.cancel("stop")
        with pytest.raises(RunCancelled, match="stop"):
            await handle.result(timeout_s=1)
