"""The work of every queue: put tasks that do nothing, then drain them. Imports nothing: each peer runs in its own environment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

PAYLOAD = {"customer": "customer-4711", "notes": "n" * 150}  # 200 bytes as JSON
WARM = 200  # done before the clock starts: more than run at once, so that as much is unanswered at the first as at the last
SINGLE = 300  # put one after the other; the rest is put side by side
PUT_AT_ONCE = 20


def asked() -> tuple[str, int, int]:
    """The URL of the server, how many tasks, and how many at once."""
    return sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Tally:
    """Counts the tasks that were done, and takes the time from the last warm one to the last of all."""

    def __init__(self, tasks: int) -> None:
        self.all = WARM + tasks
        self.finished = asyncio.Event()
        self._tasks = tasks
        self._done = 0
        self._clock = self._cpu = 0.0

    def did(self) -> None:
        """Called by each task's body."""
        self._done += 1
        if self._done == WARM:
            self._clock, self._cpu = time.perf_counter(), time.process_time()
        elif self._done == self.all:
            self.took_s, self.cpu_s = time.perf_counter() - self._clock, time.process_time() - self._cpu
            self.finished.set()

    def figures(self) -> dict[str, float]:
        return {"rate": self._tasks / self.took_s, "cpu_us": self.cpu_s * 1_000_000 / self._tasks}


async def put_all(count: int, put: Callable[[int], Awaitable[object]]) -> float:
    """Put `count` tasks; how many a second when put one after the other."""
    single = min(SINGLE, count)
    began = time.perf_counter()
    for number in range(single):
        await put(number)
    rate = single / (time.perf_counter() - began)
    for first in range(single, count, PUT_AT_ONCE):
        await asyncio.gather(*(put(number) for number in range(first, min(first + PUT_AT_ONCE, count))))
    return rate


async def drain(peer: str, put_rate: float, tally: Tally, work: Coroutine[Any, Any, object]) -> NoReturn:
    """Let a worker work until all is done, and print the figures as JSON. A worker that gives up before is no measurement.

    It ends the process: not every peer's worker ends when it is cancelled, and nobody needs what is left.
    """
    worker = asyncio.create_task(work)
    finished = asyncio.create_task(tally.finished.wait())
    await asyncio.wait({worker, finished}, return_when=asyncio.FIRST_COMPLETED)
    if not tally.finished.is_set():
        await worker
        raise SystemExit(f"the worker of {peer} ended before its work")
    print(json.dumps({"peer": peer, **tally.figures(), "put_rate": put_rate}), flush=True)
    os._exit(0)
