"""Real servers for tests: each test process starts its own at first use and ends them when it ends.

What a killed process left behind is ended by the next one that starts a server: a process's folder under `.servers/` is locked as long
as it lives, and holds the pid of each of its servers.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import ClassVar, ParamSpec, Self, TypedDict, TypeVar

import anyio.to_thread
import pytest

P = ParamSpec("P")
S = TypeVar("S", bound="Server")

REPOSITORY = Path(__file__).resolve().parents[2]
PORTS = range(20_000, 32_000)  # below those that the kernel gives to clients: a stopped server finds its port free again
START_S = 60.0  # a first start on a slow machine
STOP_S = 20.0
LOG_TAIL_BYTES = 3000
USUAL_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin", "/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin")


class ServerMissing(Exception):
    """A server's program is not installed."""

    def __init__(self, program: str) -> None:
        super().__init__(f"{program} is not installed here: run scripts/servers.sh")


@functools.cache
def find(program: str) -> str:
    """Where a program lies. Raises `ServerMissing`."""
    found = shutil.which(program)
    for place in () if found else USUAL_PLACES:
        root, *rest = Path(place).parts
        for folder in sorted(Path(root).glob(str(Path(*rest)))):
            found = shutil.which(program, path=str(folder)) or found
    if not found:
        raise ServerMissing(program)
    return found


def or_skip(start: Callable[P, S]) -> Callable[P, S]:
    """A missing server skips the test, with the reason; under continuous integration it fails."""

    @functools.wraps(start)
    def started(*args: P.args, **kwargs: P.kwargs) -> S:
        try:
            return start(*args, **kwargs)
        except ServerMissing as exc:
            if os.environ.get("CI"):
                raise
            raise pytest.skip.Exception(str(exc)) from exc

    return started


class User(TypedDict, total=False):
    """Arguments of Popen; none of them for the user we are."""

    user: int
    group: int
    extra_groups: Sequence[int]


@functools.cache
def unprivileged(user: str) -> User:
    """Whom to run a server as that refuses to be run by root: `user`, or nobody."""
    if os.getuid():
        return {}
    try:
        who = pwd.getpwnam(user)
    except KeyError:
        who = pwd.getpwnam("nobody")
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": ()}


