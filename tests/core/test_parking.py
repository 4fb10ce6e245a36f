"""Parking: a run that waits holds no slot; its frames are unwound, no step starts meanwhile, and no signal is slept through."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Literal

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from agentkit import Agent, Context, RunHandle, Signal, SignalTimeout
from agentkit.testing import LocalRuntime, runtime

Frames = Literal["finally", "returns", "swallows", "shields", "plain"]
Wait = Literal["signal", "sleep", "child", "drain"]


class Plan(BaseModel):
    frames: Frames
    wait: Wait


class Nap(Agent[float, str]):
    async def run(self, ctx: Context, seconds: float, /) -> str:
        await ctx.sleep(seconds)
        return "slept"


class Parks(Agent[Plan, str]):
    """Waits in frames of the four awkward shapes."""

    go = Signal(str)
    refunds: ClassVar[list[str]] = []
    leaving: ClassVar[list[str | None]] = []

    async def run(self, ctx: Context, plan: Plan, /) -> str:
        await ctx.step("before", nothing)
        frames: Callable[[Context, Plan], Awaitable[str]] = getattr(self, plan.frames)
        return await frames(ctx, plan)

    async def wait(self, ctx: Context, plan: Plan) -> str:
        if plan.wait == "signal":
            return await ctx.wait_for(self.go)
        if plan.wait == "child":
            return await ctx.run("nap", Nap, 3600.0)
        await ctx.sleep(3600 if plan.wait == "sleep" else 0.9)
        return "slept"

    async def refund(self) -> None:
        self.refunds.append("refund")

    async def plain(self, ctx: Context, plan: Plan) -> str:
        return await self.wait(ctx, plan)

    async def returns(self, ctx: Context, plan: Plan) -> str:
        try:
            return await self.wait(ctx, plan)
        except BaseException:
            return "swallowed"

    async def swallows(self, ctx: Context, plan: Plan) -> str:
        for _ in range(5):
            try:
                return await self.wait(ctx, plan)
            except BaseException:
                try:
                    await ctx.step("refund", self.refund)
                except BaseException:
                    continue
        return "gave up"

    async def shields(self, ctx: Context, plan: Plan) -> str:
        try:
            return await self.wait(ctx, plan)
        finally:
            async with ctx.shield():
                await ctx.step("refund", self.refund)


async def _finally(self: Parks, ctx: Context, plan: Plan) -> str:
    try:
        return await self.wait(ctx, plan)
    finally:
        self.leaving.append(ctx.leaving)
        await ctx.step("refund", self.refund)


setattr(Parks, "finally", _finally)  # a keyword is no name for a method


async def nothing() -> None: ...


async def wake(rt: LocalRuntime, handle: RunHandle[str], plan: Plan) -> None:
    if plan.wait == "signal":
        await handle.signal(Parks.go, "slept")
    await rt.clock.advance(4000)


@pytest.mark.parametrize("wait", ["signal", "sleep", "child", "drain"])
@pytest.mark.parametrize("frames", ["finally", "returns", "swallows", "shields"])
async def test_no_step_runs_while_frames_unwind_and_what_they_return_is_thrown_away(frames: Frames, wait: Wait) -> None:
    Parks.refunds, Parks.leaving = [], []
    plan = Plan(frames=frames, wait=wait)
    async with runtime(agents=[Parks, Nap]) as rt:
        handle = await rt.submit(Parks, plan, run_id="r")
        await rt.settle()
        if wait == "drain":
            assert "r" in rt.engine.active
            rt.engine.active["r"][0].drain()
            await rt.settle()
        else:
            assert (await handle.info()).status == "waiting"
            assert "r" not in rt.engine.active
        assert Parks.refunds == []
        assert "refund#1" not in await rt.steps("r")
        if frames == "finally":
            assert Parks.leaving == ["drain" if wait == "drain" else "park"]
        await wake(rt, handle, plan)
        assert await handle.result() == "slept"
        assert Parks.refunds == (["refund"] if frames in ("finally", "shields") else [])


@pytest.mark.parametrize("wait", ["signal", "sleep", "child"])
async def test_a_parked_run_holds_no_slot_and_no_ticket(wait: Wait) -> None:
    async with runtime(agents=[Parks, Nap]) as rt:
        handle = await rt.submit(Parks, Plan(frames="plain", wait=wait), run_id="r")
        await rt.settle()
        assert rt.engine.active == {}
        assert rt.engine.free() == rt.settings.concurrency
        assert all(d.ready + d.leased == 0 for d in (await rt.queue.depth()).values())
        wanted = {"signal": "signal:go", "sleep": "timer:sleep#1", "child": "children:nap#1"}
        assert (await handle.info()).waiting_for == wanted[wait]
        await handle.cancel()


async def test_a_timer_so_near_that_a_park_costs_more_is_waited_out() -> None:
    async with runtime(agents=[Nap]) as rt:
        handle = await rt.submit(Nap, 0.5)
        await rt.settle()
        assert (await handle.info()).status == "running"
        await rt.clock.advance(1)
        assert await handle.result() == "slept"
        assert (await handle.info()).attempts == 1


async def test_a_sleep_is_not_started_anew_by_a_crash() -> None:
    async with runtime(agents=[Nap]) as rt:
        handle = await rt.submit(Nap, 100.0)
        await rt.clock.advance(60)
        await rt.engine.crash()
        await rt.clock.advance(41)
        assert await handle.result() == "slept"


# A park never sleeps through a signal


class Asks(Agent[int, list[str]]):
    word = Signal(str)

    async def run(self, ctx: Context, words: int, /) -> list[str]:
        return [await ctx.wait_for(self.word) for _ in range(words)]


async def test_a_signal_that_comes_before_the_run_starts_is_not_lost() -> None:
    async with runtime(agents=[Asks]) as rt:
        handle = await rt.submit(Asks, 1, delay_s=60)
        await handle.signal(Asks.word, "early")
        await rt.clock.advance(61)
        assert await handle.result() == ["early"]


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_a_signal_at_any_moment_around_a_park_wakes_the_run(turns: int) -> None:
    async with runtime(agents=[Asks]) as rt:
        handle = await rt.submit(Asks, 2, run_id="r")
        await handle.signal(Asks.word, "one")
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        await rt.store.signal("r", "m2", Asks.word.topic(""), b'"two"')  # as another process does: this one is not told
        await rt.settle()
        assert await handle.result() == ["one", "two"]


async def test_a_signal_between_the_decision_to_park_and_its_commit_keeps_the_run_here() -> None:
    async with runtime(agents=[Asks]) as rt:
        write = rt.store.write
        sent: list[str] = []

        async def signals_just_before(worker_id: str, batch: Any, *, sync: bool = True) -> Any:
            if any(w.release is not None for w in batch) and not sent:
                sent.append("now")
                await rt.store.signal("r", "m", Asks.word.topic(""), b'"in time"')
            return await write(worker_id, batch, sync=sync)

        rt.store.write = signals_just_before  # type: ignore[method-assign]
        handle = await rt.submit(Asks, 1, run_id="r")
        await rt.settle()
        assert await handle.result() == ["in time"]
        assert sent == ["now"]
        assert (await handle.info()).attempts == 1


async def test_a_time_limit_on_a_wait_is_journalled_and_raised_again_by_a_replay() -> None:
    class Gives(Agent[None, str]):
        word = Signal(str)

        async def run(self, ctx: Context, _: None, /) -> str:
            try:
                return await ctx.wait_for(self.word, timeout_s=100)
            except SignalTimeout as exc:
                await ctx.sleep(1000)
                return str(exc)

    async with runtime(agents=[Gives]) as rt:
        handle = await rt.submit(Gives, None)
        await rt.clock.advance(101)
        await handle.signal(Gives.word, "too late")
        await rt.clock.advance(1001)
        assert await handle.result() == "no signal 'word' within 100 s"


async def test_frames_that_do_not_end_keep_the_claim_and_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    let_go = anyio.Event()

    class Hangs(Agent[None, None]):
        async def run(self, ctx: Context, _: None, /) -> None:
            try:
                await ctx.sleep(3600)
            finally:
                with anyio.CancelScope(shield=True):
                    await let_go.wait()

    async with runtime(agents=[Hangs]) as rt:
        handle = await rt.submit(Hangs, None, run_id="r")
        while "r" not in rt.engine.active or (ex := rt.engine.active["r"][0].execution) is None or ex.leaving is None:
            await anyio.lowlevel.checkpoint()
        with caplog.at_level(logging.ERROR, "agentkit.worker"):
            for _ in range(10):
                rt.clock.jump(3)
                for _ in range(30):
                    await anyio.lowlevel.checkpoint()
        assert (await handle.info()).status == "running"
        assert "run r should leave (park) but its frames do not end" in caplog.text
        let_go.set()
        await rt.clock.advance(4000)
        assert (await handle.info()).status == "done"


class Listens(Agent[None, str]):
    """Hears two signals while a step of it goes on."""

    first = Signal(str)
    second = Signal(str)

    async def run(self, ctx: Context, _: None, /) -> str:
        ears = ctx.get(Ears)

        async def hear(branch: Context) -> None:
            await branch.wait_for(self.second)
            ears.heard.set()

        async def hold(branch: Context) -> None:
            await branch.step("hold", ears.hold)

        await ctx.gather(hear, hold)
        return "heard"


class Ears:
    def __init__(self) -> None:
        self.began, self.heard, self.release = anyio.Event(), anyio.Event(), anyio.Event()

    async def hold(self) -> None:
        self.began.set()
        await self.release.wait()


async def test_a_signal_that_comes_while_the_inbox_is_read_is_heard_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ears = Ears()
    async with runtime(agents=[Listens], resources={Ears: ears}) as rt:
        handle = await rt.submit(Listens, None, run_id="r")
        read, reads = rt.store.inbox, 0

        async def slow(run_id: str) -> Any:
            nonlocal reads
            reads += 1
            found = await read(run_id)
            if reads == 1:
                await handle.signal(Listens.second, "now")
            return found

        monkeypatch.setattr(rt.store, "inbox", slow)
        with anyio.fail_after(5):
            await ears.began.wait()
            await handle.signal(Listens.first, "look")
            await ears.heard.wait()
        ears.release.set()
        await rt.settle()
        assert await handle.result() == "heard"
