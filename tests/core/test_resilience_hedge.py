"""Hedging: only slow calls are sent again, hardly ever more than one in twenty, and who does not answer has ended on return."""

from __future__ import annotations

import random
from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import InvalidSetting, Unreachable
from agentkit.resilience.hedge import EXTRA, LEAST_S, WARM, Hedge, Seen, hedge_after_s, saw
from agentkit.resilience.policy import Policy
from agentkit.resilience.state import PolicyState, using
from agentkit.testing.clock import FakeClock
from tests.core.policies import later

ARMED = Seen(calls=WARM, p95_s=1.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def armed(state: PolicyState, name: str = "p") -> Hedge:
    """What a policy knows, as if it had seen enough."""
    hedge = state.part("hedge", name, None, partial(Hedge, name, state.clock))
    hedge.seen, hedge.budget.tokens = ARMED, 1.0
    return hedge


@pytest.mark.parametrize(
    ("seen", "tokens", "after_s"),
    [(ARMED, 1.0, 1.0), (ARMED, 0.9, None), (Seen(WARM - 1, 1.0), 1.0, None), (Seen(WARM, LEAST_S / 2), 1.0, None)],
)
def test_a_call_is_sent_again_when_enough_is_known_and_little_was_sent_twice(seen: Seen, tokens: float, after_s: float | None) -> None:
    assert hedge_after_s(seen, tokens) == after_s


@pytest.mark.parametrize("spread", [1.2, 3.0, 20.0])
def test_the_estimate_comes_near_the_time_that_a_twentieth_exceeds(spread: float) -> None:
    rng, seen, exceeding = random.Random(17), Seen(), 0
    for number in range(6000):
        took_s = rng.uniform(0.1, 0.1 * spread)
        exceeding += number >= 2000 and took_s > seen.p95_s
        seen = saw(seen, took_s)
    assert 0.03 <= exceeding / 4000 <= 0.07


def test_the_estimate_follows_a_change_of_speed() -> None:
    seen = Seen()
    for took_s in [10.0] * 50 + [0.1] * 2500:
        seen = saw(seen, took_s)
    assert seen.p95_s < 0.2


@given(st.lists(st.floats(0, 1e4), max_size=200))
def test_the_estimate_is_never_negative_nor_above_what_was_seen_by_more_than_a_step(times: list[float]) -> None:
    seen = Seen()
    for took_s in times:
        seen = saw(seen, took_s)
    assert 0 <= seen.p95_s <= max(times, default=0.0) * 1.05


async def test_the_first_answer_wins_and_the_other_has_ended_on_return(clock: FakeClock) -> None:
    running: list[int] = []
    sent: list[int] = []

    async def call() -> int:
        number = len(sent)
        sent.append(number)
        running.append(number)
        try:
            await clock.sleep(100.0 if number == 0 else 2.0)
        finally:
            running.remove(number)
        return number

    with using(PolicyState(clock)) as state:
        armed(state)
        async with anyio.create_task_group() as group:
            group.start_soon(later, clock, 50.0)
            assert await Policy("p", hedge=True).call(call) == 1
            assert (sent, running) == ([0, 1], [])


async def test_a_fast_call_is_sent_once(clock: FakeClock) -> None:
    sent: list[int] = []

    async def call() -> None:
        sent.append(1)
        await anyio.lowlevel.checkpoint()

    with using(PolicyState(clock)) as state:
        armed(state)
        await Policy("p", hedge=True).call(call)
    assert sent == [1]


async def test_an_error_counts_only_when_no_other_attempt_is_left(clock: FakeClock) -> None:
    sent: list[int] = []

    async def call(errors: list[bool]) -> int:
        number = len(sent)
        sent.append(number)
        await clock.sleep(2.0 + number)
        if errors[number]:
            raise Unreachable(f"eu{number}", "refused")
        return number

    with using(PolicyState(clock)) as state:
        for errors in ([True, False], [True, True]):
            armed(state)
            sent.clear()
            async with anyio.create_task_group() as group:
                group.start_soon(later, clock, 50.0)
                if all(errors):
                    with pytest.raises(Unreachable, match="eu0"):
                        await Policy("p", hedge=True).call(call, errors)
                else:
                    assert await Policy("p", hedge=True).call(call, errors) == 1


async def test_a_cancelled_caller_ends_both(clock: FakeClock) -> None:
    running: list[int] = []

    async def call() -> None:
        running.append(1)
        try:
            await anyio.sleep_forever()
        finally:
            running.pop()

    with using(PolicyState(clock)) as state:
        armed(state)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(Policy("p", hedge=True).call, call))
            await later(clock, 5.0)
            assert len(running) == 2
            group.cancel_scope.cancel()
    assert running == []


async def test_no_more_than_a_twentieth_of_all_calls_is_sent_twice(clock: FakeClock) -> None:
    sent, rng = 0, random.Random(5)

    async def call() -> None:
        nonlocal sent
        sent += 1
        await clock.sleep(rng.choice([0.1, 10.0]))  # half of them are slow: more than may be sent again

    async def many() -> None:
        for _ in range(400):
            hedge.seen = ARMED
            await Policy("p", hedge=True).call(call)

    with using(PolicyState(clock)) as state:
        hedge = armed(state)
        async with anyio.create_task_group() as group:
            group.start_soon(many)
            await later(clock, 400 * 12.0)
    assert 400 + 10 < sent <= 400 * (1 + EXTRA.ratio) + 1  # the token it was armed with


def test_a_hedge_needs_a_name() -> None:
    with pytest.raises(InvalidSetting, match="name"):
        Policy(hedge=True)
