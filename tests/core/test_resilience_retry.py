"""Retries: safe errors only, no sooner than asked, no later than the deadline, and a dead backend is not sent everything many times."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import CircuitOpen, InvalidSetting, Overloaded, RateLimited, RunParked, StoreBusy, StoreUnavailable, Unreachable
from agentkit.resilience.budget import Allowance, Budget, Spending, earned, may_pay
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Again, Retry, Stop, decide, is_safe
from agentkit.resilience.state import PolicyState, using
from agentkit.testing.clock import FakeClock
from tests.core.policies import later

SAFE = Unreachable("eu1", "refused")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def failing(errors: list[BaseException], answer: str = "answer") -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """A call that raises each error once and then answers, and how often it was made."""
    calls: list[int] = []

    async def call() -> str:
        calls.append(len(calls))
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return answer

    return call, calls


@pytest.mark.parametrize(
    ("error", "on", "safe"),
    [
        (SAFE, (), True),
        (RateLimited("eu1", "429"), (), True),
        (StoreBusy("sqlite", "locked"), (), True),
        (StoreUnavailable("redis", "gone"), (), False),
        (Overloaded("gpu", 4, 1.0), (), False),
        (CircuitOpen("chat", 1.0), (), False),
        (ConnectionError(), (), False),
        (ConnectionResetError(), (ConnectionError,), True),
        (ValueError(), (ConnectionError,), False),
    ],
)
def test_only_errors_that_say_so_are_made_again(error: Exception, on: tuple[type[Exception], ...], safe: bool) -> None:
    assert is_safe(Retry(on=on), error) is safe


@pytest.mark.parametrize(
    ("attempt", "error", "backoff_s", "remaining_s", "wanted"),
    [
        (1, SAFE, 0.2, math.inf, Again(0.2)),
        (3, SAFE, 0.2, math.inf, Stop("attempts")),
        (1, ValueError(), 0.2, math.inf, Stop("unsafe")),
        (1, SAFE, 0.2, 0.1, Stop("time")),
        (1, SAFE, 0.2, 0.2, Stop("time")),
        (1, RateLimited("eu1", "429", retry_after_s=7.0), 0.2, 60.0, Again(7.0)),
        (1, RateLimited("eu1", "429", retry_after_s=7.0), 0.2, 5.0, Stop("time")),
        (1, RateLimited("eu1", "429", retry_after_s=45.0), 0.2, 60.0, Again(45.0)),
        (1, RateLimited("eu1", "429", retry_after_s=45.0), 0.2, math.inf, Stop("time")),
        (1, RateLimited("eu1", "429", retry_after_s=0.1), 0.2, 60.0, Again(0.2)),
    ],
)
def test_what_follows_a_failure(attempt: int, error: Exception, backoff_s: float, remaining_s: float, wanted: Again | Stop) -> None:
    assert decide(Retry(), attempt, error, backoff_s=backoff_s, remaining_s=remaining_s) == wanted


@given(
    attempt=st.integers(1, 20),
    asked_s=st.none() | st.floats(0, 1e4),
    remaining_s=st.floats(0, 1e4) | st.just(math.inf),
    attempts=st.integers(1, 20),
)
def test_no_attempt_is_early_or_after_the_deadline(attempt: int, asked_s: float | None, remaining_s: float, attempts: int) -> None:
    retry = Retry(attempts)
    backoff_s = retry.backoff_s(attempt)
    step = decide(retry, attempt, RateLimited("eu1", "429", retry_after_s=asked_s), backoff_s=backoff_s, remaining_s=remaining_s)
    if isinstance(step, Again):
        assert attempt < attempts
        assert (asked_s or 0.0) <= step.wait_s < remaining_s


@given(attempt=st.integers(1, 2000))
def test_waits_grow_at_random_up_to_the_most(attempt: int) -> None:
    retry = Retry(wait_s=0.2, max_wait_s=20.0)
    assert 0.1 <= retry.backoff_s(attempt) <= min(20.0, 0.2 * 2 ** min(attempt - 1, 30))


async def test_a_call_is_made_again_until_it_answers(clock: FakeClock) -> None:
    call, calls = failing([SAFE, SAFE])
    with using(PolicyState(clock)):
        async with anyio.create_task_group() as group:
            group.start_soon(later, clock, 60.0)
            assert await Policy("p", retry=Retry()).call(call) == "answer"
    assert len(calls) == 3


async def test_the_last_error_is_raised_as_it_was(clock: FakeClock) -> None:
    last = Unreachable("eu1", "last")
    call, calls = failing([SAFE, last])
    with using(PolicyState(clock)):
        async with anyio.create_task_group() as group:
            group.start_soon(later, clock, 60.0)
            with pytest.raises(Unreachable) as caught:
                await Policy("p", retry=Retry(attempts=2)).call(call)
            assert caught.value is last
    assert len(calls) == 2


async def test_a_wait_that_would_outlast_the_deadline_is_not_begun(clock: FakeClock) -> None:
    limited = RateLimited("eu1", "429", retry_after_s=30.0)
    call, calls = failing([limited])
    with using(PolicyState(clock)), pytest.raises(RateLimited):
        await Policy("p", timeout_s=10.0, retry=Retry()).call(call)
    assert len(calls) == 1
    assert clock.monotonic() == 0.0


async def test_a_park_is_never_made_again(clock: FakeClock) -> None:
    call, calls = failing([RunParked("park")])
    with using(PolicyState(clock)), pytest.raises(RunParked):
        await Policy("p", retry=Retry(on=(Exception,))).call(call)
    assert len(calls) == 1


async def test_a_cancellation_is_never_made_again() -> None:
    calls: list[int] = []

    async def call() -> None:
        calls.append(1)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(partial(Policy("p", retry=Retry(on=(Exception,))).call, call))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert calls == [1]


@pytest.mark.parametrize("kind", [BaseException, KeyboardInterrupt, RunParked])
def test_what_ends_a_program_or_a_run_cannot_be_asked_to_be_made_again(kind: type[BaseException]) -> None:
    with pytest.raises(InvalidSetting):
        Retry(on=(kind,))


@pytest.mark.parametrize("settings", [{"attempts": 0}, {"wait_s": -1.0}, {"wait_s": 5.0, "max_wait_s": 1.0}, {"wait_s": math.nan}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidSetting):
        Retry(**settings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@given(st.lists(st.booleans(), max_size=500))
def test_a_budget_pays_for_no_more_than_was_earned_and_saved(events: list[bool]) -> None:
    allowance = Allowance(ratio=0.1, most=5.0, start=5.0)
    tokens, paid, calls = allowance.start, 0, 0
    for is_call in events:
        if is_call:
            tokens, calls = earned(allowance, tokens), calls + 1
        elif may_pay(tokens):
            tokens, paid = tokens - 1, paid + 1
        assert -1e-6 <= tokens <= allowance.most
    assert paid <= allowance.start + 0.1 * calls + 1e-6


async def dead() -> None:
    raise SAFE


async def attempts_per_call(call: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]], clock: FakeClock) -> float:
    """How often a dead backend is asked per call, in the long run."""
    asked = 0

    async def backend() -> None:
        nonlocal asked
        asked += 1
        raise SAFE

    async def many(count: int) -> None:
        for _ in range(count):
            with pytest.raises(Unreachable):
                await call(backend)

    with using(PolicyState(clock)):
        await many(100)  # the savings of better times go first
        asked = 0
        await many(300)
    return asked / 300


NO_WAIT = Retry(attempts=5, wait_s=0.0, max_wait_s=1.0)


async def test_a_dead_backend_sees_hardly_more_attempts_than_calls(clock: FakeClock) -> None:
    policy = Policy("p", retry=NO_WAIT)
    assert 1.0 < await attempts_per_call(policy.call, clock) <= 1.2


async def test_attempts_of_layers_inside_one_another_do_not_multiply(clock: FakeClock) -> None:
    step, router, adapter = (Policy(name, retry=NO_WAIT) for name in ("step", "router", "adapter"))

    async def call(backend: Callable[[], Awaitable[None]]) -> None:
        await step.call(partial(router.call, partial(adapter.call, backend)))

    assert 1.0 < await attempts_per_call(call, clock) <= 1.2


def test_a_retry_is_paid_in_every_budget_around_it_or_in_none() -> None:
    outer, inner = Budget(Allowance(start=3.0)), Budget(Allowance(start=0.0))
    with Spending(outer), Spending(inner) as spending:
        before = outer.tokens
        assert not spending.pay()
        assert outer.tokens == before
        inner.tokens = 1.0
        assert spending.pay()
        assert (outer.tokens, inner.tokens) == (before - 1, 0.0)
        outer.tokens, inner.tokens = 0.5, 1.0
        assert not spending.pay()
        assert (outer.tokens, inner.tokens) == (0.5, 1.0)
        outer.tokens = before - 1
    with Spending(inner) as spending:
        inner.tokens = 1.0
        assert spending.pay()
        assert outer.tokens == before - 1


def test_a_policy_inside_itself_earns_once() -> None:
    budget = Budget(Allowance(start=0.0))
    with Spending(budget), Spending(budget) as spending:
        assert budget.tokens == 0.1
        budget.tokens = 1.0
        assert spending.pay()
        assert budget.tokens == 0.0
