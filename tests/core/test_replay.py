"""A replay: what is durable is never made again, what is not from a step repeats, and how far a run may be ahead of its journal."""

from __future__ import annotations

import json
import logging
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest

from agentkit import Agent, Context, RunCancelled, RunError, StepError, StoreUnavailable
from agentkit.testing import LocalRuntime, runtime


class Odd(Exception):
    """An error of the app's own."""


async def add_one(n: int) -> int:
    return n + 1


# Crashes


class Counting(Agent[int, list[int]]):
    """As many steps as asked for; `made` counts how often each body ran."""

    made: ClassVar[dict[int, int]] = {}

    async def run(self, ctx: Context, steps: int, /) -> list[int]:
        return [await ctx.step(f"s{n}", self.body, n) for n in range(steps)]

    async def body(self, n: int) -> int:
        self.made[n] = self.made.get(n, 0) + 1
        return n


@pytest.mark.parametrize("at", range(5))
async def test_a_crash_makes_again_only_what_was_not_durable(at: int) -> None:
    Counting.made = {}
    async with runtime(agents=[Counting]) as rt:
        await rt.crash(at=f"s{at}")
        handle = await rt.submit(Counting, 5)
        await rt.settle()
        assert await handle.result() == [0, 1, 2, 3, 4]
        assert rt.crashed == 1
        durable_before = [e.key for e in await rt.store.load(handle.run_id) if e.fence == 1 and e.kind == 1]
        assert all(Counting.made[n] == (1 if f"s{n}#1" in durable_before else 2) for n in range(at + 1))
        assert all(Counting.made[n] == 1 for n in range(at + 1, 5))


async def test_a_result_that_is_durable_is_never_made_again() -> None:
    SettlesFirst.made = 0
    async with runtime(agents=[SettlesFirst]) as rt:
        await rt.crash(at="last", before=True)
        handle = await rt.submit(SettlesFirst, None)
        await rt.settle()
        assert await handle.result() == 7
        assert SettlesFirst.made == 1


class SettlesFirst(Agent[None, int]):
    made = 0

    async def run(self, ctx: Context, _: None, /) -> int:
        value = await ctx.step("first", self.first)
        await ctx.durable()
        return value + await ctx.step("last", add_one, -1)

    async def first(self) -> int:
        type(self).made += 1
        return 7


class Flaky(Agent[None, str]):
    tries = 0

    async def run(self, ctx: Context, _: None, /) -> str:
        return await ctx.step("ask", self.ask)

    async def ask(self) -> str:
        type(self).tries += 1
        if self.tries == 1:
            raise StoreUnavailable("the app's own store", "no answer")
        return "now"


async def test_an_error_of_a_store_says_nothing_about_the_step_so_it_is_made_again_later() -> None:
    async with runtime(agents=[Flaky]) as rt:
        handle = await rt.submit(Flaky, None)
        await rt.clock.advance(10)
        assert await handle.result() == "now"
        assert await rt.steps(handle.run_id) == ["ask#1"]


# What does not come from a step


class FailsOutside(Agent[str, str]):
    async def run(self, ctx: Context, what: str, /) -> str:
        if what == "raise":
            raise Odd("outside")
        return {"type": 7, "big": "x" * 1_000_001}[what]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [("raise", "Odd", "outside"), ("type", "NotSerialisable", "the result of run 'r'"), ("big", "EntryTooLarge", "the limit is 1000000")],
)
async def test_a_run_that_fails_outside_of_its_steps_says_what_and_the_worker_lives_on(what: str, kind: str, said: str) -> None:
    async with runtime(agents=[FailsOutside, Counting]) as rt:
        with pytest.raises(RunError, match=said) as caught:
            await rt.run(FailsOutside, what, run_id="r")
        assert caught.value.kind == kind
        assert not isinstance(caught.value, StepError)
        assert await rt.run(Counting, 1) == [0]


class Chance(Agent[None, None]):
    seen: ClassVar[list[tuple[object, ...]]] = []

    async def run(self, ctx: Context, _: None, /) -> None:
        branch = ctx.branch("b")
        self.seen.append((ctx.random().random(), ctx.uuid4(), await ctx.now(), branch.uuid4(), ctx.random().random()))
        await ctx.sleep(3600)


