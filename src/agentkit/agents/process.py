"""A function in a process of its own, which ends with the call: when it answers, fails, is cancelled, or its parent dies.

A process for each call costs a start of Python and the import of the function's module. In return a cancelled one is really gone, with
whatever it has started; nothing of one call is left for the next; and a crash in it is an error of this call and of nothing else.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_process
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from agentkit.errors import EntryTooLarge, RunError, ToolDied

MAX_BYTES = 8_000_000  # of a pickled answer: far above what a journal takes of a result, far below what hurts
HEADER_BYTES = 8
CHILD = Path(__file__).with_name("process_child.py")  # by its file: the child has our import path only when it has read the request


async def in_a_process(tool: str, fn: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Call an importable function in a new process. At a time there are as many as anyio's limiter of processes allows.

    Raises:
        ToolDied: it ended without an answer.
        EntryTooLarge: its answer is over `MAX_BYTES`.
        RunError: what the function raised, where the exception itself cannot be pickled.
        Exception: what the function raised.
        TypeError: an argument cannot be pickled. Nothing was started.
    """
    request = _packed(tool, fn, args, named)
    async with anyio.to_process.current_default_process_limiter():
        answer, code = await _exchange(request)
    if not answer:
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        raise ToolDied(tool, f"its process ended without an answer ({how})")
    status, value = cast("tuple[str, Any]", pickle.loads(answer))  # noqa: S301 - from our own child
    if status == "returned":
        return value
    if status == "raised":
        raise cast("Exception", value)
    if status == "too large":
        raise EntryTooLarge(f"the answer of the process of tool {tool!r}", value, MAX_BYTES)
    raise RunError(*value)


def _packed(tool: str, fn: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]) -> bytes:
    try:
        call = pickle.dumps((fn.__module__, fn.__qualname__, args, dict(named)))
    except Exception as exc:
        raise TypeError(f"tool {tool!r}: an argument cannot go to another process: {exc}") from exc
    request = pickle.dumps((sys.path, _main() if b"__main__" in call else None, MAX_BYTES, call))
    return len(request).to_bytes(HEADER_BYTES) + request


def _main() -> tuple[str, str | None]:
    """How the child finds the program's main module, whose classes it then knows by another name."""
    main = sys.modules["__main__"]
    sys.modules.setdefault("__mp_main__", main)
    spec = getattr(main, "__spec__", None)
    return ("module", spec.name) if spec is not None else ("file", getattr(main, "__file__", None))


async def _exchange(request: bytes) -> tuple[bytes, int | None]:
    """The child's answer as far as it came, and how it ended where it did not come whole. Of one that is too large the rest is not read."""
    command = [sys.executable, "-P", str(CHILD)]
    process = await anyio.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, start_new_session=True)
    try:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it died at once: its exit code tells how
            await cast("ByteSendStream", process.stdin).send(request)
        answer = BufferedByteReceiveStream(cast("ByteReceiveStream", process.stdout))
        try:
            size = int.from_bytes(await answer.receive_exactly(HEADER_BYTES))
            return await answer.receive_exactly(min(size, MAX_BYTES)), None
        except anyio.IncompleteRead:
            return b"", await process.wait()
    finally:
        _kill(process)
        with anyio.CancelScope(shield=True):
            await process.aclose()


def _kill(process: Process) -> None:
    """The child and what it has started: it leads a group of its own."""
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
