"""What takes longer than it may on a server is given up at its own time, with one timer for all."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from agentkit_sql.server import Watch

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def given_up(watch: Watch, within_s: float, takes_s: float) -> bool:
    """Whether something that takes so long is cut."""
    scope = watch.begin(within_s)
    try:
        with scope:
            await anyio.sleep(takes_s)
    finally:
        watch.end(scope)
    return scope.cancelled_caught


async def test_what_ends_in_time_is_let_be_and_what_does_not_is_given_up() -> None:
    watch = Watch(asyncio.get_running_loop())
    assert not await given_up(watch, 60, 0)
    assert await given_up(watch, 0.02, 60)
    assert not await given_up(watch, 60, 0.03)
    assert await given_up(watch, 0.02, 60)


async def test_a_short_time_counts_although_a_long_one_began_before() -> None:
    watch = Watch(asyncio.get_running_loop())
    long = watch.begin(60)
    with long:
        assert await given_up(watch, 0.02, 60)
        assert await given_up(watch, 0.02, 60)
    watch.end(long)
    assert not long.cancelled_caught


async def test_a_caller_that_is_cancelled_does_not_cut_what_is_begun() -> None:
    watch = Watch(asyncio.get_running_loop())
    done = anyio.Event()
    scope = watch.begin(60)
    with anyio.CancelScope() as caller:
        with scope:
            caller.cancel()
            await anyio.sleep(0.01)
            done.set()
        watch.end(scope)
        await anyio.sleep(60)
    assert done.is_set()
    assert caller.cancelled_caught
    assert not scope.cancelled_caught


async def test_when_nothing_is_begun_nothing_waits_in_the_loop() -> None:
    watch = Watch(asyncio.get_running_loop())
    assert await given_up(watch, 0.01, 60)
    assert watch.timer is None
