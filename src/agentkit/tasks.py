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


def current_task() -> object:
    """The running task of asyncio or trio, as an identity. Needs a running event loop."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return sys.modules["trio"].lowlevel.current_task() if task is None else task


class Gate:
    """An event for one waiter, once. Make it where it is awaited; `set` it from the same event loop."""

    __slots__ = ("_inner",)

    def __init__(self) -> None:
        try:
            self._inner: Any = asyncio.get_running_loop().create_future()
        except RuntimeError:
            self._inner = anyio.Event()

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
