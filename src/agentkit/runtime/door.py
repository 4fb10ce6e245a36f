"""The one sync door into a runtime: Django, Flask and Celery tasks submit too."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

import anyio.from_thread
from anyio.lowlevel import current_token

from agentkit.errors import Misuse

if TYPE_CHECKING:
    from agentkit.runtime.runtime import Runtime

R = TypeVar("R")


class Door:
    """Calls into the event loop of an entered runtime from other threads; enters it in a thread of its own when nobody has."""

    def __init__(self) -> None:
        self._token: object | None = None
        self._thread: int | None = None
        self._lock = threading.Lock()

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
        stack = ExitStack()
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
        stack.enter_context(portal.wrap_async_context_manager(runtime))
        atexit.register(stack.close)