async def test_time_chance_and_ids_are_the_same_in_a_replay_and_differ_between_runs() -> None:
    Chance.seen = []
    async with runtime(agents=[Chance]) as rt:
        await rt.submit(Chance, None, run_id="a")
        await rt.clock.advance(4000)
        await rt.submit(Chance, None, run_id="b")
        await rt.clock.advance(4000)
    first, again, other, _ = Chance.seen
    assert first == again
    assert all(x != y for x, y in zip(first, other, strict=True))
    assert len({first[1], first[3]}) == 2


class Logs(Agent[None, None]):
    async def run(self, ctx: Context, _: None, /) -> None:
        await ctx.step("a", add_one, 1)
        ctx.log.warning("after a")
        await ctx.sleep(3600)
        ctx.log.warning("after sleep")


async def test_the_log_of_a_run_is_silent_while_it_replays(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "agentkit.run.logs"):
        async with runtime(agents=[Logs]) as rt:
            await rt.submit(Logs, None)
            await rt.clock.advance(4000)
    assert [r.message for r in caplog.records if r.name == "agentkit.run.logs"] == ["after a", "after sleep"]


# Run-ahead


async def test_a_step_without_effect_may_start_before_earlier_results_are_durable_up_to_64_of_them() -> None:
    Counting.made = {}
    async with runtime(agents=[Counting]) as rt:
        gate = hold_writes(rt)
        await rt.submit(Counting, 200)
        while len(Counting.made) < 64:
            await anyio.lowlevel.checkpoint()
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert len(Counting.made) in (64, 65)
        gate.set()
        await rt.settle()
        assert len(Counting.made) == 200


async def test_ctx_durable_returns_when_everything_so_far_is_durable() -> None:
    SettlesFirst.made = 0
    async with runtime(agents=[SettlesFirst]) as rt:
        gate = hold_writes(rt)
        handle = await rt.submit(SettlesFirst, None)
        while not SettlesFirst.made:
            await anyio.lowlevel.checkpoint()
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert await rt.steps(handle.run_id) == []
        gate.set()
        assert await handle.result() == 7
        assert await rt.steps(handle.run_id) == ["first#1", "last#1"]


async def test_a_completed_run_that_waited_to_be_durable_is_verified() -> None:
    async with runtime(agents=[SettlesFirst]) as rt:
        await rt.run(SettlesFirst, None, run_id="r")
        assert [verdict async for verdict in rt.verify() if not verdict.ok] == []


class Cancelled(Agent[None, list[str]]):
    """Cancelled in its third step; what it does about that is recorded."""

    async def run(self, ctx: Context, _: None, /) -> list[str]:
        done: list[str] = []
        try:
            for name in ("one", "two", "three"):
                await ctx.step(name, self.sleep_in_three, name)
                await ctx.durable()
                done.append(name)
        except RunCancelled:
            async with ctx.shield():
                await ctx.step("undo", self.undo, done, effect="rerun")
                await ctx.step("last", self.undo, done)
        return done

    async def sleep_in_three(self, name: str) -> None:
        if name == "three":
            await anyio.sleep_forever()

    async def undo(self, done: list[str]) -> list[str]:
        return done


async def test_a_replay_of_a_cancelled_run_passes_the_calls_that_came_before_the_cancel() -> None:
    async with runtime(agents=[Cancelled]) as rt:
        handle = await rt.submit(Cancelled, None)
        while "two#1" not in await rt.steps(handle.run_id):
            await anyio.lowlevel.checkpoint()
        await rt.crash(at="last")
        await handle.cancel()
        await rt.settle()
        assert rt.crashed == 1
        assert (await handle.info()).status == "cancelled"
        assert [json.loads(e.body) for e in await rt.store.load(handle.run_id, after=-1) if e.key == "last#1"] == [["one", "two"]]


def hold_writes(rt: LocalRuntime) -> anyio.Event:
    """No write of the lane lands before the event is set."""
    gate, write = anyio.Event(), rt.store.write

    async def held(*args: Any, **options: Any) -> Any:
        await gate.wait()
        return await write(*args, **options)

    rt.store.write = held  # type: ignore[method-assign]
    return gate
