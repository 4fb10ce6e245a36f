"""A SQLite file by URL: one connection for each file, process and settings, shared by all that asks for it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import WeakValueDictionary

import anyio
from pydantic import Field

from agentkit.errors import InvalidSetting, StoreUnavailable
from agentkit.ports.settings import settings_from
from agentkit.tasks import Home
from agentkit_sql.dialect import ROWS, SqliteDialect, Statement
from agentkit_sql.news import OTHER, QUEUE, RUNS, News
from agentkit_sql.port import LANE, POOL, SqlSettings, parsed
from agentkit_sql.sqlite import Job, Owner, connect

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from agentkit.clock import Clock
    from agentkit_sql.dialect import Script, Work

T = TypeVar("T")

FIRST_POLL_S, LAST_POLL_S = 0.005, 0.05  # how often other processes' commits are looked for: 2 us a look, and a person notices nothing
_data_version = Statement("PRAGMA data_version").sql
FORMS = "sqlite:///relative.db or sqlite:////absolute.db"


class SqliteSettings(SqlSettings):
    """What may stand in a `sqlite://` URL."""

    path: str
    busy_timeout_s: float = Field(default=5.0, ge=0)  # a writer holds the lock for milliseconds; 5 s outlasts a slow checkpoint
    max_depth: int = Field(default=1_000_000, ge=1)  # undelivered tickets: about 1 GB, far more than is drained before anybody looks

    @classmethod
    def from_url(cls, url: str) -> SqliteSettings:
        """Read a URL. Raises `InvalidSetting` naming what is wrong with it."""
        parts = parsed(url, FORMS)
        if parts.get_backend_name() != "sqlite":
            raise InvalidSetting("url", url, f"not the URL of a SQLite file: write {FORMS}")
        if parts.host:
            raise InvalidSetting("url", url, "a SQLite URL has three slashes (sqlite:///relative.db) or four (sqlite:////absolute.db)")
        if not parts.database or parts.database == ":memory:" or parts.database.startswith("file:"):
            raise InvalidSetting("url", url, "names no file; for runs in memory use memory://")
        return settings_from(cls, {"path": parts.database}, parts.query, "sqlite")

    @property
    def store(self) -> str:
        return self.path

    @property
    def min_lease_s(self) -> float:
        return 10.0  # several processes that flush make a beat wait up to 0.6 s (p99), and a slow checkpoint far longer

    def dialect(self, clock: Clock) -> SqliteDialect:
        return SqliteDialect(clock)

    def names(self, url: URL) -> bool:
        return url.get_backend_name() == "sqlite" and os.path.realpath(url.database or "") == os.path.realpath(self.path)

    async def attach(self, clock: Clock) -> Database:
        return await anyio.to_thread.run_sync(Database.attach, self, clock)


class Database:
    """A file that is open, and who waits for its changes."""

    _open: ClassVar[WeakValueDictionary[tuple[object, ...], Database]] = WeakValueDictionary()
    _registry = threading.Lock()

    def __init__(self, path: str, busy_timeout_s: float) -> None:
        self.path, self.busy_timeout_s = path, busy_timeout_s
        self._users = 0
        self._owner: Owner | None = None
        self._news = News()
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

    async def detach(self) -> None:
        """Close the file with its last user."""
        with self._registry:
            self._users -= 1
            owner = self._owner
            if self._users or owner is None:
                return
            self._owner = None
        await anyio.to_thread.run_sync(owner.stop)

    async def read(self, work: Work[T]) -> T:
        """Run a script that changes nothing."""
        return await self._do(work(), write=False, sync=False, topic=OTHER)

    async def write(self, work: Work[T], *, sync: bool, topic: str = OTHER, line: str = POOL) -> T:
        """Run a script in a transaction; with `sync` it survives a power cut when this returns."""
        return await self._do(work(), write=True, sync=sync, topic=topic, flush=line == LANE)

    @property
    def known(self) -> dict[Any, Any]:
        """What `Owner.known` says."""
        return {} if self._owner is None else self._owner.known

    async def _do(self, script: Script[T], *, write: bool, sync: bool, topic: str, flush: bool = False) -> T:
        owner = self._owner
        if owner is None:
            raise StoreUnavailable(self.path, "it is closed: use it between open() and aclose()")
        home = Home()
        job = Job(script, home.token, home.gate(), write=write, sync=sync, topic=topic, flush=flush)
        owner.put(job)
        try:
            await job.gate.wait()
        except BaseException:
            # Cancelled: what is begun takes effect all the same, and nothing of the caller's may go on beside it.
            with anyio.CancelScope(shield=True):
                while not job.done:
                    job.gate = home.gate()
                    await job.gate.wait()
            raise
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]

    def note(self, topic: str) -> None:
        """Tell those who wait for a change. Called from any thread."""
        if topic != OTHER:
            self._news.note(topic)

    def token(self, topic: str) -> int:
        """What `changed` compares with, as it is now."""
        return self._news.token(topic)

    async def changed(self, topic: str, seen: int, timeout_s: float) -> int:
        """Wait until something about `topic` may have changed since `seen`, or the time is up; returns the new token."""
        give_up = anyio.current_time() + timeout_s
        poll_s = FIRST_POLL_S
        while True:
            left = give_up - anyio.current_time()
            token = await self._news.wait(topic, seen, min(poll_s, left))
            if token != seen:
                return token
            await self._look_abroad()
            if left <= poll_s or self._news.token(topic) != seen:
                return self._news.token(topic)
            poll_s = min(poll_s * 1.5, LAST_POLL_S)

    async def _look_abroad(self) -> None:
        """Notice other processes' commits, which nobody announces. One look serves all who wait."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + FIRST_POLL_S
        found = await self.read(self._foreign_commits)
        before, self._foreign = self._foreign, found
        if found != before:
            self.note(RUNS)
            self.note(QUEUE)

    @staticmethod
    def _foreign_commits() -> Script[int]:
        [(number,)] = yield _data_version, (), ROWS
        return int(number)
