"""Concurrency inside one run: branches with names of their own, so that every replay asks for the same things."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ClassVar

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentkit import Agent, AmbiguousStep, Context, RunError, Signal, StepError
from agentkit.testing import LocalRuntime, runtime

DELAYS = random.Random(7)


async def jitter(n: int) -> int:
    for _ in range(DELAYS.randrange(12)):
        await anyio.lowlevel.checkpoint()
    return n


async def add(ctx: Context, n: int) -> int:
    a = await ctx.step("fetch", jitter, n)
    return a + await ctx.step("fetch", jitter, 10 * a)


class Gathers(Agent[int, list[int]]):
    seen: ClassVar[list[list[int]]] = []

    async def run(self, ctx: Context, n: int, /) -> list[int]:
        results = await ctx.gather(*(partial(add, n=i) for i in range(n)), max_parallel=4)
        self.seen.append(results)
        await ctx.sleep(3600)
        return results


async def test_branches_of_a_gather_have_names_of_their_own_and_results_in_order() -> None:
    Gathers.seen = []
    async with runtime(agents=[Gathers]) as rt:
        handle = await rt.submit(Gathers, 5, run_id="r")
        await rt.clock.advance(4000)
        assert await handle.result() == [0, 11, 22, 33, 44]
        assert {"gather#1/1/fetch#1", "gather#1/5/fetch#2"} <= set(await rt.steps("r"))
    assert Gathers.seen == [[0, 11, 22, 33, 44]] * 2


async def replay(rt: LocalRuntime, run_id: str) -> list[str]:
    return [v.problem async for v in rt.verify([run_id])]


async def test_a_hundred_runs_with_random_delays_replay_alike_also_in_shuffled_order() -> None:
    async with runtime(agents=[Gathers]) as rt:
        await rt.submit_many(Gathers, {f"r{i}": 4 for i in range(100)})
        await rt.clock.advance(4000)
        verdicts = [v async for v in rt.verify()]
    assert len(verdicts) == 100
    assert all(v.ok for v in verdicts)


class Tree(Agent[list[int], int]):
    """Branches inside branches, as deep as the input says."""

    async def run(self, ctx: Context, shape: list[int], /) -> int:
        return await self.grow(ctx, shape)

    async def grow(self, ctx: Context, shape: list[int]) -> int:
        if not shape:
            return await ctx.step("leaf", jitter, 1)
        own = await ctx.step("node", jitter, len(shape))
        return own + sum(await ctx.gather(*(partial(self.grow, shape=shape[1:]) for _ in range(shape[0]))))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(0, 10))
def test_any_tree_of_branches_survives_a_crash_at_any_of_its_steps(shape: list[int], at: int) -> None:
    async def main() -> None:
        async with runtime(agents=[Tree]) as rt:
            wanted = await rt.run(Tree, shape, run_id="calm")
            keys = await rt.steps("calm")
            await rt.crash(at=keys[at % len(keys)])
            handle = await rt.submit(Tree, shape, run_id="crashed")
            await rt.settle()
            assert await handle.result() == wanted
            assert rt.crashed == 1
            assert sorted(await rt.steps("crashed")) == sorted(keys)

    anyio.run(main)


class Fails(Agent[None, None]):
    ended: ClassVar[list[int]] = []

    async def run(self, ctx: Context, _: None, /) -> None:
        async def branch(ctx: Context, n: int) -> None:
            await ctx.step("s", jitter, n)
            self.ended.append(n)
            if n:
                await ctx.step("breaks", breaks, n)

        await ctx.gather(*(partial(branch, n=n) for n in (0, 2, 1)))


async def breaks(n: int) -> None:
    raise ValueError(f"branch {n}")


async def test_all_branches_run_to_their_end_and_the_first_error_in_order_is_raised() -> None:
    for _ in range(10):
        Fails.ended = []
        async with runtime(agents=[Fails]) as rt:
            with pytest.raises(StepError, match="branch 2"):
                await rt.run(Fails, None)
        assert sorted(Fails.ended) == [0, 1, 2]


class Limited(Agent[int, int]):
    now = most = 0

    async def run(self, ctx: Context, limit: int, /) -> int:
        type(self).now = type(self).most = 0
        await ctx.gather(*[self.branch] * 10, max_parallel=limit)
        return self.most

    async def branch(self, ctx: Context) -> None:
        await ctx.step("s", self.body)

    async def body(self) -> None:
        cls = type(self)
        cls.now += 1
        cls.most = max(cls.most, cls.now)
        await jitter(0)
        cls.now -= 1


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_gather_runs_at_most_so_many_branches_at_a_time(limit: int) -> None:
    async with runtime(agents=[Limited]) as rt:
        assert await rt.run(Limited, limit) == limit


# first


class Races(Agent[None, str]):
    go = Signal(str)
    stopped: ClassVar[list[str]] = []

    async def run(self, ctx: Context, _: None, /) -> str:
        won = await ctx.first(self.waits, self.sleeps)
        await ctx.step("after", jitter, 1)
        await ctx.sleep(3600)
        return won

    async def waits(self, ctx: Context) -> str:
        return "told " + await ctx.wait_for(self.go)

    async def sleeps(self, ctx: Context) -> str:
        await ctx.step("s", jitter, 1)
        await ctx.sleep(60)
        return "time is up"


@pytest.mark.parametrize("told", [True, False])
async def test_the_first_branch_to_end_wins_and_a_replay_takes_the_same_one(told: bool) -> None:
    async with runtime(agents=[Races]) as rt:
        handle = await rt.submit(Races, None, run_id="r")
        await rt.settle()
        assert (await handle.info()).status == "waiting"
        if told:
            await handle.signal(Races.go, "go")
        await rt.clock.advance(61)
        await handle.signal(Races.go, "late")
        await rt.clock.advance(4000)
        assert await handle.result() == ("told go" if told else "time is up")
        assert await replay(rt, "r") == [""]


class RacesErrors(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        try:
            await ctx.first(self.fails, self.sleeps)
        except StepError as exc:
            await ctx.sleep(3600)
            return exc.message
        return "no error"

    async def fails(self, ctx: Context) -> None:
        await ctx.step("breaks", breaks, 1)

    async def sleeps(self, ctx: Context) -> None:
        await ctx.sleep(60)


async def test_an_error_may_win_the_race_and_is_raised_by_a_replay_too() -> None:
    async with runtime(agents=[RacesErrors]) as rt:
        handle = await rt.submit(RacesErrors, None, run_id="r")
        await rt.clock.advance(4000)
        assert await handle.result() == "branch 1"
        assert await replay(rt, "r") == [""]


# timeout


class Bounded(Agent[float, str]):
    async def run(self, ctx: Context, seconds: float, /) -> str:
        done = "nothing"
        try:
            async with ctx.timeout(100):
                done = f"step {await ctx.step('s', jitter, 1)}"
                await ctx.sleep(seconds)
                done = "all"
        except TimeoutError:
            done += ", then the time was up"
        await ctx.step("after", jitter, 2)
        await ctx.sleep(3600)
        return done


@pytest.mark.parametrize(("seconds", "result"), [(50.0, "all"), (500.0, "step 1, then the time was up")])
async def test_a_time_limit_is_journalled_so_a_replay_is_cut_at_the_same_place(seconds: float, result: str) -> None:
    async with runtime(agents=[Bounded]) as rt:
        handle = await rt.submit(Bounded, seconds, run_id="r")
        await rt.clock.advance(600)
        assert (await handle.info()).waiting_for == "timer:sleep#2"
        await rt.clock.advance(4000)
        assert await handle.result() == result
        assert await replay(rt, "r") == [""]


async def test_a_time_limit_counts_from_its_start_not_from_the_last_crash() -> None:
    async with runtime(agents=[Bounded]) as rt:
        handle = await rt.submit(Bounded, 500.0, run_id="r")
        await rt.clock.advance(60)
        await rt.engine.crash()
        await rt.clock.advance(41)
        assert (await handle.info()).waiting_for == "timer:sleep#2"
        await handle.cancel()


class Nested(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        try:
            async with ctx.timeout(100):
                try:
                    async with ctx.timeout(50):
                        await ctx.sleep(500)
                except TimeoutError:
                    await ctx.step("inner", jitter, 1)
                await ctx.sleep(500)
        except TimeoutError:
            await ctx.sleep(3600)
            return "both"
        return "no"


async def test_time_limits_nest_and_each_strikes_its_own_block() -> None:
    async with runtime(agents=[Nested]) as rt:
        handle = await rt.submit(Nested, None, run_id="r")
        await rt.clock.advance(5000)
        assert await handle.result() == "both"
        assert await replay(rt, "r") == [""]


# Misuse


class PlainTasks(Agent[str, list[int]]):
    async def run(self, ctx: Context, how: str, /) -> list[int]:
        await ctx.step("before", jitter, 0)
        branches: Callable[[Context], Awaitable[list[int]]] = getattr(self, how)
        return await branches(ctx)

    async def branches(self, ctx: Context) -> list[int]:
        """Two tasks that use the context of run(): their steps would be numbered by chance."""
        results: list[int] = []

        async def one(n: int) -> None:
            results.append(await ctx.step("s", jitter, n))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, 1)
            tasks.start_soon(one, 2)
        return results

    async def keyed(self, ctx: Context) -> list[int]:
        """The same with a context for each."""
        results: dict[int, int] = {}

        async def one(mine: Context, n: int) -> None:
            results[n] = await mine.step("s", jitter, n) + await mine.step("s", jitter, n)

        async with anyio.create_task_group() as tasks:
            for n in (1, 2):
                tasks.start_soon(one, ctx.branch(str(n)), n)
        return [results[n] for n in sorted(results)]

    async def bare(self, ctx: Context) -> list[int]:
        return list(await asyncio.gather(*(ctx.step("s", jitter, n) for n in range(5))))


async def test_a_task_that_uses_a_context_of_another_is_refused_the_first_time() -> None:
    async with runtime(agents=[PlainTasks]) as rt:
        with pytest.raises(RunError) as caught:
            await rt.run(PlainTasks, "branches")
    assert "AmbiguousStep" in caught.value.kind or "ExceptionGroup" in caught.value.kind


async def test_tasks_with_a_branch_each_are_fine() -> None:
    async with runtime(agents=[PlainTasks]) as rt:
        assert await rt.run(PlainTasks, "keyed", run_id="r") == [2, 4]
        assert {"branch=1/s#1", "branch=2/s#2"} <= set(await rt.steps("r"))
        assert await replay(rt, "r") == [""]


async def test_a_plain_gather_over_bare_steps_is_fine(anyio_backend: str) -> None:
    if anyio_backend == "trio":
        return  # it has no asyncio.gather
    async with runtime(agents=[PlainTasks]) as rt:
        assert await rt.run(PlainTasks, "bare", run_id="r") == [0, 1, 2, 3, 4]
        assert await replay(rt, "r") == [""]


def test_the_error_names_the_three_ways_out() -> None:
    assert "Use ctx.gather(), ctx.branch(key), or key=" in str(AmbiguousStep("s", "why"))
