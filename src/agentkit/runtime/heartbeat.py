"""The heartbeat: a thread with an event loop of its own says that this worker lives, whatever the app's loop is doing.

It stops when the app's loop has not ticked for `stall_limit_s`: a process that hangs must lose its runs. A worker without an accepted
beat for 0.75 leases starts no step until one is accepted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import current_token

from agentkit import telemetry
from agentkit.clock import SystemClock, wait_for
from agentkit.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentkit.clock import Clock
    from agentkit.ports.runs import RunStore

FRESH = 0.75  # of a lease: the rest is for the way of a last write
BEATS_PER_LEASE = 4
log = logging.getLogger("agentkit.heartbeat")


class Heartbeat:
    """Beats for one registration until stopped or fenced."""

    def __init__(
        self,
        store: RunStore,
        worker_id: str,
        clock: Clock,
        lease_s: float,
        *,
        alive: Callable[[], bool],
        on_moved: Callable[[Sequence[str]], None],
        on_fenced: Callable[[], None],
    ) -> None:
        self._store, self._worker_id, self._clock, self._lease_s = store, worker_id, clock, lease_s
        self._alive, self._on_moved, self._on_fenced = alive, on_moved, on_fenced
        self.ok_at = clock.monotonic()
        self._answered = anyio.Event()
        self._heard = anyio.Event()
        self._news: list[Sequence[str] | None] = []
        self._stopped = threading.Event()

    @property
    def stale(self) -> bool:
        """No beat was accepted for so long that no step may start."""
        return self._clock.monotonic() - self.ok_at > FRESH * self._lease_s

    async def fresh(self) -> None:
        """Return once a beat was accepted recently."""
        while self.stale:
            await wait_for(self._clock, self._answered, self._lease_s / BEATS_PER_LEASE)

    async def run(self) -> None:
        """Beat until cancelled; on the system's clock from a thread, under a test's clock from this loop."""
        if not isinstance(self._clock, SystemClock):
            await self._beat_here()
            return
        thread = threading.Thread(target=asyncio.run, args=(self._beat_there(tell_in_loop()),), name="agentkit-heartbeat", daemon=True)
        thread.start()
        try:
            while True:
                await self._heard.wait()
                self._heard = anyio.Event()
                news, self._news = self._news, []
                for moved in news:
                    self._tell(moved)
        finally:
            self._stopped.set()

    def _hear(self, moved: Sequence[str] | None) -> None:
        """A callback of the loop, in which no task can be started: what follows from the news is for the task in `run`."""
        self._news.append(moved)
        self._heard.set()

    async def _beat_here(self) -> None:
        while True:
            self._tell(await self._beat())
            await self._clock.sleep(self._lease_s / BEATS_PER_LEASE)

    async def _beat_there(self, soon: Callable[..., None]) -> None:
        while not self._stopped.is_set():
            if self._alive():
                # Not waited for: a blocked app hears its news late, and lives all the same. The next beat brings the same news again.
                soon(self._hear, await self._beat())
            self._stopped.wait(self._lease_s / BEATS_PER_LEASE)  # blocks this loop, in which nothing else runs

    async def _beat(self) -> Sequence[str] | None:
        """One beat; the runs with news, or None when we are fenced. A store that does not answer is nobody's death."""
        began = self._clock.monotonic()
        try:
            beat = await self._store.beat(self._worker_id)
        except StoreError as exc:
            telemetry.BEATS_MISSED.add()
            log.warning("beat of worker %s was not accepted: %s", self._worker_id, exc)
            return ()
        if beat is None:
            return None
        self.ok_at = began
        return beat.moved

    def _tell(self, moved: Sequence[str] | None) -> None:
        if self._stopped.is_set():
            return
        if moved is None:
            self._stopped.set()
            self._on_fenced()
            return
        self._answered.set()
        self._answered = anyio.Event()
        if moved:
            self._on_moved(moved)


def tell_in_loop() -> Callable[..., None]:
    """A function that has another called in this event loop, from any thread, without waiting for it."""
    loop: Any = current_token().native_token
    soon: Callable[..., object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon

    def tell(function: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the app's loop is gone: nobody is left to be told
            soon(function, *args)

    return tell
