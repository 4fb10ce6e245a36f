"""The other side of `agentkit.agents.process`: one call, one answer, and an end as soon as nobody waits for it.

Run as a file, so it imports nothing but the standard library before it knows where everything else is.
"""

from __future__ import annotations

import importlib
import os
import pickle
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import reduce
from types import ModuleType
from typing import Any, BinaryIO, NoReturn, cast

_HEADER = 8


def main() -> NoReturn:
    """Answer the request that stands on stdin. What the function prints goes to stderr."""
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    with open(os.devnull) as nothing:  # noqa: PTH123 - a name, not a path
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    path, where, max_bytes, call = cast("tuple[list[str], tuple[str, str] | None, int, bytes]", pickle.loads(_read_request(requests)))  # noqa: S301
    threading.Thread(target=_end_with_the_parent, args=(requests,), daemon=True).start()
    sys.path[:] = path
    answer = _answer(where, call, max_bytes)
    answers.write(len(answer).to_bytes(_HEADER) + answer)
    answers.flush()
    os._exit(0)  # whatever threads the function has left


def _read_request(requests: BinaryIO) -> bytes:
    size = int.from_bytes(_exactly(requests, _HEADER))
    return _exactly(requests, size)


def _exactly(requests: BinaryIO, size: int) -> bytes:
    read = bytearray()
    while len(read) < size:
        piece = requests.read(size - len(read))
        if not piece:
            os._exit(1)
        read += piece
    return bytes(read)


def _end_with_the_parent(requests: BinaryIO) -> None:
    """The parent keeps its end of stdin open as long as it lives and waits."""
    requests.read(1)
    if sys.platform != "win32":
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _answer(where: tuple[str, str] | None, call: bytes, max_bytes: int) -> bytes:
    try:
        if where is not None:
            _become(*where)
        answer = pickle.dumps(("returned", _call(*pickle.loads(call))))  # noqa: S301 - from our own parent
    except BaseException as exc:  # noqa: BLE001 - whatever it is, the parent is told
        answer = _raised(exc)
    return answer if len(answer) <= max_bytes else pickle.dumps(("too large", len(answer)))


def _call(module: str, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    found: Any = reduce(getattr, name.split("."), importlib.import_module(module))
    fn: Callable[..., Any] = getattr(found, "fn", found)  # behind a name that `@tool` has taken stands the tool
    return fn(*args, **named)


def _raised(exc: BaseException) -> bytes:
    if isinstance(exc, Exception):
        exc.add_note("In the process of the tool: " + "".join(traceback.format_tb(exc.__traceback__)))
        try:
            answer = pickle.dumps(("raised", exc))
            pickle.loads(answer)  # noqa: S301 - many an exception can be written and not read
        except Exception:  # noqa: BLE001, S110 - then its type and text must do
            pass
        else:
            return answer
    return pickle.dumps(("failed", (type(exc).__name__, str(exc))))


def _become(kind: str, name: str | None) -> None:
    """Load the parent's main module, under a name by which it does not start its program again."""
    if name is None:
        return
    content = runpy.run_path(name, run_name="__mp_main__") if kind == "file" else runpy.run_module(name, run_name="__mp_main__")
    main = ModuleType("__mp_main__")
    main.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


if __name__ == "__main__":
    main()
