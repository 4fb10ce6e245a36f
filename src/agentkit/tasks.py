"""The two questions that are asked at every step: which task am I in, and wake me when this is done.

anyio's own answers cost three to ten times as much (an object per question, a lookup of the event loop's library per event), which at
thousands of steps a second is most of the runtime's own work.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable


_scopes: dict[bool, type[anyio.CancelScope]] = {}


class Home:
    """The event loop that something lives in, looked up once: to be asked which loop is running costs asyncio a system call."""

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def task(self) -> object:
        """The task that runs now, as an identity."""
        return sys.modules["trio"].lowlevel.current_task() if self._loop is None else asyncio.current_task(self._loop)

    @property
    def token(self) -> Any:
        """What other threads reach it by: asyncio's loop, or trio's token."""
        return sys.modules["trio"].lowlevel.current_trio_token() if self._loop is None else self._loop

    @property
    def scope(self) -> type[anyio.CancelScope]:
        """The class of cancel scopes here, which anyio would look up anew for every one."""
        on_asyncio = self._loop is not None
        if on_asyncio not in _scopes:
            _scopes[on_asyncio] = type(anyio.CancelScope())
        return _scopes[on_asyncio]

    def gate(self) -> Gate:
        """A gate to be awaited here."""
        return Gate(anyio.Event() if self._loop is None else self._loop.create_future())


class Gate:
    """An event for one waiter, once. `set` it from the event loop that it is awaited in."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def wait(self) -> Awaitable[None]:
        """Return once it is set. Like any wait it ends with a cancellation of its task; then the gate is used up."""
        waiting: Awaitable[None] = self._inner.wait() if isinstance(self._inner, anyio.Event) else self._inner
        return waiting

    def set(self) -> None:
        """Let the waiter go on."""
        if isinstance(self._inner, anyio.Event):
            self._inner.set()
        elif not self._inner.done():
            self._inner.set_result(None)
