"""A database by URL: one connection for each file, process and settings, shared by all that asks for it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import WeakValueDictionary

import anyio
from anyio.lowlevel import current_token
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidSetting, StoreUnavailable, nearest
from agentkit.tasks import Gate
from agentkit_sql.dialect import ROWS, Statement
from agentkit_sql.sqlite import Job, Owner, call_in, connect

if TYPE_CHECKING:
    from agentkit.clock import Clock
    from agentkit_sql.dialect import Script

T = TypeVar("T")

RUNS, QUEUE, OTHER = "runs", "queue", ""
FIRST_POLL_S, LAST_POLL_S = 0.005, 0.05  # how often other processes' commits are looked for: 2 us a look, and a person notices nothing
_data_version = Statement("PRAGMA data_version").sql


class SqliteSettings(BaseModel):
    """What may stand in a `sqlite://` URL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    busy_timeout_s: float = Field(default=5.0, ge=0)  # a writer holds the lock for milliseconds; 5 s outlasts a slow checkpoint
    max_depth: int = Field(default=1_000_000, ge=1)  # undelivered tickets: about 1 GB, far more than is drained before anybody looks

    @classmethod
    def from_url(cls, url: str) -> SqliteSettings:
        """Read a URL. Raises `InvalidSetting` naming what is wrong with it."""
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError) as exc:
            raise InvalidSetting("url", url, "not a URL; write sqlite:///relative.db or sqlite:////absolute.db") from exc
        if parsed.get_backend_name() != "sqlite":
            raise InvalidSetting("url", url, "agentkit_sql serves SQLite: write sqlite:///relative.db or sqlite:////absolute.db")
        if parsed.host:
            raise InvalidSetting("url", url, "a SQLite URL has three slashes (sqlite:///relative.db) or four (sqlite:////absolute.db)")
        if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
            raise InvalidSetting("url", url, "names no file; for runs in memory use memory://")
        known = set(cls.model_fields) - {"path"}
        for name in parsed.query:
            if name not in known:
                raise InvalidSetting(
                    name, parsed.query[name], f"no option of sqlite:// (known: {', '.join(sorted(known))}){nearest(name, known)}"
                )
        try:
            return cls.model_validate({"path": parsed.database, **parsed.query})
        except ValidationError as exc:
            problem = exc.errors()[0]
            raise InvalidSetting(str(problem["loc"][0]), problem["input"], problem["msg"]) from exc


