"""One policy: its order, its streams, its words to telemetry, fallback, and that nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentkit import telemetry
from agentkit.errors import (
    CircuitOpen,
    DeadlineExceeded,
    InvalidSetting,
    NoTimeLeft,
    Overloaded,
    RateLimited,
    RequestRefused,
    Unreachable,
)
from agentkit.inmemory.limits import InMemoryLimits
from agentkit.resilience.circuit_breaker import CircuitBreaker
from agentkit.resilience.fallback import fallback, moves_on
from agentkit.resilience.policy import Policy
from agentkit.resilience.rate_limit import RateLimit, used
from agentkit.resilience.retry import Retry
from agentkit.resilience.semaphore import Permits, Semaphore
from agentkit.resilience.state import PolicyState, current, using
from agentkit.testing.clock import FakeClock
from tests.core.policies import YieldingLimits, later, sleep_under
from tests.core.spans import exported

SAFE = Unreachable("eu1", "refused")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def nothing() -> None:
    await anyio.lowlevel.checkpoint()


async def fail(error: Exception = SAFE) -> None:
    await anyio.lowlevel.checkpoint()
    raise error


def failing(error: Exception) -> Callable[[], Awaitable[None]]:
    return partial(fail, error)


def full(name: str = "p", *, shared: bool = False) -> Policy:
    """All parts at once."""
    return Policy(
        name,
        timeout_s=60.0,
        retry=Retry(),
        breaker=CircuitBreaker(),
        limits=[RateLimit("r", rpm=600, tpm=6000, shared=shared), Semaphore("b", 2, shared=shared), Semaphore("a", 2)],
        hedge=True,
    )


async def test_arguments_and_answers_pass_through(clock: FakeClock) -> None:
    async def add(one: int, other: int) -> int:
        await nothing()
        return one + other

    for policy in (Policy(), full(), full(shared=True)):
        with using(PolicyState(clock, limits=InMemoryLimits(clock))):
            assert await policy.call(add, 3, 4) == 7


async def test_semaphores_come_first_by_name_and_then_rates() -> None:
    assert [limit.name for limit in full().limits] == ["a", "b", "r"]


async def test_a_wait_between_attempts_holds_no_permit(clock: FakeClock) -> None:
    policy = Policy("p", retry=Retry(wait_s=5.0), limits=[Semaphore("one", 1, max_wait_s=0.0)])
    with using(PolicyState(clock)):
        async with anyio.create_task_group() as group:

            async def retrying() -> None:
                with pytest.raises(Unreachable):
                    await policy.call(fail)

            group.start_soon(retrying)
            await anyio.wait_all_tasks_blocked()
            assert clock.sleepers == 1
            await policy.call(nothing)
            await clock.advance(60.0)


async def test_each_attempt_is_seen_by_the_circuit(clock: FakeClock) -> None:
    policy = Policy("p", retry=Retry(attempts=3, wait_s=0.0, max_wait_s=1.0), breaker=CircuitBreaker(min_calls=3))
    with using(PolicyState(clock)):
        with pytest.raises(Unreachable):
            await policy.call(fail)
        with pytest.raises(CircuitOpen):
            await policy.call(nothing)


async def test_the_circuit_that_opens_while_a_call_waits_in_line_refuses_it(clock: FakeClock) -> None:
    policy = Policy("p", breaker=CircuitBreaker(min_calls=1), limits=[Semaphore("one", 1)])
    answers: list[str] = []

    async def call() -> None:
        try:
            await policy.call(fail)
        except (Unreachable, CircuitOpen) as exc:
            answers.append(type(exc).__name__)

    with using(PolicyState(clock)):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)
    assert sorted(answers) == ["CircuitOpen", "CircuitOpen", "Unreachable"]


async def test_time_that_goes_by_in_a_line_is_said_to_be_that(clock: FakeClock) -> None:
    policy = Policy("p", timeout_s=5.0, limits=[Semaphore("one", 1, max_wait_s=60.0)])
    with using(PolicyState(clock)):
        async with anyio.create_task_group() as group:
            group.start_soon(partial(Policy("q", limits=[Semaphore("one", 1)]).call, anyio.sleep_forever))
            await anyio.wait_all_tasks_blocked()
            group.start_soon(later, clock, 5.0)
            with pytest.raises(NoTimeLeft):
                await policy.call(nothing)
            group.cancel_scope.cancel()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("turns", range(40))
async def test_a_cancellation_at_any_turn_leaves_nothing_held(clock: FakeClock, shared: bool, turns: int) -> None:
    with using(PolicyState(clock, limits=YieldingLimits(clock))) as state:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(partial(full(shared=shared).call, nothing))
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert state.part("semaphore", "a", (2, False, False), partial(Permits, "a", 2, clock)).held == 0
        await Policy("q", timeout_s=0.5, limits=[Semaphore("b", 2, shared=shared, weight=2)]).call(nothing)
        await Policy("r", timeout_s=0.5, limits=[RateLimit("r", rpm=600, tpm=6000, shared=shared)]).call(nothing)


class Stream:
    """A stream that knows whether it is open."""

    def __init__(self) -> None:
        self.opened, self.open = 0, 0

    @asynccontextmanager
    async def __call__(self, failures: int = 0) -> AsyncGenerator[int]:
        self.opened += 1
        await anyio.lowlevel.checkpoint()
        if self.opened <= failures:
            raise SAFE
        self.open += 1
        try:
            yield self.opened
        finally:
            self.open -= 1


async def test_a_stream_holds_what_was_granted_until_it_is_closed(clock: FakeClock) -> None:
    stream, one = Stream(), [Semaphore("one", 1, max_wait_s=0.0)]
    with using(PolicyState(clock)):
        async with Policy("p", limits=one).stream(stream):
            assert stream.open == 1
            with pytest.raises(Overloaded):
                await Policy("q", limits=one).call(nothing)
        assert stream.open == 0
        await Policy("q", limits=one).call(nothing)


async def test_opening_a_stream_is_retried_what_comes_after_is_not(clock: FakeClock) -> None:
    stream = Stream()
    policy = Policy("p", retry=Retry(wait_s=0.0, max_wait_s=1.0))
    with using(PolicyState(clock)):
        async with policy.stream(stream, 2) as number:
            assert number == 3
        with pytest.raises(Unreachable):
            async with policy.stream(stream):
                raise SAFE
    assert (stream.opened, stream.open) == (4, 0)


@pytest.mark.parametrize("shared", [False, True])
async def test_leaving_a_stream_early_closes_it_at_once(clock: FakeClock, shared: bool) -> None:
    stream = Stream()
    with using(PolicyState(clock, limits=InMemoryLimits(clock))):
        for _ in range(3):
            async with full(shared=shared).stream(stream):
                break
        assert stream.open == 0
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                async with full(shared=shared).stream(stream):
                    await anyio.sleep_forever()

            group.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            assert stream.open == 1
            group.cancel_scope.cancel()
        assert stream.open == 0


async def test_an_error_of_the_block_leaves_a_stream_as_it_is(clock: FakeClock) -> None:
    with using(PolicyState(clock, limits=InMemoryLimits(clock))), pytest.raises(KeyError, match="mine"):
        async with full(shared=True).stream(Stream()):
            raise KeyError("mine")


async def test_outside_of_a_runtime_an_event_loop_has_one_state() -> None:
    assert current() is current()
    with using(PolicyState()) as state:
        assert current() is state
    assert current() is not state


def test_the_loops_of_two_programs_know_nothing_of_each_other() -> None:
    async def mine() -> PolicyState:
        return current()

    assert anyio.run(mine) is not anyio.run(mine)


@pytest.mark.parametrize(
    ("error", "moves"),
    [
        (SAFE, True),
        (RateLimited("eu1", "429"), True),
        (CircuitOpen("eu1", 1.0), True),
        (Overloaded("gpu", 1, 1.0), True),
        (RequestRefused("eu1", "bad"), False),
        (DeadlineExceeded("eu1", 1.0), False),
        (ValueError(), False),
    ],
)
def test_the_next_alternative_is_asked_after_errors_that_say_so(error: Exception, moves: bool) -> None:
    assert moves_on(error) is moves
    assert moves_on(error, (ValueError,)) is (moves or isinstance(error, ValueError))
    assert not moves_on(error, remaining_s=0.0)


async def test_alternatives_are_asked_in_order_until_one_answers() -> None:
    asked: list[str] = []

    async def first(_: str) -> str:
        asked.append("first")
        raise SAFE

    async def second(text: str) -> str:
        asked.append("second")
        return text

    async def third(_: str) -> str:
        raise AssertionError("nobody asks after an answer")

    assert await fallback([first, second, third], "hello") == "hello"
    assert asked == ["first", "second"]


async def test_the_last_error_names_those_before_it() -> None:
    with pytest.raises(RateLimited) as caught:
        await fallback([failing(SAFE), failing(RateLimited("eu2", "429"))])
    assert any("Unreachable" in note for note in caught.value.__notes__)
    with pytest.raises(ValueError):
        await fallback([failing(ValueError()), nothing])
    with pytest.raises(InvalidSetting):
        await fallback([])


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    with exported(monkeypatch) as exporter:
        yield exporter


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    for what in vars(telemetry).values():
        if isinstance(what, telemetry.Event | telemetry.Histogram):
            monkeypatch.delitem(what.__dict__, "_instrument", raising=False)
    monkeypatch.setattr(telemetry, "_live", True)
    monkeypatch.setattr(telemetry, "_meter", lambda: provider.get_meter(telemetry.SCOPE))
    yield reader
    for what in vars(telemetry).values():
        if isinstance(what, telemetry.Event | telemetry.Histogram):
            what.__dict__.pop("_instrument", None)
    provider.shutdown()


async def test_each_layer_says_on_the_span_and_in_metrics_what_it_did(
    clock: FakeClock, exporter: InMemorySpanExporter, reader: InMemoryMetricReader
) -> None:
    policy = Policy(
        "p", timeout_s=30.0, retry=Retry(wait_s=0.0, max_wait_s=1.0), breaker=CircuitBreaker(min_calls=3), limits=[Semaphore("s", 1)]
    )
    with using(PolicyState(clock)), telemetry.span(telemetry.STEP):
        async with anyio.create_task_group() as group:
            group.start_soon(sleep_under, Policy("q", limits=[Semaphore("s", 1)]), clock, 2.0)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(later, clock, 2.0)
            with pytest.raises(Unreachable):
                await policy.call(fail)
        with pytest.raises(CircuitOpen):
            await policy.call(nothing)
        async with anyio.create_task_group() as group:
            group.start_soon(later, clock, 1.0)
            with pytest.raises(DeadlineExceeded):
                await Policy("hangs", timeout_s=1.0).call(anyio.sleep_forever)
        await fallback([failing(SAFE), nothing])
    (span,) = exporter.get_finished_spans()
    events = [event.name for event in span.events]
    rows = (
        telemetry.LIMIT_WAITED,
        telemetry.RETRIED,
        telemetry.RETRIED,
        telemetry.CIRCUIT_CHANGED,
        telemetry.NOT_RETRIED,
        telemetry.CIRCUIT_REFUSED,
        telemetry.NOT_RETRIED,
        telemetry.CUT_OFF,
        telemetry.FELL_BACK,
    )
    assert events == [row.row.name for row in rows]
    waited = next(event for event in span.events if event.name == telemetry.LIMIT_WAITED.row.name)
    assert waited.attributes == {telemetry.LIMIT: "s", telemetry.WAIT: 2.0}
    data = reader.get_metrics_data()
    assert data is not None
    counted = {metric.name for r in data.resource_metrics for scope in r.scope_metrics for metric in scope.metrics}
    assert counted >= {*events, telemetry.LIMIT_SECONDS.row.name}
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_cancellation_by_asyncio_itself_passes_through_every_layer(clock: FakeClock) -> None:
    async def main() -> None:
        with using(PolicyState(clock, limits=InMemoryLimits(clock))):
            task = asyncio.get_running_loop().create_task(full(shared=True).call(anyio.sleep_forever))
            await anyio.wait_all_tasks_blocked()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await full(shared=True).call(anyio.sleep_forever)
            await Policy("q", timeout_s=0.5, limits=[Semaphore("b", 2, shared=True, weight=2)]).call(nothing)

    asyncio.run(main())


def test_a_cancellation_by_asyncio_while_a_rate_is_settled_leaves_no_permit_behind(clock: FakeClock) -> None:
    """It knows no shield, so what is given back after the rate must be given back all the same."""

    class Slow(InMemoryLimits):
        async def settle(self, name: str, key: str, actual: float) -> None:
            await anyio.sleep_forever()

    async def use() -> None:
        used(5)
        await nothing()

    async def main() -> None:
        policy = Policy("p", timeout_s=0.5, limits=[Semaphore("a", 1), RateLimit("r", tpm=600, shared=True)])
        with using(PolicyState(clock, limits=Slow(clock))) as state:
            task = asyncio.get_running_loop().create_task(policy.call(use))
            await anyio.wait_all_tasks_blocked()
            permits = state.part("semaphore", "a", (1, False, False), partial(Permits, "a", 1, clock))
            assert permits.held == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert permits.held == 0

    asyncio.run(main())
