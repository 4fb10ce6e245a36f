"""The program of a child process of `agentkit.testing.crash`: an app's own runtime, and a hand that halts it at named points.

The runtime is the app's, unchanged: its run store and its queue are wrapped from outside, and `Engine.on_step` is the hook that tests
have anyway, so the product holds no code for tests. A point is text: `before claim`, `after write PARKED`, `after write RESULT`,
`before step charge` (its body has not begun), `after step charge` (its body has ended, nothing of it is journalled), and whatever the
app itself says with `reach`.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import anyio

from agentkit import Runtime
from agentkit.durable.identity import short_name
from agentkit.ports.records import EntryKind, RunWrite, Swept


def stand_still() -> None:
    """Stop the whole process at once, this thread first: by `os.kill` another could stop it some statements later."""
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


class Halt(NamedTuple):
    """What to do where: `kill`, `stop`, or only `tell`, the `nth` time the point is reached."""

    how: str
    point: str
    nth: int

    @classmethod
    def parse(cls, text: str) -> Halt:
        """Read `kill@after write PARKED` or `stop@before claim#2`."""
        how, _, rest = text.partition("@")
        point, _, nth = rest.partition("#")
        return cls(how, point, int(nth or 1))


class Hand:
    """Halts this process where it was told to."""

    def __init__(self) -> None:
        self.armed: dict[str, Halt] = {}
        self.stand_still = stand_still
        """How to stop. An app whose store must not be stopped in the middle of something, for it holds a lock then, gives another way."""
        self._counts: dict[str, int] = {}

    def reach(self, *points: str) -> None:
        """The process is at a point, which may have several names. Where it is armed: say so on stdout, then halt."""
        for point in points:
            halt = self.armed.get(point)
            if halt is None:
                continue
            self._counts[point] = self._counts.get(point, 0) + 1
            if self._counts[point] == halt.nth:
                os.write(1, f"{point}\n".encode())
                if halt.how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                elif halt.how == "stop":
                    self.stand_still()

    async def on_step(self, run_id: str, key: str, point: Literal["begin", "end"]) -> None:
        """`Engine.on_step`."""
        when = "before" if point == "begin" else "after"
        self.reach(f"{when} step {short_name(key)}", f"{when} step {short_name(key)} of {run_id}")


hand = Hand()
reach = hand.reach


class Halting:
    """A port whose calls pass the hand before and after."""

    def __init__(self, port: Any, on_register: Callable[[], None] = lambda: None) -> None:
        self._port, self._on_register = port, on_register

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return partial(self._call, name, found) if inspect.iscoroutinefunction(found) else found

    async def _call(self, name: str, call: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        if name == "register":
            self._on_register()
        names = [name, *(f"{name} {what}" for what in _about(name, args, named))]
        reach(*(f"before {one}" for one in names))
        answer = await call(*args, **named)
        if isinstance(answer, Swept) and answer.tickets:
            names.append(f"{name} tickets")
        reach(*(f"after {one}" for one in names))
        return answer


def _about(name: str, args: Sequence[Any], named: dict[str, Any]) -> list[str]:
    """What tells one call of a method from another."""
    if name == "write":
        return _written(args[1])
    if name == "create":
        return ["children"] if named.get("parent") is not None else []
    if name == "sweep":
        return ["reap"] if args[0] else []
    if name == "signal":
        return [str(args[2])]
    return []


def _written(batch: Sequence[RunWrite]) -> list[str]:
    kinds = {EntryKind(entry.kind).name for write in batch for entry in write.entries}
    return sorted(kinds | {write.release.status.name for write in batch if write.release is not None})


def instrument(runtime: Runtime, min_lease_s: float | None) -> None:
    """Put the hand around a runtime that was not entered yet."""

    def with_engine() -> None:
        runtime.engine.on_step = hand.on_step

    store: Any = runtime.store
    if min_lease_s is not None:
        # An adapter's shortest lease is what a slow machine needs; a test that only wants to see a death has no hour to wait for it.
        store.min_lease_s = min_lease_s
    queue: Any = runtime.tickets
    wrapped: list[Any] = [Halting(store, with_engine), Halting(queue)]
    runtime.store, runtime.tickets = wrapped


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


async def _act(runtime: Runtime, act: Callable[[Runtime], Awaitable[None]]) -> None:
    async with runtime:
        await act(runtime)


def main(arguments: Sequence[str] | None = None) -> None:
    """Be a worker until told to stop, or do one act in an entered runtime."""
    parser = argparse.ArgumentParser(prog="crash_child")
    parser.add_argument("app", help="module:function that makes the Runtime")
    parser.add_argument("--act", help="module:function to call with the entered runtime, instead of working")
    parser.add_argument("--min-lease", type=float)
    parser.add_argument("--halt", action="append", default=[])
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    hand.armed.update({halt.point: halt for halt in map(Halt.parse, given.halt)})
    runtime: Runtime = _load(given.app)()
    instrument(runtime, given.min_lease)
    if given.act:
        anyio.run(_act, runtime, _load(given.act))
    else:
        anyio.run(runtime.work)