class Database:
    """A file that is open, and who waits for its changes."""

    _open: ClassVar[WeakValueDictionary[tuple[object, ...], Database]] = WeakValueDictionary()
    _registry = threading.Lock()

    def __init__(self, path: str, busy_timeout_s: float) -> None:
        self.path, self.busy_timeout_s = path, busy_timeout_s
        self._users = 0
        self._owner: Owner | None = None
        self._changes = {RUNS: 1, QUEUE: 1}
        self._waiting: dict[str, list[tuple[Any, anyio.Event]]] = {RUNS: [], QUEUE: []}
        self._lock = threading.Lock()
        self._foreign: int | None = None
        self._next_look = 0.0

    @classmethod
    def attach(cls, settings: SqliteSettings, clock: Clock) -> Database:
        """Open the file, or share what is open. Blocks; each call needs its `detach`."""
        try:
            path = os.path.realpath(settings.path)
        except ValueError as exc:
            raise InvalidSetting("url", settings.path, f"not the path of a file: {exc}") from exc
        # A child of fork() has the registry but not the threads.
        key = (os.getpid(), path, settings.busy_timeout_s)
        with cls._registry:
            database = cls._open.get(key) or cls(path, settings.busy_timeout_s)
            if not database._users:
                database._owner = Owner(path, connect(path, settings.busy_timeout_s, clock), database.note)
            database._users += 1
            cls._open[key] = database
            return database

    def detach(self) -> None:
        """Close the file with its last user. Blocks."""
        with self._registry:
            self._users -= 1
            owner = self._owner
            if self._users or owner is None:
                return
            self._owner = None
        owner.stop()

    async def read(self, script: Script[T]) -> T:
        """Run a script that changes nothing."""
        return await self._do(script, write=False, sync=False, topic=OTHER)

    async def write(self, script: Script[T], *, sync: bool, topic: str = OTHER) -> T:
        """Run a script in a transaction; with `sync` it survives a power cut when this returns.

        Args:
            script: what to do.
            sync: whether to wait for the disk.
            topic: whose waiters are told, `RUNS` or `QUEUE`.
        """
        return await self._do(script, write=True, sync=sync, topic=topic)

    async def _do(self, script: Script[T], *, write: bool, sync: bool, topic: str) -> T:
        owner = self._owner
        if owner is None:
            raise StoreUnavailable(self.path, "it is closed: use it between open() and aclose()")
        job = Job(script, current_token().native_token, Gate(), write=write, sync=sync, topic=topic)
        owner.put(job)
        try:
            await job.gate.wait()
        except BaseException:
            # Cancelled: what is begun takes effect all the same, and nothing of the caller's may go on beside it.
            with anyio.CancelScope(shield=True):
                while not job.done:
                    job.gate = Gate()
                    await job.gate.wait()
            raise
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]

    def note(self, topics: set[str]) -> None:
        """Tell those who wait for a change. Called from any thread."""
        with self._lock:
            for topic in topics - {OTHER}:
                self._changes[topic] += 1
                waiting, self._waiting[topic] = self._waiting[topic], []
                for loop, event in waiting:
                    call_in(loop, event.set)

    def token(self, topic: str) -> int:
        """What `changed` compares with, as it is now."""
        return self._changes[topic]

    async def changed(self, topic: str, seen: int, timeout_s: float) -> int:
        """Wait until something about `topic` may have changed since `seen`, or the time is up; returns the new token."""
        give_up = anyio.current_time() + timeout_s
        poll_s = FIRST_POLL_S
        while True:
            with self._lock:
                if self._changes[topic] != seen:
                    return self._changes[topic]
                waiter = current_token().native_token, anyio.Event()
                self._waiting[topic].append(waiter)
            left = give_up - anyio.current_time()
            try:
                with anyio.move_on_after(max(0.0, min(poll_s, left))):
                    await waiter[1].wait()
            finally:
                with self._lock:
                    if waiter in self._waiting[topic]:
                        self._waiting[topic].remove(waiter)
            await self._look_abroad()
            if left <= poll_s and self._changes[topic] == seen:
                return seen
            poll_s = min(poll_s * 1.5, LAST_POLL_S)

    async def _look_abroad(self) -> None:
        """Notice other processes' commits, which nobody announces. One look serves all who wait."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + FIRST_POLL_S
        found = await self.read(self._foreign_commits())
        before, self._foreign = self._foreign, found
        if found != before:
            self.note({RUNS, QUEUE})

    @staticmethod
    def _foreign_commits() -> Script[int]:
        [(number,)] = yield _data_version, (), ROWS
        return int(number)


class SqlPort:
    """What the adapters of all ports have in common: a database that is opened and closed with them."""

    def __init__(self, settings: SqliteSettings, clock: Clock = SYSTEM) -> None:
        self.settings, self.clock = settings, clock
        self._opened: list[Database] = []

    @property
    def database(self) -> Database:
        """The open database. Raises `StoreUnavailable` before `open`."""
        if not self._opened:
            raise StoreUnavailable(self.settings.path, "it is not open: use it between open() and aclose()")
        return self._opened[-1]

    async def open(self) -> None:
        """Connect and migrate. May be called more than once; each call needs its `aclose`."""
        self._opened.append(await anyio.to_thread.run_sync(Database.attach, self.settings, self.clock))

    async def aclose(self) -> None:
        """Disconnect with the last of its kind."""
        if self._opened:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._opened.pop().detach)
