"""Names the user code that blocked the event loop.

A task of the loop notes the time every `tick_s`; a thread watches that note. When it is older than `warn_s` the thread looks at what the
loop's thread is doing at that moment and says so once; when the loop ticks again it says how long it took. The heartbeat asks
`quiet_s()` too: a process whose loop hangs must stop saying that it is alive.
"""

from __future__ import annotations

import logging
import sys
import sysconfig
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.to_thread

from agentkit import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

log = logging.getLogger("agentkit.stall")

STDLIB = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
LIBRARIES = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
_MACHINERY = frozenset({"agentkit", "anyio", "asyncio", "trio", "uvloop", "outcome", "sniffio", "opentelemetry"})


class Place(NamedTuple):
    """A line of code, in a package by its import name."""

    file: str
    line: int
    function: str
    package: str = ""

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line} in {self.function}()"


_NOWHERE = Place("unknown", 0, "unknown")


class Stall(NamedTuple):
    """The loop did not tick for `blocked_s`. `by` is the innermost line of the user's code, `inside` the innermost line of all."""

    blocked_s: float
    by: Place
    inside: Place
    over: bool


class StallWatch:
    """Start `run()` in the task group of the loop to be watched; it needs no stopping beyond the cancellation of that group."""

    def __init__(self, *, warn_s: float = 0.5, tick_s: float = 0.05, report: Callable[[Stall], None] | None = None) -> None:
        """Watch for the loop being blocked.

        Args:
            warn_s: half a second of blocking delays every run of the process; less would also report a busy machine.
            tick_s: how often the loop says that it lives.
            report: called in the watching thread, once when a stall is seen and once when it is over; default: `note`.
        """
        self.ticked_at = time.monotonic()
        """When the loop last ran, on `time.monotonic`."""
        self._warn_s, self._tick_s = warn_s, tick_s
        self._report = note if report is None else report
        self._ended = threading.Event()

    def quiet_s(self) -> float:
        """Seconds since the loop last ran. Safe to ask from any thread."""
        return time.monotonic() - self.ticked_at

    async def run(self) -> None:
        """Watch until cancelled."""
        self.ticked_at = time.monotonic()
        watch = partial(self._watch, threading.get_ident())
        async with anyio.create_task_group() as group:
            # A limiter of its own: the thread lives as long as the runtime and must not take one of the user's.
            group.start_soon(partial(anyio.to_thread.run_sync, watch, limiter=anyio.CapacityLimiter(1)))
            try:
                while True:
                    self.ticked_at = time.monotonic()
                    await anyio.sleep(self._tick_s)
            finally:
                self._ended.set()

    def _watch(self, loop_thread: int) -> None:
        pause_s = self._warn_s / 4
        eye = Eye(self.ticked_at)
        while not self._ended.wait(pause_s):
            looked = Look(time.monotonic(), time.process_time(), self.ticked_at)
            blocked_s = eye.blocked_s(looked, pause_s)
            if eye.stall is None:
                if blocked_s >= self._warn_s:
                    by, inside = culprit(stack_of(sys._current_frames().get(loop_thread)))  # pyright: ignore[reportPrivateUsage]  its documented name
                    eye.stall = Stall(blocked_s, by, inside, over=False)
                    self._report(eye.stall)
            elif blocked_s < eye.stall.blocked_s:
                self._report(eye.stall._replace(blocked_s=eye.longest_s, over=True))
                eye.stall = None
            eye.longest_s = blocked_s


class Look(NamedTuple):
    """What the watching thread sees when it looks: its clock, the process's CPU seconds, the loop's note."""

    now: float
    cpu_s: float
    ticked_at: float


class Eye:
    """What the watching thread remembers between two looks. It reads no clock of its own."""

    def __init__(self, since: float) -> None:
        self.stall: Stall | None = None
        self.longest_s = 0.0
        self._since = since
        self._last: Look | None = None

    def blocked_s(self, look: Look, pause_s: float) -> float:
        """How long the loop has been blocked.

        A look that comes late without CPU having been used means that the whole process was stopped or starved, which is nobody's fault
        in it: the count starts again. With CPU used, somebody held the interpreter's lock, and that is a stall like any other.
        """
        last, self._last = self._last, look
        if last is not None:
            late_s = look.now - last.now - pause_s
            if late_s > pause_s and look.cpu_s - last.cpu_s < late_s / 5:  # a busy machine may give even a lock-keeper a small share
                self._since = look.now
        self._since = max(self._since, look.ticked_at)
        return look.now - self._since


def note(stall: Stall) -> None:
    """Log a stall and count it."""
    code = {telemetry.CODE: str(stall.by)}
    where = f"{stall.by}" if stall.by == stall.inside else f"{stall.by} (now at {stall.inside})"
    if stall.over:
        telemetry.STALL_SECONDS.record(stall.blocked_s, code)
        log.warning("event loop was blocked %.1f s in all by %s", stall.blocked_s, stall.by)
    else:
        telemetry.STALLS.add(1, code)
        log.warning("event loop blocked %.1f s so far by %s: await instead, or run it in a thread", stall.blocked_s, where)


def stack_of(frame: FrameType | None) -> list[Place]:
    """Where a thread is, the innermost line first."""
    stack: list[Place] = []
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        stack.append(Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, package))
        frame = frame.f_back
    return stack


def culprit(stack: Sequence[Place]) -> tuple[Place, Place]:
    """The innermost line of the user's own code in a stack, and the innermost line of all.

    An application may itself be installed among the libraries: where no line lies outside of them, the innermost library line is named,
    and where there is none either, the innermost line.
    """
    if not stack:
        return _NOWHERE, _NOWHERE
    return min(stack, key=_rank), stack[0]  # the first of the best, and the stack starts with the innermost


def _rank(place: Place) -> int:
    """0 the user's code, 1 a library, 2 the machinery that runs it."""
    if place.package in _MACHINERY or place.package.startswith("agentkit_") or place.file.startswith("<"):
        return 2
    if place.file.startswith(LIBRARIES):
        return 1
    return 2 if place.file.startswith(STDLIB) else 0