def base() -> Path:
    """The folder of all processes' servers: `.servers` in the repository, a link to a temporary one where others may not look in there."""
    folder = REPOSITORY / ".servers"
    if not os.getuid() and not all(parent.stat().st_mode & 0o001 for parent in folder.parents):
        real = Path(tempfile.gettempdir()) / f"agentkit-servers-{hashlib.sha256(bytes(folder)).hexdigest()[:12]}"
        real.mkdir(mode=0o755, exist_ok=True)
        if real.is_symlink() or real.stat().st_uid:
            raise PermissionError(f"{real} belongs to somebody else: remove it")
        with suppress(FileExistsError):
            folder.symlink_to(real)
    folder.mkdir(mode=0o755, exist_ok=True)
    return folder.resolve()


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold a file's lock, which ends with this process at the latest. Blocks until it is free."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def _home(pid: int) -> Path:
    with locked(base() / "lock"):
        _sweep()
        folder = base() / str(pid)
        folder.mkdir(mode=0o755)
        fcntl.flock(os.open(folder / "lock", os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)  # held until this process ends
    return folder


def home() -> Path:
    """The folder of this process's servers."""
    return _home(os.getpid())


def _sweep() -> None:
    """End the servers of processes that are gone."""
    for folder in base().glob("[0-9]*"):
        with suppress(OSError), (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for file in folder.glob("*/pid"):
                pid = int(file.read_text() or 0)
                if pid and str(file.parent) in _ps("-o", "command=", "-p", str(pid)):  # and not another's that got the number
                    _kill([pid, *children(pid)])
            shutil.rmtree(folder, ignore_errors=True)


def leave() -> None:
    """Remove the folder of this process, whose servers have been stopped."""
    if _home.cache_info().currsize:
        shutil.rmtree(home(), ignore_errors=True)


def template(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills once for all processes, such as an empty database, which takes seconds to initialise."""
    made = base() / name
    if not made.exists():
        with locked(base() / "lock"):
            if not made.exists():
                unfinished = made.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(made)
    return made


def copy(source: Path, target: Path, user: str) -> None:
    """Copy a template, for a server that runs as `user`."""
    shutil.copytree(source, target, symlinks=True)
    own(target, user)


def own(folder: Path, user: str) -> None:
    """Give a folder with all that is in it to `user`, where we may."""
    who = unprivileged(user)
    if "user" in who and "group" in who:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, who["user"], who["group"], follow_symlinks=False)


def certify(folder: Path) -> tuple[Path, Path]:
    """A certificate for the loopback that signs itself, and its key."""
    certificate, key = folder / "server.crt", folder / "server.key"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run([find("openssl"), *new, *names, "-out", str(certificate), "-keyout", str(key)], check=True, capture_output=True)
    return certificate, key


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _ps(*arguments: str) -> str:
    return subprocess.run(["ps", "-ww", *arguments], capture_output=True, text=True, check=False).stdout


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = [pid]
    pairs = [tuple(map(int, line.split())) for line in _ps("-A", "-o", "pid=,ppid=").splitlines()]
    for parent in found:
        found.extend(child for child, of in pairs if of == parent)
    return found[1:]


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    give_up = time.monotonic() + STOP_S
    while any(_ps("-o", "stat=", "-p", str(pid)).strip("Z+s\n ") for pid in pids) and time.monotonic() < give_up:
        time.sleep(0.01)


class Server:
    """A server in a folder of its own, on a port of the loopback that it keeps over restarts."""

    program: ClassVar[str]
    stop_signal: ClassVar[int] = signal.SIGTERM
    _count: ClassVar[int] = 0

    def __init__(self) -> None:
        self.executable = find(self.program)
        Server._count += 1
        self.folder = home() / f"{self.program}-{Server._count}"
        self.folder.mkdir(mode=0o755)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The program and its arguments, the server's folder among them."""
        raise AssertionError("each server says its own")

    def popen_options(self) -> User:
        """As whom it runs."""
        return {}

    def answers(self) -> bool:
        """Whether it serves; a connection error means not yet."""
        raise AssertionError("each server says its own")

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was not started"
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, and return when it answers. Blocks."""
        with (self.folder / "log").open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # a Ctrl-C is for the tests, which then stop it
                **self.popen_options(),
            )
        self._process = process
        (self.folder / "pid").write_text(str(self.pid))
        give_up = time.monotonic() + START_S
        while True:
            with suppress(OSError):
                if self.answers():
                    return self
            if not self.runs or time.monotonic() > give_up:
                raise AssertionError(f"{self.program} did not start: {process.poll()}\n{self.log()}")
            time.sleep(0.01)

    def log(self) -> str:
        """The last of what it wrote."""
        return (self.folder / "log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def stop(self) -> None:
        """Stop it in good order. Blocks."""
        if self._process is None or not self.runs:
            return
        self.resume()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill -9 of the server and its children, as a crash of it does."""
        if self._process is not None and self.runs:
            below = children(self.pid)
            self._process.kill()
            self._process.wait()
            _kill(below)

    def pause(self) -> None:
        """SIGSTOP: connections stand, nothing answers."""
        for pid in (self.pid, *children(self.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        for pid in (*children(self.pid), self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def discard(self) -> None:
        """Kill it and forget its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@asynccontextmanager
async def private(make: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[S]:
    """A server of its own, for a test that stops, kills or tunes one.

    async with private(Redis, appendonly="yes") as server: ...
    """
    server = await anyio.to_thread.run_sync(lambda: or_skip(make)(*args, **kwargs))
    try:
        await anyio.to_thread.run_sync(server.start)
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.discard)
