"""Waiting for a store in memory to change, from any thread and event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentkit.clock import Clock


class Waiter:
    """Somebody who waits for a change, on whatever event loop."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        loop: Any = current_token().native_token
        self._soon: Callable[[Callable[[], object]], object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon

    def wake(self) -> None:
        # An event must be set by its own loop, and the change may come from another thread's.
        try:
            self._soon(self.event.set)
        except RuntimeError:
            pass  # that loop has ended, and with it whoever waited


class Changes:
    """A token that grows with every change, and those who wait for it to grow. Called under the store's lock, but for `until`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.token = 1
        self._waiters: set[Waiter] = set()

    def note(self) -> None:
        self.token += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.wake()

    def waiter(self) -> Waiter:
        waiter = Waiter()
        self._waiters.add(waiter)
        return waiter

    def forget(self, waiter: Waiter) -> None:
        self._waiters.discard(waiter)

    async def until(self, waiter: Waiter, timeout_s: float) -> None:
        """Until the next change, or the time is up."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._give_up, timeout_s, waiter.event)
            await waiter.event.wait()
            group.cancel_scope.cancel()

    async def _give_up(self, timeout_s: float, event: anyio.Event) -> None:
        await self._clock.sleep(timeout_s)
        event.set()
