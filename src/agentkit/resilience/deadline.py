"""Deadlines: set once by whoever waits for the answer, and kept by everything that is called on the way to it."""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, Self

import anyio

from agentkit.clock import SYSTEM, Clock, SystemClock
from agentkit.errors import DeadlineExceeded, NoTimeLeft
from agentkit.resilience.beside import Beside

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType


class Deadline(NamedTuple):
    """A moment on a clock's monotonic time."""

    clock: Clock
    at: float


_deadline: ContextVar[Deadline | None] = ContextVar("agentkit_deadline", default=None)


def remaining_s() -> float:
    """Seconds until the deadline around the caller, never below 0; infinite where there is none."""
    deadline = _deadline.get()
    return math.inf if deadline is None else max(0.0, deadline.at - deadline.clock.monotonic())


@contextmanager
def announced(timeout_s: float, clock: Clock = SYSTEM) -> Generator[None]:
    """Make a deadline known to all that is called in the block, for one who ends the block at that time himself, as a runtime does."""
    around = _deadline.get()
    _deadline.set(Deadline(clock, clock.monotonic() + min(timeout_s, remaining_s())))
    try:
        yield
    finally:
        _deadline.set(around)


def own_limit(timeout_s: float | None, remaining_s: float) -> float | None:
    """The time limit that a block has to watch itself: None when there is none or the caller's ends sooner, for the caller watches that."""
    return timeout_s if timeout_s is not None and timeout_s < remaining_s else None


class Within:
    """An async context manager that bounds a block by `timeout_s`, and by the caller's deadline if that is sooner.

    Inside it `remaining_s()` tells what is left. Whoever sends something on the block's behalf sets `sent`. `new_scope` is the cancel scope
    of the event loop's library, from one who uses many: anyio looks it up anew each time.

    Raises:
        NoTimeLeft: there was no time to begin with, or it went by before anything was sent. Nothing happened.
        DeadlineExceeded: the block was cut off. Its effect may have happened.
    """

    def __init__(
        self, what: str, timeout_s: float | None, clock: Clock = SYSTEM, *, new_scope: type[anyio.CancelScope] = anyio.CancelScope
    ) -> None:
        self.sent = False
        self._what, self._timeout_s, self._clock, self._new_scope = what, timeout_s, clock, new_scope
        self._around: Deadline | None = None
        self._timer: anyio.CancelScope | Beside | None = None

    @property
    def struck(self) -> bool:
        """Whether this block's own time limit has ended it (a deadline of the caller's is the caller's)."""
        return self._timer.cancel_called if isinstance(self._timer, anyio.CancelScope) else bool(self._timer and self._timer.struck)

    async def __aenter__(self) -> Self:
        left = remaining_s()
        if left <= 0:
            raise NoTimeLeft(self._what)
        timeout_s = own_limit(self._timeout_s, left)
        if timeout_s is not None:
            self._around = _deadline.get()
            self._timer = await self._start(timeout_s)
            _deadline.set(Deadline(self._clock, self._clock.monotonic() + timeout_s))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._timer is None:
            return
        _deadline.set(self._around)
        if isinstance(self._timer, Beside):
            cut = await self._timer.__aexit__(kind, exc, tb)
        else:
            cut = bool(self._timer.__exit__(kind, exc, tb))
        if cut and exc is not None:  # trio's scope answers True to a block without an error, too
            raise (DeadlineExceeded if self.sent else NoTimeLeft)(self._what, self._timeout_s or 0.0) from None

    async def _start(self, timeout_s: float) -> anyio.CancelScope | Beside:
        """An entered cancel scope, which costs little, or on a clock that tests move a sleeper beside the block."""
        if isinstance(self._clock, SystemClock):
            return self._new_scope(deadline=anyio.current_time() + timeout_s).__enter__()

        async def ring() -> bool:
            await self._clock.sleep(timeout_s)
            return True

        beside = await Beside().__aenter__()
        beside.start(ring)
        return beside
