"""Time, as something that can be handed in: the system's, or in tests one that tests advance."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Clock(Protocol):
    """Wall time for stores and people, monotonic time for watching, and sleep."""

    def time(self) -> float:
        """Seconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; their zero means nothing."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The clock of this machine."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


SYSTEM = SystemClock()


async def wait_for(clock: Clock, event: anyio.Event, timeout_s: float | None) -> bool:
    """Wait for the event or until `timeout_s` passed on `clock`; whether the event came."""
    if timeout_s is None:
        await event.wait()
    elif isinstance(clock, SystemClock):
        with anyio.move_on_after(max(0.0, timeout_s)):
            await event.wait()
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(_first, event.wait, group.cancel_scope)
            group.start_soon(_first, clock.sleep, group.cancel_scope, max(0.0, timeout_s))
    return event.is_set()


async def _first(fn: Callable[..., Awaitable[object]], scope: anyio.CancelScope, *args: object) -> None:
    await fn(*args)
    scope.cancel()
