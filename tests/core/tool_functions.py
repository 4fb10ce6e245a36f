"""Functions that tests run in processes of their own: another process must be able to import them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from agentkit.agents.tool import tool


class Picky(Exception):
    """Can be pickled, and not read again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


@tool(executor="process")
def double(n: int, *, plus: int = 0) -> int:
    return 2 * n + plus


@tool(executor="process")
def own_pid() -> int:
    return os.getpid()


@tool(executor="process")
def big(size: int) -> str:
    return "x" * size


@tool(executor="process")
def fail(kind: str) -> None:
    if kind == "picky":
        raise Picky("a", "b")
    if kind == "exit":
        sys.exit(3)
    raise ValueError(f"no {kind}")


@tool(executor="process")
def die(how: str) -> None:
    if how == "signal":
        os.kill(os.getpid(), 9)
    os._exit(7)


@tool(executor="process")
def talk() -> str:
    print("to whoever listens")  # must not get into the answer
    sys.stdout.flush()
    os.write(1, b"and past Python")
    return sys.stdin.read()


@tool(executor="process")
def hang(file: str, *, with_child: bool = False) -> None:
    """Write the pids of this process and of what it has started, then work for ever."""
    pids = [os.getpid()]
    if with_child:
        pids.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    told = Path(file + ".new")
    told.write_text(" ".join(map(str, pids)))
    told.rename(file)
    while True:
        time.sleep(0.01)


@tool(executor="process")
def lock_up(file: str) -> None:
    """Write the pid, then never let another thread of this process have a turn for long."""
    hang_file = Path(file)
    told = Path(file + ".new")
    told.write_text(str(os.getpid()))
    told.rename(hang_file)
    n = 0
    while True:
        n += 1
