"""What the conformance suites share: time that a test moves, racing, and abilities asked by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import pytest

from agentkit.testing.clock import FakeClock

T = TypeVar("T")
Advance = Callable[[float], Awaitable[None]]

STEPS = 50  # time moves in so many steps, so that "within 1.25 leases" is seen to a hundredth of it
SETTLE_S = 0.004  # of real time after each step, for adapters that work in a thread or on a server
RACE_S = 50.0  # of real time for all of a race: a law that is broken must not hang
GRACE_S = 10.0  # of real time for an answer that is due: generous, as a slow machine is no failure


class Contract:
    """The base of every suite.

    Subclass a suite as `TestSomething`, in a file of tests, and give it the fixture that it names. Time is `clock` and `advance`: hand
    `clock` to the adapter; one that keeps a server's time overrides `advance` with a real sleep and shortens `lease_s`.
    """

    pytestmark = pytest.mark.anyio

    lease_s: float = 30.0
    """The lease that the tests ask for. With real time as short as the adapter can measure well."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def advance(self, clock: FakeClock) -> Advance:
        return clock.advance


def needs(able: bool, ability: str) -> None:
    """Skip, visibly, a law about an optional ability that this adapter says it lacks."""
    if not able:
        raise pytest.skip.Exception(f"{ability} = False: not offered by this adapter")


async def race(*works: Callable[[], Awaitable[T]]) -> list[T | Exception]:
    """Start all at once; what each returned or raised, in their order. Raises `TimeoutError` when one of them does not end."""
    outcomes: dict[int, T | Exception] = {}
    start = anyio.Event()

    async def run(number: int, work: Callable[[], Awaitable[T]]) -> None:
        await start.wait()
        try:
            outcomes[number] = await work()
        except Exception as exc:  # noqa: BLE001  the caller asserts on it
            outcomes[number] = exc

    with anyio.fail_after(RACE_S):
        async with anyio.create_task_group() as group:
            for number, work in enumerate(works):
                group.start_soon(run, number, work)
            start.set()
    return [outcomes[number] for number in range(len(works))]


async def later(work: Callable[[], Awaitable[T]]) -> T:
    """Do `work` when what was started before it has had time to wait."""
    await anyio.sleep(5 * SETTLE_S)
    return await work()


async def as_time_passes(advance: Advance, limit_s: float, work: Callable[[], Awaitable[T]]) -> tuple[T, float]:
    """Do `work` while time moves by up to `limit_s`; returns its result and how far time had moved by then.

    Raises:
        AssertionError: it was not done when all that time had passed.
    """
    results: list[T] = []
    passed_s = 0.0
    done = anyio.Event()

    async def run() -> None:
        results.append(await work())
        done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(SETTLE_S)
        for step in range(STEPS):
            if done.is_set():
                break
            await advance(limit_s / STEPS)
            passed_s = limit_s * (step + 1) / STEPS
            await anyio.sleep(SETTLE_S)
        with anyio.move_on_after(GRACE_S):
            await done.wait()
        group.cancel_scope.cancel()
    assert results, f"not done after {limit_s:g} s"
    return results[0], passed_s
