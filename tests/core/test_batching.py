"""Micro-batching: many small calls made as one, each with its own end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.errors import BatchClosed, InvalidSetting, Misuse, Overloaded
from agentkit.inference.batching import MicroBatch
from agentkit.testing.clock import FakeClock
from tests.core.policies import later


class Backend:
    """Doubles numbers, many at a time; a negative one is an error, and it answers when it is let."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.let = anyio.Event()
        self.let.set()
        self.cancelled = 0

    async def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.seen.append(list(items))
        try:
            await self.let.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        return [ValueError(f"{item} is negative") if item < 0 else 2 * item for item in items]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def backend() -> Backend:
    return Backend()


@pytest.fixture
async def batch(backend: Backend, clock: FakeClock) -> AsyncIterator[MicroBatch[int, int]]:
    async with MicroBatch(backend, max_size=3, max_wait_s=1.0, max_parallel=1, clock=clock) as batch:
        yield batch


class Callers:
    """Calls made at once, and what came of each."""

    def __init__(self, batch: MicroBatch[int, int]) -> None:
        self.batch = batch
        self.came: dict[int, int | Exception] = {}

    async def call(self, item: int) -> None:
        try:
            self.came[item] = await self.batch(item)
        except Exception as exc:
            self.came[item] = exc


async def test_a_full_batch_is_sent_at_once_and_each_caller_gets_its_own_answer(batch: MicroBatch[int, int], backend: Backend) -> None:
    callers = Callers(batch)
    async with anyio.create_task_group() as group:
        for item in (1, 2, 3):
            group.start_soon(callers.call, item)
    assert [sorted(items) for items in backend.seen] == [[1, 2, 3]]
    assert callers.came == {1: 2, 2: 4, 3: 6}


async def test_a_batch_that_does_not_fill_is_sent_when_its_first_item_has_waited_long_enough(
    batch: MicroBatch[int, int], backend: Backend, clock: FakeClock
) -> None:
    callers = Callers(batch)
    async with anyio.create_task_group() as group:
        group.start_soon(callers.call, 1)
        await later(clock, 0.5)
        group.start_soon(callers.call, 2)
        await later(clock, 0.25)
        assert backend.seen == []
        await later(clock, 0.25)
        assert backend.seen == [[1, 2]]


async def test_a_cancelled_caller_is_left_out_and_the_others_are_not_touched(
    batch: MicroBatch[int, int], backend: Backend, clock: FakeClock
) -> None:
    callers = Callers(batch)
    async with anyio.create_task_group() as group:
        group.start_soon(callers.call, 1)
        async with anyio.create_task_group() as leaving:
            leaving.start_soon(callers.call, 2)
            await anyio.wait_all_tasks_blocked()
            leaving.cancel_scope.cancel()
        await later(clock, 1.0)
    assert backend.seen == [[1]]
    assert callers.came == {1: 2}


async def test_a_caller_cancelled_under_way_costs_the_others_nothing_and_the_last_one_cancels_the_call(
    batch: MicroBatch[int, int], backend: Backend, clock: FakeClock
) -> None:
    backend.let = anyio.Event()
    callers = Callers(batch)
    async with anyio.create_task_group() as first, anyio.create_task_group() as second:
        first.start_soon(callers.call, 1)
        second.start_soon(callers.call, 2)
        await later(clock, 1.0)
        assert len(backend.seen) == 1
        first.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert backend.cancelled == 0
        second.cancel_scope.cancel()
    await anyio.wait_all_tasks_blocked()
    assert backend.cancelled == 1
    backend.let.set()
    async with anyio.create_task_group() as group:
        for item in (4, 5, 6):
            group.start_soon(callers.call, item)
    assert callers.came == {4: 8, 5: 10, 6: 12}


async def test_an_error_of_one_item_is_raised_to_its_caller_alone(batch: MicroBatch[int, int], backend: Backend) -> None:
    callers = Callers(batch)
    async with anyio.create_task_group() as group:
        for item in (1, -2, 3):
            group.start_soon(callers.call, item)
    assert (callers.came[1], callers.came[3]) == (2, 6)
    assert str(callers.came[-2]) == "-2 is negative"


