"""A circuit that processes share: all hear of it, one probes, and without the store each goes on by itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import CircuitOpen, StoreUnavailable
from agentkit.inmemory.values import InMemoryValues
from agentkit.ports.values import Value
from agentkit.resilience.circuit_breaker import CircuitBreaker, Closed, HalfOpen, Open, State
from agentkit.resilience.circuit_sharing import LOOK_EVERY_S, PREFIX, SharedCircuit, adopt, word
from agentkit.resilience.policy import Policy
from agentkit.resilience.state import PolicyState, using
from agentkit.testing.clock import FakeClock

B = CircuitBreaker(min_calls=2, open_s=10.0, slow_s=5.0, probes=2, shared=True)
POLICY = Policy("p", breaker=B)


class Process:
    """One process: its own state, and stores that it shares."""

    def __init__(self, clock: FakeClock, values: InMemoryValues) -> None:
        self.state = PolicyState(clock, values=values)
        self.sent = 0

    async def call(self, *, fails: bool = False) -> str:
        """What came of one call."""

        async def backend() -> None:
            self.sent += 1
            if fails:
                raise ConnectionError

        with using(self.state):
            try:
                await POLICY.call(backend)
            except CircuitOpen:
                return "refused"
            except ConnectionError:
                return "failed"
        return "ok"

    async def open_it(self) -> None:
        assert [await self.call(fails=True) for _ in range(2)] == ["failed", "failed"]
        assert await self.call() == "refused"  # and says so, on the way in


class Away(InMemoryValues):
    """A values store that can go away."""

    away = False

    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        if self.away:
            raise StoreUnavailable("values", "gone")
        return await super().get(keys)

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        if self.away:
            raise StoreUnavailable("values", "gone")
        return await super().put(key, value, expected=expected, ttl_s=ttl_s)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def values(clock: FakeClock) -> Away:
    return Away(clock)


@pytest.fixture
def processes(clock: FakeClock, values: Away) -> list[Process]:
    return [Process(clock, values) for _ in range(4)]


states = st.sampled_from([Closed(3), Open(3, until=5.0), Open(3, until=500.0), HalfOpen(3, until=5.0)])


@given(state=states, said=st.sampled_from([b"open", b"probing", b"closed", b"of a later version", None]), now=st.floats(0, 1000))
def test_what_others_say_is_adopted_for_no_longer_than_until_the_next_look(state: State, said: bytes | None, now: float) -> None:
    heard = adopt(state, said, now)
    if said in {b"open", b"probing"}:
        assert isinstance(heard, Open)
        assert heard.until == now + LOOK_EVERY_S
    elif said == b"closed" and isinstance(state, Open):
        assert isinstance(heard, Closed)
        assert heard.era > state.era
    else:
        assert heard == state


def test_each_state_has_its_word_and_how_long_it_holds() -> None:
    said = [word(B, state) for state in (Open(1, 0.0), HalfOpen(1, 0.0), Closed(1))]
    assert said == [(b"open", 10.0), (b"probing", 5.0), (b"closed", 10.0)]


async def test_a_process_hears_within_a_second_that_another_has_opened_it(clock: FakeClock, processes: list[Process]) -> None:
    first, second, *_ = processes
    assert await second.call() == "ok"
    await first.open_it()
    await clock.advance(LOOK_EVERY_S)
    assert await second.call() == "refused"
    assert second.sent == 1


async def test_it_stays_open_as_long_as_the_one_who_opened_it_said(clock: FakeClock, processes: list[Process]) -> None:
    first, second, *_ = processes
    await first.open_it()
    for _ in range(9):
        await clock.advance(1.0)
        assert await second.call() == "refused"
    await clock.advance(2.0)
    assert await second.call() == "ok"


async def test_one_process_probes_for_all_and_the_others_hear_that_it_closed(clock: FakeClock, processes: list[Process]) -> None:
    first, *others = processes
    await first.open_it()
    for process in others:
        await clock.advance(0.1)
        assert await process.call() == "refused"
    await clock.advance(B.open_s)
    answers = [await process.call() for process in processes]
    assert answers == ["ok", "refused", "refused", "refused"]
    assert await first.call() == "ok"  # its second probe closes it
    assert await first.call() == "ok"  # and this call says so
    await clock.advance(LOOK_EVERY_S)
    assert [await process.call() for process in processes] == ["ok"] * 4


async def test_a_probe_that_fails_keeps_it_open_for_all(clock: FakeClock, processes: list[Process]) -> None:
    first, second, *_ = processes
    await first.open_it()
    assert await second.call() == "refused"
    await clock.advance(B.open_s)
    assert await second.call(fails=True) == "failed"
    assert await second.call() == "refused"
    for _ in range(9):
        await clock.advance(1.0)
        assert [await process.call() for process in processes] == ["refused"] * 4


async def test_a_process_that_dies_while_it_probes_holds_the_others_up_for_slow_s_only(
    clock: FakeClock, values: Away, processes: list[Process]
) -> None:
    first, second, *_ = processes
    await first.open_it()
    assert await second.call() == "refused"
    await clock.advance(B.open_s)
    await values.put(f"{PREFIX}p", b"probing", ttl_s=B.slow_s)  # by one who is never heard of again
    assert await second.call() == "refused"
    await clock.advance(B.slow_s + LOOK_EVERY_S)
    assert await second.call() == "ok"


async def test_without_the_store_each_process_goes_on_by_itself(clock: FakeClock, values: Away, processes: list[Process]) -> None:
    first, second, *_ = processes
    values.away = True
    await first.open_it()
    await clock.advance(LOOK_EVERY_S)
    assert await second.call() == "ok"
    await clock.advance(B.open_s)
    assert [await first.call() for _ in range(3)] == ["ok"] * 3
    values.away = False
    await clock.advance(LOOK_EVERY_S)
    assert await first.call() == "ok"


async def test_what_could_not_be_said_while_the_store_was_away_is_said_at_the_next_look(
    clock: FakeClock, values: Away, processes: list[Process]
) -> None:
    first, second, *_ = processes
    values.away = True
    await first.open_it()
    values.away = False
    await clock.advance(LOOK_EVERY_S)
    assert await first.call() == "refused"
    assert await second.call() == "refused"
    assert second.sent == 0


async def test_a_circuit_without_a_values_store_is_known_here_only(clock: FakeClock) -> None:
    with using(PolicyState(clock)) as state:
        await POLICY.call(clock.sleep, 0.0)
        assert not isinstance(state.part("circuit", "p", B, lambda: None), SharedCircuit)


async def test_while_all_is_well_the_store_is_read_once_a_second_and_never_written(clock: FakeClock) -> None:
    asked: list[str] = []

    class Counting(InMemoryValues):
        async def get(self, keys: Sequence[str]) -> dict[str, Value]:
            asked.append("get")
            return await super().get(keys)

        async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
            asked.append("put")
            return await super().put(key, value, expected=expected, ttl_s=ttl_s)

    process = Process(clock, Counting(clock))
    for _ in range(100):
        assert await process.call() == "ok"
        await clock.advance(0.1)
    assert "put" not in asked
    assert 9 <= len(asked) <= 11
