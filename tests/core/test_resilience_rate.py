"""Rates: never more than a bucket and its rate allow, in order, settled by the truth, and no wait beyond the deadline."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import CircuitOpen, InvalidSetting, Overloaded, StoreUnavailable
from agentkit.inmemory.limits import InMemoryLimits
from agentkit.resilience.circuit_breaker import CircuitBreaker
from agentkit.resilience.policy import Policy
from agentkit.resilience.rate_limit import Bucket, RateLimit, expecting, filled, given_back, taken, used
from agentkit.resilience.state import PolicyState, using
from agentkit.testing.clock import FakeClock
from tests.core.policies import later

RATE, BURST = 2.0, 10.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["local", "shared"])
def state(request: pytest.FixtureRequest, clock: FakeClock) -> PolicyState:
    return PolicyState(clock, limits=InMemoryLimits(clock) if request.param == "shared" else None)


async def nothing() -> None:
    await anyio.lowlevel.checkpoint()


async def use(tokens: float) -> None:
    used(tokens)
    await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("level", "amount", "left", "wait_s"), [(10, 4, 6, 0), (10, 10, 0, 0), (1, 4, -3, 1.5), (-2, 4, -6, 3), (0, 50, -10, 5)]
)
def test_what_is_not_there_is_promised_for_later(level: float, amount: float, left: float, wait_s: float) -> None:
    assert taken(Bucket(level, 0.0), amount, 0.0, rate_per_s=RATE, burst=BURST) == (Bucket(left, 0.0), wait_s)


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, BURST), st.booleans()), max_size=100))
def test_a_bucket_never_gives_out_more_than_its_burst_and_its_rate(events: list[tuple[float, float, bool]]) -> None:
    bucket, now, given_out = Bucket(BURST, 0.0), 0.0, list[tuple[float, float]]()
    for gap_s, amount, gives_back in events:
        now += gap_s
        bucket, wait_s = taken(bucket, amount, now, rate_per_s=RATE, burst=BURST)
        given_out.append((now + wait_s, amount))
        if gives_back:
            bucket = given_back(bucket, amount, now, rate_per_s=RATE, burst=BURST)
            given_out.pop()
        assert bucket.level <= BURST
    for at, _ in given_out:
        assert sum(amount for when, amount in given_out if when <= at) <= BURST + RATE * at + 1e-6


@given(level=st.floats(-100, BURST), gap_s=st.floats(0, 1000))
def test_a_bucket_fills_up_to_its_burst_and_a_clock_that_steps_back_takes_nothing(level: float, gap_s: float) -> None:
    assert filled(Bucket(level, 5.0), 5.0 + gap_s, rate_per_s=RATE, burst=BURST) == pytest.approx(min(BURST, level + RATE * gap_s))
    assert filled(Bucket(level, 5.0), 0.0, rate_per_s=RATE, burst=BURST) == level


async def test_requests_beyond_the_rate_wait_their_turn(clock: FakeClock, state: PolicyState) -> None:
    policy, sent = Policy("p", limits=[RateLimit("r", rpm=60)]), list[float]()

    async def call() -> None:
        await nothing()
        sent.append(clock.monotonic())

    with using(state):
        async with anyio.create_task_group() as group:
            for _ in range(63):
                group.start_soon(partial(policy.call, call))
            await later(clock, 10.0)
    assert sent[:60] == [0.0] * 60
    assert sent[60:] == pytest.approx([1.0, 2.0, 3.0], abs=0.1)


async def test_a_wait_beyond_the_deadline_is_refused_at_once(clock: FakeClock, state: PolicyState) -> None:
    policy = Policy("p", timeout_s=2.0, limits=[RateLimit("r", rpm=6)])
    with using(state):
        for _ in range(6):
            await policy.call(nothing)
        with pytest.raises(Overloaded) as caught:
            await policy.call(nothing)
    assert caught.value.retry_after_s == pytest.approx(10.0)
    assert clock.monotonic() == 0.0


async def test_the_reserve_is_settled_by_what_was_used(clock: FakeClock, state: PolicyState) -> None:
    policy = Policy("p", timeout_s=0.5, limits=[RateLimit("r", tpm=1000)])
    with using(state), expecting(900):
        await policy.call(use, 100)
        await policy.call(use, 1500)
        with pytest.raises(Overloaded):
            await policy.call(use, 1)
        await clock.advance(60.0 * 1.6)
        await policy.call(use, 100)


async def test_what_a_call_uses_beyond_its_reserve_the_next_ones_wait_for(clock: FakeClock, state: PolicyState) -> None:
    policy = Policy("p", limits=[RateLimit("r", tpm=600)])
    with using(state):
        await policy.call(use, 900)  # nothing was known of what it would use
        async with anyio.create_task_group() as group:
            group.start_soon(later, clock, 200.0)
            with expecting(100):
                await policy.call(use, 100)
    assert state.clock.monotonic() >= 0.0


async def test_without_an_estimate_a_call_reserves_what_calls_used_lately(clock: FakeClock, state: PolicyState) -> None:
    policy = Policy("p", timeout_s=0.5, limits=[RateLimit("r", tpm=1000)])
    with using(state):
        await policy.call(use, 400)
        await policy.call(nothing)  # says nothing, so it has used the 400 that it reserved
        with pytest.raises(Overloaded):
            await policy.call(nothing)


async def test_a_call_that_was_not_sent_uses_nothing(clock: FakeClock, state: PolicyState) -> None:
    async def fail() -> None:
        raise ConnectionError

    breaker = CircuitBreaker(min_calls=1)
    with using(state):
        with pytest.raises(ConnectionError):
            await Policy("p", breaker=breaker).call(fail)
        for _ in range(10):
            with pytest.raises(CircuitOpen):
                await Policy("p", breaker=breaker, limits=[RateLimit("r", rpm=1)]).call(nothing)
        await Policy("q", timeout_s=0.5, limits=[RateLimit("r", rpm=1)]).call(nothing)


async def test_what_one_rate_reserved_is_given_back_when_the_next_refuses(state: PolicyState) -> None:
    first, second = RateLimit("first", rpm=2), RateLimit("second", rpm=1)
    with using(state):
        await Policy("p", limits=[second]).call(nothing)
        for _ in range(10):
            with pytest.raises(Overloaded, match="second"):
                await Policy("q", timeout_s=0.5, limits=[first, second]).call(nothing)
        for _ in range(2):
            await Policy("r", timeout_s=0.5, limits=[first]).call(nothing)


async def test_who_is_cancelled_while_it_waits_gives_its_place_back(clock: FakeClock, state: PolicyState) -> None:
    policy = Policy("p", limits=[RateLimit("r", rpm=6)])
    with using(state):
        for _ in range(6):
            await policy.call(nothing)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(partial(policy.call, nothing))
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        await clock.advance(30.0)  # also as long as a store keeps a place for who asked last
        await Policy("q", timeout_s=11.0, limits=[RateLimit("r", rpm=6)]).call(nothing)


async def test_requests_are_given_back_when_the_tokens_do_not_fit(clock: FakeClock, state: PolicyState) -> None:
    policy = Policy("p", timeout_s=0.5, limits=[RateLimit("r", rpm=2, tpm=100)])
    with using(state), expecting(60):
        await policy.call(use, 60)
        for _ in range(5):
            with pytest.raises(Overloaded, match="tokens"):
                await policy.call(use, 60)
        with expecting(10):
            await policy.call(use, 10)


async def test_tokens_of_a_call_inside_another_count_for_both(clock: FakeClock) -> None:
    inner, outer = (Policy(name, timeout_s=0.5, limits=[RateLimit(name, tpm=100, shared=False)]) for name in ("inner", "outer"))
    with using(PolicyState(clock)):
        await outer.call(inner.call, use, 100)
        for policy in (inner, outer):
            with expecting(50), pytest.raises(Overloaded):
                await policy.call(nothing)


def test_outside_of_a_call_nobody_listens_to_what_was_used() -> None:
    used(17)


async def test_two_processes_share_one_rate(clock: FakeClock) -> None:
    limits = InMemoryLimits(clock)
    policy = Policy("p", timeout_s=0.5, limits=[RateLimit("r", rpm=2)])
    for _ in range(2):
        with using(PolicyState(clock, limits=limits)):
            await policy.call(nothing)
    with using(PolicyState(clock, limits=limits)), pytest.raises(Overloaded):
        await policy.call(nothing)


async def test_a_call_that_cannot_be_settled_still_has_its_answer(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    class Away(InMemoryLimits):
        async def settle(self, name: str, key: str, actual: float) -> None:
            raise StoreUnavailable("limits", "gone")

    async def answer() -> str:
        used(5)
        await nothing()
        return "answer"

    with using(PolicyState(clock, limits=Away(clock))):
        assert await Policy("p", limits=[RateLimit("r", tpm=100)]).call(answer) == "answer"
    assert "not settled" in caplog.text


@pytest.mark.parametrize("settings", [{}, {"rpm": 0}, {"tpm": -1}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidSetting):
        RateLimit("r", **settings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