async def test_an_error_of_the_call_is_raised_to_all_and_the_next_batch_is_sent_all_the_same(clock: FakeClock) -> None:
    calls = 0

    async def flaky(items: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("down")
        return list(items)

    async with MicroBatch(flaky, max_size=2, clock=clock) as batch:
        for expected in (OSError, int):
            callers = Callers(batch)
            async with anyio.create_task_group() as group:
                group.start_soon(callers.call, 1)
                group.start_soon(callers.call, 2)
            assert [type(callers.came[item]) for item in (1, 2)] == [expected, expected]


async def test_a_function_that_gives_too_few_results_is_misused(clock: FakeClock) -> None:
    async def forgetful(items: Sequence[int]) -> list[int]:
        await anyio.lowlevel.checkpoint()
        return list(items)[1:]

    async with MicroBatch(forgetful, max_size=1, clock=clock) as batch:
        with pytest.raises(Misuse, match="gave 0 results for 1 items"):
            await batch(1)


async def test_while_all_places_are_taken_the_next_batch_grows(batch: MicroBatch[int, int], backend: Backend, clock: FakeClock) -> None:
    backend.let = anyio.Event()
    callers = Callers(batch)
    async with anyio.create_task_group() as group:
        group.start_soon(callers.call, 1)
        await later(clock, 1.0)
        for item in (2, 3, 4):
            group.start_soon(callers.call, item)
            await later(clock, 2.0)
        assert backend.seen == [[1]]
        backend.let.set()
    assert backend.seen == [[1], [2, 3, 4]]


async def test_over_the_limit_of_waiting_items_a_caller_is_refused_at_once(backend: Backend, clock: FakeClock) -> None:
    async with MicroBatch(backend, max_size=10, max_wait_s=1.0, max_waiting=2, clock=clock) as batch:
        callers = Callers(batch)
        async with anyio.create_task_group() as group:
            group.start_soon(callers.call, 1)
            group.start_soon(callers.call, 2)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await batch(3)
            await later(clock, 1.0)
    assert callers.came == {1: 2, 2: 4}


async def test_closing_sends_what_waits_without_waiting_longer_and_refuses_what_comes(backend: Backend, clock: FakeClock) -> None:
    callers = Callers(batch := MicroBatch(backend, max_size=10, max_wait_s=1.0, clock=clock))
    async with anyio.create_task_group() as group, batch:
        group.start_soon(callers.call, 1)
        await anyio.wait_all_tasks_blocked()
    assert callers.came == {1: 2}
    with pytest.raises(BatchClosed):
        await batch(2)


async def test_a_block_that_fails_cuts_off_its_calls_and_tells_which_were_sent(backend: Backend, clock: FakeClock) -> None:
    backend.let = anyio.Event()
    callers = Callers(batch := MicroBatch(backend, max_size=1, max_wait_s=1.0, max_parallel=1, clock=clock))
    async with anyio.create_task_group() as group:

        async def fails() -> None:
            async with batch:
                group.start_soon(callers.call, 1)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(callers.call, 2)
                await anyio.wait_all_tasks_blocked()
                raise OSError("the app is at its end")

        with pytest.raises(OSError, match="at its end"):
            await fails()
    assert {item: error.sent for item, error in callers.came.items() if isinstance(error, BatchClosed)} == {1: True, 2: False}


async def test_a_block_that_is_cancelled_ends_its_calls_and_stays_cancelled(backend: Backend, clock: FakeClock) -> None:
    backend.let = anyio.Event()
    callers = Callers(batch := MicroBatch(backend, max_size=1, clock=clock))

    async def stay() -> None:
        async with batch:
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group, anyio.create_task_group() as owner:
        owner.start_soon(stay)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(callers.call, 1)
        await anyio.wait_all_tasks_blocked()
        owner.cancel_scope.cancel()
    assert backend.cancelled == 1
    assert isinstance(callers.came[1], BatchClosed)


@pytest.mark.parametrize("wrong", [{"max_size": 0}, {"max_wait_s": 0.0}, {"max_waiting": 0}, {"max_parallel": 0}])
async def test_settings_that_make_no_sense_are_refused(backend: Backend, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting):
        MicroBatch[int, int](backend, **wrong)


items = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 6), st.booleans()), max_size=20, unique_by=lambda item: item[0])


@settings(max_examples=50)
@given(items, st.integers(1, 5), st.integers(1, 3), st.sampled_from(["asyncio", "trio"]))
def test_whoever_comes_and_goes_each_item_is_sent_at_most_once_and_answered_by_its_own_result(
    drawn: list[tuple[int, int, bool]], max_size: int, max_parallel: int, backend_name: str
) -> None:
    async def all_of_it() -> None:
        backend, clock = Backend(), FakeClock()
        async with MicroBatch(backend, max_size=max_size, max_wait_s=1.0, max_parallel=max_parallel, clock=clock) as batch:
            callers = Callers(batch)

            async def come(item: int, turns: int, leaves: bool) -> None:
                async with anyio.create_task_group() as group:
                    group.start_soon(callers.call, item)
                    for _ in range(turns):
                        await anyio.lowlevel.checkpoint()
                    if leaves:
                        group.cancel_scope.cancel()

            async with anyio.create_task_group() as group:
                for one in drawn:
                    group.start_soon(come, *one)
                while len(callers.came) < sum(not leaves for _, _, leaves in drawn):
                    await later(clock, 1.0)
        sent = [item for items in backend.seen for item in items]
        assert len(sent) == len(set(sent))
        assert all(len(items) <= max_size for items in backend.seen)
        for item, came in callers.came.items():
            assert came == 2 * item if item >= 0 else isinstance(came, ValueError)
        assert {item for item, _, leaves in drawn if not leaves} <= set(callers.came)

    anyio.run(all_of_it, backend=backend_name)
