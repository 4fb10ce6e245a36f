"""Semaphores: never more than the permits, in order, bounded in time, and without a leak whenever a caller is cancelled."""

from __future__ import annotations

import math
from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import InvalidSetting, Overloaded, PermitLost, StoreUnavailable
from agentkit.inmemory.limits import InMemoryLimits
from agentkit.ports.limits import Grant
from agentkit.resilience.gradient import Load, answered, failed, unknown
from agentkit.resilience.layer import Outcome
from agentkit.resilience.policy import Policy
from agentkit.resilience.semaphore import LEASE_S, Permits, Semaphore, admitted, fits
from agentkit.resilience.state import PolicyState, using
from agentkit.testing.clock import FakeClock
from tests.core.policies import YieldingLimits, later, sleep_under

DONE = Outcome(sent=True, verdict="ok", took_s=1.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize(
    ("held", "limit", "weights", "count"),
    [(0, 4, [1, 1, 1, 1, 1], 4), (2, 4, [2, 1], 1), (2, 4, [3, 1, 1], 0), (4, 4, [1], 0), (0, 2.5, [3, 1], 1), (1, 2.5, [3], 0)],
)
def test_the_head_of_the_line_goes_first_whatever_its_weight(held: int, limit: float, weights: list[int], count: int) -> None:
    assert admitted(held, limit, weights) == count


@given(held=st.integers(0, 20), limit=st.integers(1, 20), weight=st.integers(1, 20))
def test_permits_fit_only_below_the_limit_or_alone(held: int, limit: int, weight: int) -> None:
    assert fits(held, limit, weight) == (held + weight <= limit or held == 0)


async def test_no_more_than_the_permits_are_held_and_waiters_come_in_order(clock: FakeClock) -> None:
    permits, entered, most = Permits("s", 4, clock), dict[int, float](), 0

    async def worker(number: int, weight: int) -> None:
        nonlocal most
        await permits.acquire(weight, 60.0)
        entered[number] = clock.monotonic()
        most = max(most, permits.held)
        await clock.sleep(1.0)
        permits.release(weight, DONE)

    async with anyio.create_task_group() as group:
        for number, weight in enumerate((3, 2, 1, 4, 1, 1, 2)):
            group.start_soon(worker, number, weight)
            await anyio.wait_all_tasks_blocked()
        await clock.advance(20.0)
    assert [entered[number] for number in range(7)] == [0.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert most <= 4
    assert permits.held == 0


async def test_a_wait_is_bounded_and_says_when_to_come_again(clock: FakeClock) -> None:
    permits = Permits("s", 1, clock)
    await permits.acquire(1, 0.0)
    with pytest.raises(Overloaded):
        await permits.acquire(1, 0.0)
    async with anyio.create_task_group() as group:
        group.start_soon(later, clock, 5.0)
        with pytest.raises(Overloaded) as caught:
            await permits.acquire(1, 5.0)
        assert 0 < caught.value.retry_after_s < math.inf
    assert (permits.held, len(permits.line)) == (1, 0)


async def test_who_gives_up_lets_the_lighter_one_behind_it_in(clock: FakeClock) -> None:
    permits, heavy = Permits("s", 2, clock), anyio.CancelScope()
    await permits.acquire(1, 0.0)

    async def give_up() -> None:
        with heavy:
            await permits.acquire(2, 60.0)

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(permits.acquire, 1, 60.0)
        await anyio.wait_all_tasks_blocked()
        assert (permits.held, len(permits.line)) == (1, 2)
        heavy.cancel()
    assert (permits.held, len(permits.line)) == (2, 0)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("turns", range(40))
async def test_a_cancellation_at_any_turn_leaks_no_permit(clock: FakeClock, shared: bool, turns: int) -> None:
    limits = YieldingLimits(clock)
    policy = Policy("p", timeout_s=100.0, limits=[Semaphore("s", 2, shared=shared, weight=2)])
    with using(PolicyState(clock, limits=limits)):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(partial(policy.call, anyio.lowlevel.checkpoint))
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
                clock.jump(0.05)
            group.cancel_scope.cancel()
        await Policy("q", timeout_s=0.01, limits=[Semaphore("s", 2, shared=shared, weight=2)]).call(anyio.lowlevel.checkpoint)


async def test_a_call_that_fails_gives_its_permit_back(clock: FakeClock) -> None:
    async def fail() -> None:
        raise ValueError

    policy = Policy("p", limits=[Semaphore("s", 1, max_wait_s=0.0)])
    with using(PolicyState(clock)):
        for _ in range(3):
            with pytest.raises(ValueError):
                await policy.call(fail)


async def test_two_policies_that_name_the_same_semaphore_share_it(clock: FakeClock) -> None:
    with using(PolicyState(clock)):
        async with anyio.create_task_group() as group:
            group.start_soon(partial(Policy("a", limits=[Semaphore("gpu", 4, weight=3)]).call, anyio.sleep_forever))
            await anyio.wait_all_tasks_blocked()
            await Policy("b", limits=[Semaphore("gpu", 4, weight=1, max_wait_s=0.0)]).call(anyio.lowlevel.checkpoint)
            with pytest.raises(Overloaded):
                await Policy("b", limits=[Semaphore("gpu", 4, weight=2, max_wait_s=0.0)]).call(anyio.lowlevel.checkpoint)
            group.cancel_scope.cancel()


async def test_one_name_has_one_number_of_permits(clock: FakeClock) -> None:
    with using(PolicyState(clock)):
        await Policy("a", limits=[Semaphore("gpu", 4)]).call(anyio.lowlevel.checkpoint)
        with pytest.raises(InvalidSetting, match="gpu"):
            await Policy("b", limits=[Semaphore("gpu", 5)]).call(anyio.lowlevel.checkpoint)


async def test_each_state_counts_for_itself(clock: FakeClock) -> None:
    policy = Policy("a", limits=[Semaphore("gpu", 1, max_wait_s=0.0)])

    async def inside() -> None:
        with using(PolicyState(clock)):
            await policy.call(anyio.lowlevel.checkpoint)
        with pytest.raises(Overloaded):
            await policy.call(anyio.lowlevel.checkpoint)

    with using(PolicyState(clock)):
        await policy.call(inside)


async def test_policies_that_name_semaphores_in_another_order_never_wait_for_each_other_in_a_circle(clock: FakeClock) -> None:
    a, b = Semaphore("a", 1), Semaphore("b", 1)
    with using(PolicyState(clock)):
        async with anyio.create_task_group() as group:
            for limits in ([a, b], [b, a]) * 10:
                group.start_soon(partial(Policy("p", limits=limits).call, anyio.lowlevel.checkpoint))
    assert clock.monotonic() == 0.0


async def test_a_shared_semaphore_counts_over_processes(clock: FakeClock) -> None:
    limits = InMemoryLimits(clock)
    policy = Policy("p", limits=[Semaphore("gpu", 2, shared=True, max_wait_s=1.0)])

    async def process() -> None:
        with using(PolicyState(clock, limits=limits)):
            await policy.call(clock.sleep, 100.0)

    async with anyio.create_task_group() as group:
        group.start_soon(process)
        group.start_soon(process)
        await anyio.wait_all_tasks_blocked()
        with using(PolicyState(clock, limits=limits)):
            async with anyio.create_task_group() as other:
                other.start_soon(later, clock, 2.0)
                with pytest.raises(Overloaded):
                    await policy.call(anyio.lowlevel.checkpoint)
            await clock.advance(3 * LEASE_S)  # renewed, so they are still held
            with pytest.raises(Overloaded):
                await Policy("q", limits=[Semaphore("gpu", 2, shared=True, max_wait_s=0.0)]).call(anyio.lowlevel.checkpoint)
            await clock.advance(100.0)
            await policy.call(anyio.lowlevel.checkpoint)


async def test_who_waits_for_a_shared_permit_gets_it_when_it_is_given_back(clock: FakeClock) -> None:
    with using(PolicyState(clock, limits=InMemoryLimits(clock))):
        policy = Policy("p", limits=[Semaphore("gpu", 1, shared=True)])
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(sleep_under, policy, clock, 1.0)
            await later(clock, 10.0)
    assert clock.monotonic() <= 10.0


class Failing(InMemoryLimits):
    """A limit store that can go away."""

    away = False

    async def renew(self, name: str, holders: object, lease_s: float) -> list[bool]:
        if self.away:
            raise StoreUnavailable("limits", "gone")
        return await super().renew(name, holders, lease_s)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        if self.away:
            raise StoreUnavailable("limits", "gone")
        return await super().acquire(name, holder, permits=permits, weight=weight, lease_s=lease_s, tenant=tenant)


async def test_a_call_whose_permit_cannot_be_renewed_is_cut_off_before_another_may_have_it(clock: FakeClock) -> None:
    limits, ended_at = Failing(clock), list[float]()

    async def call() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended_at.append(clock.monotonic())

    with using(PolicyState(clock, limits=limits)):
        async with anyio.create_task_group() as group:
            limits.away = False
            group.start_soon(later, clock, LEASE_S)

            async def go_away() -> None:
                await anyio.wait_all_tasks_blocked()
                limits.away = True

            group.start_soon(go_away)
            with pytest.raises(PermitLost):
                await Policy("p", limits=[Semaphore("gpu", 1, shared=True)]).call(call)
    assert ended_at[0] < LEASE_S


async def test_without_its_store_a_shared_semaphore_lets_nobody_in(clock: FakeClock) -> None:
    limits = Failing(clock)
    limits.away = True
    with using(PolicyState(clock, limits=limits)), pytest.raises(StoreUnavailable):
        await Policy("p", limits=[Semaphore("gpu", 1, shared=True)]).call(anyio.sleep_forever)


async def test_outside_of_a_runtime_a_shared_semaphore_counts_here_and_says_so(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy("p", limits=[Semaphore("gpu", 1, shared=True, max_wait_s=0.0)])
    with using(PolicyState(clock)):
        async with anyio.create_task_group() as group:
            group.start_soon(partial(policy.call, anyio.sleep_forever))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await policy.call(anyio.lowlevel.checkpoint)
            group.cancel_scope.cancel()
    assert len([record for record in caplog.records if "this process only" in record.message]) == 1


@pytest.mark.parametrize(
    "settings", [{"permits": 0}, {"permits": 2, "weight": 3}, {"permits": 2, "weight": 0}, {"permits": 2, "shared": True, "adaptive": True}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidSetting):
        Semaphore("s", **settings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def settled(capacity: float, most: int, calls: int = 5000, load: Load | None = None, takes_s: float = 0.1) -> float:
    """The limit that is found for a backend which takes `takes_s` a call up to its capacity, and more in proportion above."""
    load = load or unknown(most)
    for _ in range(calls):
        in_flight = max(1, int(load.limit))
        load = answered(load, takes_s * max(1.0, in_flight / capacity), in_flight=in_flight, most=most)
    return max(load.limit, load.resume)


@pytest.mark.parametrize("calls", [500, 5000, 50_000])
@pytest.mark.parametrize("capacity", [5.0, 20.0, 60.0])
def test_an_adaptive_limit_finds_about_what_the_backend_bears_and_stays_there(capacity: float, calls: int) -> None:
    assert capacity <= settled(capacity, 400, calls) <= capacity * 3


def test_an_adaptive_limit_never_exceeds_the_permits() -> None:
    assert settled(1000.0, 50) == 50.0


def test_a_backend_that_takes_longer_for_every_call_is_measured_anew() -> None:
    known = Load(limit=30.0, now_s=0.1, quiet_s=0.1)
    assert settled(20.0, 400, 3000, known, takes_s=0.5) >= 20.0


def test_a_measurement_waits_until_the_backend_is_quiet() -> None:
    load = unknown(100)
    assert answered(load, 60.0, in_flight=50, most=100) == load


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 200), st.booleans()), max_size=200), st.booleans())
def test_an_adaptive_limit_stays_between_one_and_the_permits(calls: list[tuple[float, int, bool]], is_known: bool) -> None:
    load = Load(limit=8.0, now_s=1.0, quiet_s=1.0, calls=990) if is_known else unknown(64)
    for took_s, in_flight, ok in calls:
        load = answered(load, took_s, in_flight=in_flight, most=64) if ok else failed(load, most=64)
        assert 1.0 <= load.limit <= 64.0
        assert load.resume == 0 or 1.0 <= load.resume <= 64.0


@given(took_s=st.floats(0.001, 10), in_flight=st.integers(1, 31))
def test_calls_that_the_limit_did_not_hold_up_teach_nothing_about_it(took_s: float, in_flight: int) -> None:
    assert answered(Load(64.0, 1.0, 1.0), took_s, in_flight=in_flight, most=128).limit == 64.0


async def test_an_adaptive_semaphore_lets_fewer_in_when_calls_fail(clock: FakeClock) -> None:
    permits = Permits("s", 100, clock, adaptive=True)
    for _ in range(50):
        await permits.acquire(1, 0.0)
        permits.release(1, Outcome(sent=True, verdict="failed", took_s=1.0))
    assert permits.load.limit == 1.0
    await permits.acquire(1, 0.0)
    with pytest.raises(Overloaded):
        await permits.acquire(1, 0.0)
