"""The one sync door into a runtime: Django, Flask and Celery tasks submit too."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.from_thread
from anyio.lowlevel import current_token

from agentkit.errors import Misuse

if TYPE_CHECKING:
    from agentkit.runtime.runtime import Runtime

R = TypeVar("R")
LEAVE_S = 30.0  # for the drain at the end of the interpreter: the default grace and the last round trips


class Door:
    """Calls into the event loop of an entered runtime from other threads; enters it in a thread of its own when nobody has."""

    def __init__(self) -> None:
        self._token: object | None = None
        self._thread: int | None = None
        self._lock = threading.Lock()
        self._leaving: anyio.Event | None = None
        self._failed: Exception | None = None

    def open(self) -> None:
        self._token, self._thread = current_token(), threading.get_ident()

    def close(self) -> None:
        self._token = self._thread = None

    def call(self, runtime: Runtime, fn: Callable[[], Awaitable[R]]) -> R:
        """Run `fn` in the runtime's loop and wait. Raises `Misuse` when called from that loop itself: it would wait for itself."""
        with self._lock:
            if self._token is None:
                self._enter(runtime)
        if self._thread == threading.get_ident():
            raise Misuse("runtime.sync() called from the runtime's own event loop: await the verb instead")
        return anyio.from_thread.run(fn, token=self._token)  # type: ignore[arg-type]  # anyio does not export the token's type

    def _enter(self, runtime: Runtime) -> None:
        """Open the runtime in a thread of its own, until the interpreter ends."""
        started, ended = threading.Event(), threading.Event()
        self._failed = None  # of an earlier try: the store may be back
        thread = threading.Thread(target=anyio.run, args=(self._stay, runtime, started, ended), name="agentkit-runtime", daemon=True)
        thread.start()
        started.wait()
        if self._failed is not None:
            raise self._failed
        atexit.register(self._leave, ended, thread)

    async def _stay(self, runtime: Runtime, started: threading.Event, ended: threading.Event) -> None:
        try:
            async with runtime:
                self._leaving = anyio.Event()
                started.set()
                await self._leaving.wait()
        except Exception as exc:  # noqa: BLE001 - it belongs to the caller of sync(), who waits in another thread
            self._failed = exc
        finally:
            started.set()
            ended.set()

    def _leave(self, ended: threading.Event, thread: threading.Thread) -> None:
        if self._leaving is not None and not ended.is_set():
            anyio.from_thread.run_sync(self._leaving.set, token=self._token)  # type: ignore[arg-type]  # as above
            thread.join(LEAVE_S)
