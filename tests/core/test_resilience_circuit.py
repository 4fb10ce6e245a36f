"""Circuit breaker: opens on a rate of failures or slow calls, lets N probes through, and is blind to what is not the backend's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import CircuitOpen, DeadlineExceeded, InvalidSetting, Overloaded, RateLimited, RequestRefused
from agentkit.resilience.circuit_breaker import BUCKETS, Circuit, CircuitBreaker, Closed, HalfOpen, Open, State, admit, record
from agentkit.resilience.layer import Verdict, verdict
from agentkit.resilience.policy import Policy
from agentkit.resilience.semaphore import Semaphore
from agentkit.resilience.state import PolicyState, using
from agentkit.testing.clock import FakeClock
from tests.core.policies import later

B = CircuitBreaker(failure_rate=0.5, slow_rate=0.8, slow_s=5.0, window_s=10.0, min_calls=4, probes=3, open_s=10.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def after(b: CircuitBreaker, state: State, *ends: Verdict | Literal["slow"], now: float = 0.0) -> State:
    """The state after calls that ended so, one after the other."""
    for end in ends:
        state, refused_s = admit(b, state, now)
        assert not refused_s
        state = record(b, state, state.era, "ok" if end == "slow" else end, took_s=b.slow_s if end == "slow" else 0.0, now=now)
    return state


@pytest.mark.parametrize(
    ("ends", "opens"),
    [
        (("failed", "failed", "failed"), False),
        (("failed", "failed", "failed", "failed"), True),
        (("ok", "failed", "ok", "failed"), True),
        (("ok", "ok", "ok", "failed"), False),
        (("failed", "failed", "neutral", "neutral", "neutral"), False),
        (("slow", "slow", "slow", "ok"), False),
        (("slow", "slow", "slow", "slow"), True),
        (("failed", "failed", "failed", "ok"), True),
    ],
)
def test_it_opens_when_enough_of_enough_calls_failed_or_were_slow(ends: tuple[Verdict, ...], opens: bool) -> None:
    assert isinstance(after(B, Closed(), *ends), Open) is opens


def test_what_is_older_than_the_window_is_forgotten() -> None:
    state = after(B, Closed(), "failed", "failed", "failed", now=0.0)
    assert isinstance(after(B, state, "failed", now=8.0), Open)
    assert isinstance(after(B, state, "failed", now=10.0), Closed)


def test_a_call_that_was_slow_counts_however_it_ended() -> None:
    state: State = Closed()
    for _ in range(4):
        state = record(B, state, 0, "neutral", took_s=5.0, now=0.0)
    assert isinstance(state, Open)


def test_it_says_when_to_come_again() -> None:
    state = Open(1, until=30.0)
    assert admit(B, state, 22.5) == (state, 7.5)


@given(callers=st.integers(3, 1000))
def test_half_open_admits_exactly_n_of_all_callers(callers: int) -> None:
    state: State = Open(1, until=0.0)
    admitted = 0
    for _ in range(callers):
        state, refused_s = admit(B, state, 1.0)
        admitted += not refused_s
    assert admitted == B.probes


@pytest.mark.parametrize(
    ("ends", "then"),
    [
        (("ok", "ok", "ok"), Closed),
        (("ok", "ok"), HalfOpen),
        (("ok", "failed"), HalfOpen),
        (("failed", "failed"), Open),
        (("ok", "failed", "failed"), Open),
        (("ok", "ok", "failed"), Closed),
        (("slow", "slow", "slow"), Open),
        (("slow", "ok", "ok"), Closed),
        (("neutral", "neutral", "neutral", "neutral"), HalfOpen),
    ],
)
def test_the_rates_of_the_probes_decide(ends: tuple[Verdict, ...], then: type[State]) -> None:
    assert isinstance(after(B, Open(1, until=0.0), *ends, now=1.0), then)


def test_a_probe_that_says_nothing_gives_its_place_to_another() -> None:
    state: State = Open(1, until=0.0)
    for _ in range(3):
        state, _ = admit(B, state, 1.0)
    assert admit(B, state, 1.0)[1] > 0
    state = record(B, state, state.era, "neutral", took_s=0.0, now=1.0)
    assert admit(B, state, 1.0)[1] == 0


def test_the_place_of_a_probe_that_answered_goes_to_nobody() -> None:
    state: State = Open(1, until=0.0)
    for _ in range(3):
        state, _ = admit(B, state, 1.0)
    state = record(B, state, state.era, "ok", took_s=0.0, now=1.0)
    assert admit(B, state, 1.0)[1] > 0


def test_probes_that_never_answer_open_it_again() -> None:
    state, _ = admit(B, Open(1, until=0.0), 1.0)
    state, refused_s = admit(B, state, 1.0 + B.slow_s)
    assert isinstance(state, Open)
    assert refused_s == B.open_s


def test_a_call_of_an_earlier_era_says_nothing_about_this_one() -> None:
    state: State = HalfOpen(era=2, until=100.0, out=1)
    assert record(B, state, 0, "failed", took_s=60.0, now=1.0) is state


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=80))
def test_the_window_counts_what_a_list_of_all_calls_would(calls: list[tuple[float, bool, bool]]) -> None:
    b = CircuitBreaker(failure_rate=1.0, slow_rate=1.0, slow_s=1.0, window_s=10.0, min_calls=10_000)
    state: State = Closed()
    now, seen = 0.0, list[tuple[int, bool, bool]]()
    for gap_s, failed, slow in calls:
        now += gap_s
        seen.append((int(now * b.buckets_per_s), failed, slow))
        state = record(b, state, 0, "failed" if failed else "ok", took_s=float(slow), now=now)
        assert isinstance(state, Closed)
        inside = [call for call in seen if call[0] > seen[-1][0] - BUCKETS]
        counted = (state.past.calls + state.calls, state.past.failed + state.failed, state.past.slow + state.slow)
        assert counted == (len(inside), sum(call[1] for call in inside), sum(call[2] for call in inside))
        assert len(state.older) < BUCKETS


@given(st.lists(st.tuples(st.sampled_from(["admit", "ok", "failed", "neutral", "wait"]), st.floats(0, 12)), max_size=120))
def test_it_never_has_more_than_n_probes_out_and_refuses_only_when_not_closed(events: list[tuple[str, float]]) -> None:
    state: State = Closed()
    out: list[int] = []
    now = 0.0
    for event, amount in events:
        if event == "wait":
            now += amount
        elif event == "admit":
            state, refused_s = admit(B, state, now)
            assert refused_s >= 0
            assert refused_s == 0 or not isinstance(state, Closed)
            out += [] if refused_s else [state.era]
        elif out:
            state = record(
                B, state, out.pop(0), "ok" if event == "ok" else "failed" if event == "failed" else "neutral", took_s=0.0, now=now
            )
        if isinstance(state, HalfOpen):
            assert 0 <= state.out == out.count(state.era)
            assert state.out + state.answered <= B.probes


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError(), "failed"),
        (ConnectionError(), "failed"),
        (RateLimited("eu1", "429"), "neutral"),
        (RequestRefused("eu1", "bad"), "neutral"),
        (Overloaded("gpu", 1, 1.0), "neutral"),
        (CircuitOpen("inner", 1.0), "neutral"),
        (DeadlineExceeded("inner", 1.0), "failed"),
        (KeyboardInterrupt(), "neutral"),
    ],
)
async def test_the_callers_own_mistakes_and_our_own_limits_say_nothing_about_the_backend(error: BaseException, says: Verdict) -> None:
    assert verdict(error, timed_out=False) == says


def circuit(state: PolicyState) -> Circuit:
    return state.part("circuit", "p", B, partial(Circuit, "p", B, state.clock))


async def fail() -> None:
    raise ConnectionError


async def open_it(policy: Policy, clock: FakeClock) -> None:
    for _ in range(B.min_calls):
        with pytest.raises(ConnectionError):
            await policy.call(fail)
    with pytest.raises(CircuitOpen) as caught:
        await policy.call(fail)
    assert caught.value.retry_after_s == B.open_s


async def test_of_a_thousand_callers_exactly_n_probe(clock: FakeClock) -> None:
    policy, gate, sent, refused = Policy("p", breaker=B), anyio.Event(), list[int](), list[int]()

    async def slow() -> None:
        sent.append(1)
        await gate.wait()

    async def caller() -> None:
        try:
            await policy.call(slow)
        except CircuitOpen:
            refused.append(1)

    with using(PolicyState(clock)):
        await open_it(policy, clock)
        await clock.advance(B.open_s)
        async with anyio.create_task_group() as group:
            for _ in range(1000):
                group.start_soon(caller)
            await anyio.wait_all_tasks_blocked()
            assert (len(sent), len(refused)) == (B.probes, 1000 - B.probes)
            gate.set()
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(caller)
    assert len(sent) == B.probes + 100


async def test_cancelled_calls_do_not_open_it(clock: FakeClock) -> None:
    policy = Policy("p", breaker=B)
    with using(PolicyState(clock)) as state:
        for _ in range(10):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(policy.call, anyio.sleep_forever))
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
        assert circuit(state).state == Closed()


async def test_calls_that_hang_until_the_policys_own_timeout_open_it(clock: FakeClock) -> None:
    policy = Policy("p", timeout_s=1.0, breaker=B)
    with using(PolicyState(clock)):
        for _ in range(B.min_calls):
            async with anyio.create_task_group() as group:
                group.start_soon(later, clock, 1.0)
                with pytest.raises(DeadlineExceeded):
                    await policy.call(anyio.sleep_forever)
        with pytest.raises(CircuitOpen):
            await policy.call(anyio.sleep_forever)


async def test_a_stream_is_guarded_until_its_end(clock: FakeClock) -> None:
    @asynccontextmanager
    async def opened() -> AsyncGenerator[None]:
        yield

    policy = Policy("p", breaker=B)
    with using(PolicyState(clock)):
        for _ in range(B.min_calls):
            with pytest.raises(ConnectionError):
                async with policy.stream(opened):
                    raise ConnectionError
        with pytest.raises(CircuitOpen):
            async with policy.stream(opened):
                raise AssertionError("an open circuit opens no stream")


async def test_a_stream_that_flows_for_long_is_not_slow(clock: FakeClock) -> None:
    @asynccontextmanager
    async def opened() -> AsyncGenerator[None]:
        yield

    policy = Policy("p", breaker=B)
    with using(PolicyState(clock)) as state:
        for _ in range(2 * B.min_calls):
            async with policy.stream(opened):
                await clock.advance(B.slow_s)
        assert isinstance(circuit(state).state, Closed)


async def test_nobody_waits_in_line_for_a_backend_that_is_known_to_be_down(clock: FakeClock) -> None:
    policy = Policy("p", breaker=B, limits=[Semaphore("one", 1)])
    with using(PolicyState(clock)):
        await open_it(policy, clock)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(Policy("q", limits=[Semaphore("one", 1)]).call, anyio.sleep_forever))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(CircuitOpen):
                await policy.call(fail)
            group.cancel_scope.cancel()


def test_a_circuit_needs_a_name() -> None:
    with pytest.raises(InvalidSetting, match="name"):
        Policy(breaker=B)


@pytest.mark.parametrize(
    "settings", [{"failure_rate": 0.0}, {"failure_rate": 1.1}, {"slow_s": 0.0}, {"min_calls": 0}, {"probes": 0}, {"window_s": float("nan")}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidSetting):
        CircuitBreaker(**settings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
