"""Who waits for changes, on any thread and event loop, and how they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import current_token

RUNS, QUEUE, OTHER = "runs", "queue", ""
"""What a change is about; nobody waits for OTHER."""


class News:
    """A token for each topic, which every change makes another one."""

    def __init__(self) -> None:
        self._tokens = {RUNS: 1, QUEUE: 1}
        self._waiting: dict[str, list[tuple[Any, anyio.Event]]] = {RUNS: [], QUEUE: []}
        self._lock = threading.Lock()

    def note(self, topic: str) -> None:
        """Tell those who wait for a change. Called from any thread."""
        with self._lock:
            self._tokens[topic] += 1
            waiting, self._waiting[topic] = self._waiting[topic], []
        for loop, event in waiting:
            call_in(loop, event.set)

    def token(self, topic: str) -> int:
        """What `wait` compares with, as it is now."""
        return self._tokens[topic]

    async def wait(self, topic: str, seen: int, timeout_s: float) -> int:
        """Until the token is another than `seen`, or the time is up; returns the token."""
        with self._lock:
            if self._tokens[topic] != seen:
                return self._tokens[topic]
            waiter = current_token().native_token, anyio.Event()
            self._waiting[topic].append(waiter)
        try:
            with anyio.move_on_after(max(0.0, timeout_s)):
                await waiter[1].wait()
        finally:
            with self._lock:
                if waiter in self._waiting[topic]:
                    self._waiting[topic].remove(waiter)
        return self._tokens[topic]


def call_in(loop: Any, function: Callable[..., None], *args: object) -> None:
    """Call a function in an event loop from any thread; a loop that has ended has nobody left to tell."""
    soon: Callable[..., object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    with suppress(RuntimeError):
        soon(function, *args)
