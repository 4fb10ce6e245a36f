"""A clock that tests move: sleepers wake at their own instant, in order, and never before."""

from __future__ import annotations

import anyio
import pytest

from agentkit import Agent, Context, Settings, StepContext
from agentkit.testing import runtime
from agentkit.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_time_stands_still_until_it_is_moved(clock: FakeClock) -> None:
    wall, elapsed = clock.time(), clock.monotonic()
    await anyio.sleep(0.01)
    assert (clock.time(), clock.monotonic()) == (wall, elapsed)
    await clock.advance(2.5)
    assert (clock.time() - wall, clock.monotonic() - elapsed) == (2.5, 2.5)


async def test_sleepers_wake_in_order_each_at_its_own_instant(clock: FakeClock) -> None:
    woken: list[tuple[str, float]] = []
    start = clock.monotonic()

    async def sleep(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic() - start))

    async with anyio.create_task_group() as group:
        for name, seconds in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("d", 9.0)):
            group.start_soon(sleep, name, seconds)
        await anyio.wait_all_tasks_blocked()
        await clock.advance(5.0)
        assert woken == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
        await clock.advance(4.0)
    assert woken[-1] == ("d", 9.0)


async def test_a_loop_that_sleeps_ticks_as_often_as_time_allows(clock: FakeClock) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await clock.sleep(0.1)
            ticks += 1

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await anyio.wait_all_tasks_blocked()
        await clock.advance(1.05)
        group.cancel_scope.cancel()
    assert ticks == 10


async def test_a_jump_wakes_who_is_due_without_waiting_for_them(clock: FakeClock) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 60.0)
        await anyio.wait_all_tasks_blocked()
        clock.jump(61.0)


async def test_a_step_of_the_wall_clock_wakes_nobody(clock: FakeClock) -> None:
    woken = anyio.Event()

    async def sleep() -> None:
        await clock.sleep(1.0)
        woken.set()

    wall, elapsed = clock.time(), clock.monotonic()
    async with anyio.create_task_group() as group:
        group.start_soon(sleep)
        await anyio.wait_all_tasks_blocked()
        clock.jump(-3600.0, wall_only=True)
        await clock.advance(0.5)
        assert not woken.is_set()
        assert (clock.time() - wall, clock.monotonic() - elapsed) == (-3599.5, 0.5)
        await clock.advance(0.5)
    assert woken.is_set()


async def test_a_sleeper_that_was_cancelled_stops_no_advance(clock: FakeClock) -> None:
    with anyio.move_on_after(0.001):
        await clock.sleep(10.0)
    with anyio.fail_after(10):
        await clock.advance(100.0)


async def test_who_sleeps_on_another_thread_is_woken_too(clock: FakeClock) -> None:
    def sleep_elsewhere() -> None:
        anyio.run(clock.sleep, 5.0)

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, sleep_elsewhere)
        while clock.sleepers == 0:  # noqa: ASYNC110  a sleeper on another loop cannot set an event of this one
            await anyio.sleep(0.001)
        await clock.advance(5.0)


class Naps(Agent[int, int]):
    """Takes its time in the body of a step."""

    async def run(self, ctx: Context, seconds: int, /) -> int:
        return await ctx.step("nap", nap, seconds)


async def nap(step: StepContext, seconds: int) -> int:
    await step.clock.sleep(seconds)
    return seconds


async def test_a_runtime_has_settled_when_its_places_are_taken_although_more_runs_wait() -> None:
    async with runtime(agents=[Naps], settings=Settings(concurrency=1, grace_s=0.0)) as rt:
        first, second = await rt.submit_many(Naps, {"first": 5, "second": 6})
        await rt.settle()
        assert [(await handle.info()).status for handle in (first, second)] == ["running", "queued"]
        await rt.clock.advance(11)
        assert [await handle.result() for handle in (first, second)] == [5, 6]
