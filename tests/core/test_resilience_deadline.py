"""Deadlines: a child never outlives its caller, and nothing is sent when no time is left."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import DeadlineExceeded, InvalidSetting, NoTimeLeft, RunParked
from agentkit.inmemory.limits import InMemoryLimits
from agentkit.ports.limits import Grant
from agentkit.resilience.beside import Beside
from agentkit.resilience.deadline import Within, announced, own_limit, remaining_s
from agentkit.resilience.policy import Policy
from agentkit.resilience.semaphore import Semaphore
from agentkit.resilience.state import PolicyState, using
from agentkit.testing.clock import FakeClock
from tests.core.policies import later


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@given(timeout_s=st.none() | st.floats(0.001, 1e6), remaining_s=st.floats(0, 1e6) | st.just(math.inf))
def test_a_limit_is_watched_by_whoever_set_the_sooner_one(timeout_s: float | None, remaining_s: float) -> None:
    own = own_limit(timeout_s, remaining_s)
    assert own is None or (own == timeout_s and own < remaining_s)
    assert own is not None or timeout_s is None or timeout_s >= remaining_s


async def test_without_a_deadline_time_is_endless() -> None:
    assert remaining_s() == math.inf
    async with Within("call", None):
        assert remaining_s() == math.inf


async def test_a_child_has_no_more_time_than_its_caller(clock: FakeClock) -> None:
    async with Within("outer", 10.0, clock):
        await clock.advance(4.0)
        async with Within("inner", 60.0, clock):
            assert remaining_s() == 6.0
        async with Within("inner", 2.0, clock):
            assert remaining_s() == 2.0
        assert remaining_s() == 6.0
    assert remaining_s() == math.inf


async def test_a_deadline_that_somebody_else_watches_is_kept_as_well(clock: FakeClock) -> None:
    with announced(10.0, clock):
        assert remaining_s() == 10.0
        with announced(60.0, clock):
            assert remaining_s() == 10.0
        clock.jump(10.0)
        with using(PolicyState(clock)), pytest.raises(NoTimeLeft):
            await Policy("p").call(anyio.sleep_forever)
    assert remaining_s() == math.inf


async def test_a_deadline_reaches_the_tasks_that_are_started_under_it(clock: FakeClock) -> None:
    seen: list[float] = []

    async def child() -> None:
        seen.append(remaining_s())

    async with Within("outer", 10.0, clock), anyio.create_task_group() as group:
        group.start_soon(child)
    assert seen == [10.0]


@pytest.mark.parametrize("sent", [True, False])
async def test_the_error_says_whether_anything_was_sent(clock: FakeClock, sent: bool) -> None:
    async def hang() -> None:
        async with Within("call", 5.0, clock) as within:
            within.sent = sent
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(later, clock, 5.0)
        with pytest.raises(DeadlineExceeded) as caught:
            await hang()
        assert isinstance(caught.value, NoTimeLeft) is not sent
        assert isinstance(caught.value, TimeoutError)
    assert math.isinf(remaining_s())


async def test_a_call_with_no_time_left_is_not_sent(clock: FakeClock) -> None:
    sent: list[int] = []

    async def call() -> None:
        sent.append(1)

    async with Within("outer", 5.0, clock):
        clock.jump(5.0)
        with using(PolicyState(clock)), pytest.raises(NoTimeLeft):
            await Policy("inner", timeout_s=1.0).call(call)
        with using(PolicyState(clock)), pytest.raises(NoTimeLeft):
            await Policy("inner").call(call)
    assert sent == []


async def test_a_call_whose_time_went_by_in_a_line_is_not_sent(clock: FakeClock) -> None:
    class Slow(InMemoryLimits):
        async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
            clock.jump(5.0)
            return await super().acquire(name, holder, permits=permits, weight=weight, lease_s=lease_s, tenant=tenant)

    async def call() -> None:
        raise AssertionError("sent")

    with using(PolicyState(clock, limits=Slow(clock))), pytest.raises(NoTimeLeft):
        await Policy("p", timeout_s=5.0, limits=[Semaphore("s", 1, shared=True)]).call(call)


async def test_a_call_that_ends_in_time_by_the_systems_clock_has_its_answer() -> None:
    async def answer() -> str:
        await anyio.lowlevel.checkpoint()
        return "answer"

    assert await Policy("fast", timeout_s=60.0, limits=[Semaphore("s", 1)]).call(answer) == "answer"


async def test_the_systems_clock_cuts_a_call_off_too() -> None:
    with pytest.raises(DeadlineExceeded):
        await Policy("slow", timeout_s=0.01).call(anyio.sleep_forever)


async def test_an_outer_deadline_that_strikes_is_the_outer_ones(clock: FakeClock) -> None:
    async def outer() -> None:
        async with Within("outer", 1.0, clock) as within:
            within.sent = True
            await Policy("inner", timeout_s=60.0).call(anyio.sleep_forever)

    async with anyio.create_task_group() as group:
        group.start_soon(later, clock, 1.0)
        with using(PolicyState(clock)), pytest.raises(DeadlineExceeded, match="outer"):
            await outer()


async def test_a_cancellation_is_never_turned_into_a_timeout(clock: FakeClock) -> None:
    ended: list[type[BaseException]] = []

    async def call() -> None:
        try:
            async with Within("call", 5.0, clock):
                await anyio.sleep_forever()
        except BaseException as exc:
            ended.append(type(exc))
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert ended == [anyio.get_cancelled_exc_class()]


@pytest.mark.parametrize("error", [ValueError("broken"), RunParked("park"), ExceptionGroup("two", [ValueError(), KeyError()])])
async def test_an_error_leaves_a_block_as_it_is(clock: FakeClock, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with Within("call", 5.0, clock):
            raise error
    assert caught.value is error or isinstance(caught.value, ExceptionGroup)


async def test_a_job_beside_a_block_that_ends_first_cuts_it_off() -> None:
    async def job() -> str:
        return "lost"

    beside = Beside()
    async with beside:
        beside.start(job)
        await anyio.sleep_forever()
    assert beside.struck == "lost"


async def test_a_block_that_ends_first_ends_the_jobs_beside_it() -> None:
    ended = anyio.Event()

    async def job() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with Beside() as beside:
        beside.start(job)
        await anyio.wait_all_tasks_blocked()
    assert ended.is_set()
    assert beside.struck is None


async def test_a_stream_is_under_the_deadline_until_its_end(clock: FakeClock) -> None:
    closed: list[str] = []

    @asynccontextmanager
    async def opened() -> AsyncGenerator[int]:
        try:
            yield 7
        finally:
            closed.append("closed")

    async def listen() -> None:
        async with Policy("stream", timeout_s=5.0).stream(opened) as value:
            assert (value, remaining_s()) == (7, 5.0)
            await anyio.sleep_forever()

    with using(PolicyState(clock)):
        async with anyio.create_task_group() as group:
            group.start_soon(later, clock, 5.0)
            with pytest.raises(DeadlineExceeded):
                await listen()
    assert closed == ["closed"]


def test_a_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidSetting):
        Policy("x", timeout_s=0.0)
