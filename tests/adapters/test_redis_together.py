"""Calls of concurrent tasks share round trips, and nobody's trouble is another's."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from agentkit.errors import StoreUnavailable
from agentkit_redis.together import Together


class Server:
    """Answers a number by its double, in round trips that end when the test says so."""

    def __init__(self) -> None:
        self.trips: list[list[int]] = []
        self.answered = anyio.Event()
        self.fails = False

    async def send(self, numbers: Sequence[int]) -> Sequence[int]:
        self.trips.append(list(numbers))
        await self.answered.wait()
        if self.fails:
            raise StoreUnavailable("server", "gone")
        return [2 * number for number in numbers]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def double(server: Server) -> Together[int, int]:
    return Together(server.send, lambda number: number, most=10)


async def idle() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_what_comes_while_a_round_trip_is_on_its_way_goes_with_the_next_in_order(server: Server, double: Together[int, int]) -> None:
    told: dict[int, int] = {}

    async def ask(number: int) -> None:
        told[number] = await double(number)

    async with anyio.create_task_group() as group:
        for number in (1, 2, 3, 4):
            group.start_soon(ask, number)
            await idle()
        server.answered.set()
    assert server.trips == [[1], [2, 3, 4]]
    assert told == {1: 2, 2: 4, 3: 6, 4: 8}


async def test_a_round_trip_carries_no_more_than_its_weight_unless_one_ask_is_heavier(server: Server, double: Together[int, int]) -> None:
    async with anyio.create_task_group() as group:
        for number in (1, 6, 5, 20, 3):
            group.start_soon(double, number)
            await idle()
        server.answered.set()
    assert server.trips == [[1], [6], [5], [20], [3]]


async def test_a_failure_is_raised_to_each_who_took_part_and_the_next_round_trip_goes_out(
    server: Server, double: Together[int, int]
) -> None:
    server.fails = True
    failed: list[int] = []

    async def ask(number: int) -> None:
        try:
            await double(number)
        except StoreUnavailable:
            failed.append(number)

    async with anyio.create_task_group() as group:
        for number in (1, 2, 3):
            group.start_soon(ask, number)
            await idle()
        server.answered.set()
    assert sorted(failed) == [1, 2, 3]
    server.fails = False
    assert await double(4) == 8


@pytest.mark.parametrize("cancelled", [1, 2, 3])
async def test_a_caller_that_is_cancelled_takes_nobody_along(server: Server, double: Together[int, int], cancelled: int) -> None:
    told: dict[int, int] = {}
    scopes = {number: anyio.CancelScope() for number in (1, 2, 3)}

    async def ask(number: int) -> None:
        with scopes[number]:
            told[number] = await double(number)

    async with anyio.create_task_group() as group:
        for number in scopes:
            group.start_soon(ask, number)
            await idle()
        scopes[cancelled].cancel()
        await idle()
        server.answered.set()
    assert {number: 2 * number for number in scopes if number != cancelled}.items() <= told.items()
    assert await double(4) == 8


async def test_an_ask_that_was_not_sent_is_taken_back_by_its_cancellation(server: Server, double: Together[int, int]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(double, 1)
        await idle()
        with anyio.move_on_after(0):
            await double(2)
        server.answered.set()
    assert server.trips == [[1]]
