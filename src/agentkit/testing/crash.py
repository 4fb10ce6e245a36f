"""A crash harness: real child processes that run an app's worker, halted at named points with kill -9 or SIGSTOP.

The app is a module of the test with a function that makes its `Runtime`, as `agentkit worker` takes it; the state URL and the settings
reach it as `AGENTKIT_*`. Points are described in `agentkit.testing.crash_child`.

    async with Crew(tmp_path, "tests.system.app:runtime", url, lease_s=1.0) as crew:
        worker = await crew.start(halt="kill@after write PARKED")
        ...
        await worker.ended()
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")

PATIENCE_S = 20.0  # for what must come: a test machine may be slow, and a bound that is too tight is a failure of nobody
POLL_S = 0.02
LOG_TAIL_BYTES = 4000
PROGRAM = "from agentkit.testing.crash_child import main; main()"


async def until(what: str, look: Callable[[], Awaitable[T]], *, patience_s: float = PATIENCE_S) -> T:
    """Look again and again until the answer is true; returns it. Raises AssertionError saying what did not come."""
    give_up = time.monotonic() + patience_s
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < give_up, f"{what}: not within {patience_s:g} s"
        await anyio.sleep(POLL_S)


class Child:
    """A child process. What it says on stdout are the points that it has reached."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self.said.append(line.decode().strip())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; negative the signal that ended it; None while it lives."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """Send a signal, if it lives."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def stop(self) -> None:
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.send(signal.SIGCONT)

    def terminate(self) -> None:
        self.send(signal.SIGTERM)

    async def reached(self, point: str) -> None:
        """Wait until it has said that it is at a point; where it is stopped there, until it stands still."""

        async def look() -> bool:
            gone = self.code is not None
            if gone:
                await anyio.to_thread.run_sync(self._reader.join)
            assert point in self.said or not gone, f"the child ended ({self.code}) before {point!r}; it said {self.said}"
            return point in self.said

        try:
            await until(f"child at {point!r}", look)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log()}") from None

    async def stopped(self) -> None:
        """Wait until the process stands still (it announces a point just before it stops)."""

        async def look() -> bool:
            status = await anyio.to_thread.run_sync(Path(f"/proc/{self.pid}/stat").read_text)
            return status.rpartition(")")[2].split()[0] == "T"

        await until("child stopped", look)

    async def ended(self) -> int:
        """Wait for its end; the exit code."""

        async def look() -> bool:
            return self.code is not None

        try:
            await until("end of the child", look)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it said {self.said}:\n{self.log()}") from None
        await anyio.to_thread.run_sync(self._reader.join)
        return int(self.code or 0)

    def log(self) -> str:
        """The end of what it wrote on stderr."""
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")

    def end(self) -> None:
        """End it, whatever it is doing. Blocks."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()


class Crew:
    """Starts children on one state URL, and ends them all when the block is left.

    Args:
        folder: where their logs go.
        app: `module:function` that makes the `Runtime`, by `Runtime.from_env`.
        url: the state URL.
        lease_s: also the shortest lease that the adapter is made to accept in the children (`min_lease_s` of its object there): tests
            cannot wait for leases that suit slow machines.
        settings: more settings of the runtime, by name.
        env: more environment variables.
    """

    def __init__(
        self,
        folder: Path,
        app: str,
        url: str,
        *,
        lease_s: float,
        settings: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.app, self.lease_s = folder, app, lease_s
        given = {"state": url, "lease_s": lease_s, **(settings or {})}
        named = {f"AGENTKIT_{name.upper()}": str(value) for name, value in given.items()}
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTKIT_")} | named | dict(env or {})
        self.children: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._end_all)

    def _end_all(self) -> None:
        for child in self.children:
            child.end()

    async def start(self, *halts: str, act: str = "") -> Child:
        """Start a worker; with `act` a process that calls that function with the entered runtime instead."""
        # Not with -m: run as a program it would be another module, with another hand, than the one that the app imports.
        program = [sys.executable, "-c", PROGRAM, self.app, f"--min-lease={self.lease_s}"]
        command = [*program, *(f"--halt={halt}" for halt in halts), *([f"--act={act}"] if act else [])]
        child = await anyio.to_thread.run_sync(self._start, command)
        self.children.append(child)
        return child

    def _start(self, command: Sequence[str]) -> Child:
        log = self.folder / f"child-{len(self.children)}.log"
        with log.open("ab") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, env=self._env)
        return Child(process, log)
