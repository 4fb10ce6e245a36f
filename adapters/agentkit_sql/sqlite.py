"""SQLite: one thread owns one connection and commits in groups.

Whatever is asked while a commit is on its way to the disk is carried out in the next transaction together, each job inside a savepoint,
so that one sync pays for all and an error undoes only its own job. Nothing here knows an event loop but the token by which a job's
caller is told, so one connection serves asyncio, trio and several loops at once.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agentkit.errors import AgentKitError, InvalidSetting, StoreBusy, StoreCorrupt, StoreRefused, StoreUnavailable
from agentkit.tasks import Gate
from agentkit_sql.dialect import MANY, ROWS, SqliteDialect
from agentkit_sql.news import call_in
from agentkit_sql.schema import is_current, migrate

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from agentkit.clock import Clock
    from agentkit_sql.dialect import Call, Script

T = TypeVar("T")

MAX_JOBS = 256  # a transaction; more would only make the first wait for the last
CACHED_STATEMENTS = 512  # all of ours, prepared once
STRICT_SINCE = (3, 37, 0)
# Below it, two connections that checkpoint at once can lose committed pages (the WAL-reset bug): there one process alone does.
FREE_CHECKPOINTS_SINCE = (3, 51, 3)
PAGE_BYTES = 8192  # of a new file: a commit of 50 results of 1 KB then writes 15 pages, not 28, and each costs two calls of the system
CHECKPOINT_PAGES = 2000  # 16 MB of log: a page that changes often is copied once for all, some 3 % of what 50 busy runs cost
COMMITS_BETWEEN_ELECTIONS = 256
COMMITS_BETWEEN_COPIES = 64  # with fewer a page that changes often is copied more often, with more the log is longer


UNFIT_DATA = (UnicodeError, OverflowError, sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What the driver raises for values that it cannot bind, before or while it writes them."""


class Job(Generic[T]):
    """A script to run, and how to tell its caller. `flush`: it changes runs of its own worker and nothing else."""

    __slots__ = ("done", "error", "flush", "gate", "loop", "result", "script", "sync", "topic", "write")

    def __init__(self, script: Script[T], loop: Any, gate: Gate, *, write: bool, sync: bool, topic: str, flush: bool = False) -> None:
        self.script, self.loop, self.gate = script, loop, gate
        self.done = False
        self.write, self.sync, self.topic, self.flush = write, sync, topic, flush
        self.result: T | None = None
        self.error: BaseException | None = None


def translated(exc: BaseException, path: str) -> BaseException:
    """The error of the port for an error of the driver: the one place where they meet."""
    if isinstance(exc, AgentKitError):
        return exc
    if isinstance(exc, UNFIT_DATA):
        return StoreRefused(f"{path}: SQLite does not take the data: {exc}. Nothing was written")
    if not isinstance(exc, sqlite3.Error):
        return exc
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(path, f"{exc}")
    if code == sqlite3.SQLITE_TOOBIG:
        return StoreRefused(f"{path}: SQLite does not take the data: {exc}. Nothing was written")
    ways_out = {
        sqlite3.SQLITE_BUSY: "another process holds the file's lock: end it if it is stopped, or raise ?busy_timeout_s",
        sqlite3.SQLITE_FULL: "the disk is full: free some space",
        sqlite3.SQLITE_IOERR: "the disk failed: check it and the file's folder",
        sqlite3.SQLITE_READONLY: "the file has become read-only: check its owner and mode",
        sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check its folder and the limit of open files",
    }
    # All but a failing disk are told before the commit, and what is not committed is rolled back.
    error = StoreBusy if code in ways_out and code != sqlite3.SQLITE_IOERR else StoreUnavailable
    return error(path, f"{exc}" + (f" ({ways_out[code]})" if code in ways_out else ""))


def connect(path: str, busy_timeout_s: float, clock: Clock) -> sqlite3.Connection:
    """Open the file, create it when it is missing, and bring its schema up to date. Blocks.

    Raises:
        InvalidSetting: no such folder, or no right to write.
        StoreCorrupt: not a database. SchemaTooNew: made by a newer agentkit. StoreUnavailable: locked.
    """
    if Path(path).is_dir() or not Path(path).parent.is_dir():
        raise InvalidSetting("url", path, "a SQLite file in a folder that exists: create the folder first")
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
        )
        _set_up(connection, busy_timeout_s)
        dialect = SqliteDialect(clock, strict=sqlite3.sqlite_version_info >= STRICT_SINCE)
        if not drive(connection, is_current(dialect)):
            connection.execute("BEGIN IMMEDIATE")
            drive(connection, migrate(dialect, path))
            connection.execute("COMMIT")
    except BaseException as exc:
        if connection is not None:
            connection.close()
        if isinstance(exc, sqlite3.Error) and getattr(exc, "sqlite_errorcode", 0) & 0xFF in (
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
        ):
            raise InvalidSetting("url", path, f"a SQLite file that this process may write, in such a folder too ({exc})") from exc
        raise translated(exc, path) from exc
    return connection


def _set_up(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # says nothing to a file that there is
    # SQLite does not wait for others when it changes the journal mode, so processes that start together meet here.
    pause = threading.Event()
    for left in range(int(busy_timeout_s / 0.02), -1, -1):
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            break
        except sqlite3.OperationalError:
            if not left:
                raise
            pause.wait(0.02)
    for pragma in ("cache_size = -16384", "temp_store = MEMORY", "journal_size_limit = 67108864", "wal_autocheckpoint = 0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def drive(connection: sqlite3.Connection, script: Generator[Call, Any, T]) -> T:
    """Run a script to its end on a connection."""
    send, execute = script.send, connection.execute
    try:
        sql, params, how = send(None)
        while True:
            if how == ROWS:
                sql, params, how = send(execute(sql, params).fetchall())
            elif how == MANY:
                sql, params, how = send(connection.executemany(sql, params).rowcount)
            else:
                sql, params, how = send(execute(sql, params).rowcount)
    except StopIteration as stop:
        result: T = stop.value
        return result


class Checkpointer:
    """Elects the one process that moves the log into the file, by a lock on a file beside it.

    The lock dies with its process and another takes it. A process that is stopped keeps it: the log then grows until it goes on.

    A thread copies beside the writer, so that no commit waits for it. While commits go on it never comes to the log's end; the rest,
    after which the log begins anew, the writer copies itself when the log is long: then no other connection copies.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock: int | None = None
        self._elected = False
        self._commits = 0
        self._copying = False
        self._due: SimpleQueue[bool] = SimpleQueue()
        self._copier: threading.Thread | None = None

    def stand(self, connection: sqlite3.Connection) -> None:
        """Become the one if nobody is."""
        if self._elected:
            return
        if sys.platform != "win32" and sqlite3.sqlite_version_info < FREE_CHECKPOINTS_SINCE:
            if self._lock is None:
                self._lock = os.open(f"{self._path}-checkpointer", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
        self._elected = True
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}").fetchall()

    def committed(self) -> None:
        """Count a commit; from time to time have copied what has gathered."""
        self._commits += 1
        if self._elected and not self._copying and self._commits >= COMMITS_BETWEEN_COPIES:
            self._copying = True
            if self._copier is None:
                self._copier = threading.Thread(target=self._copy, name=f"agentkit-copies-{Path(self._path).name}", daemon=True)
                self._copier.start()
            self._due.put(True)

    def _copy(self) -> None:
        # What fails here, the writer meets in its own copying.
        with suppress(sqlite3.Error), closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            while self._due.get():
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                # Counted from its end: one copy right behind another, with a commit beside it, is what the WAL-reset bug needs.
                self._commits, self._copying = 0, False

    def stop(self) -> None:
        """Copy no more. Blocks until the thread has ended."""
        if self._copier is not None:
            self._due.put(False)
            self._copier.join()

    def resign(self) -> None:
        """Leave it to another process."""
        if self._lock is not None:
            os.close(self._lock)


class Owner:
    """The thread that owns a connection.

    Attributes:
        known: what flushes remember of the file from one to the next, for scripts alone. It is true as long as nobody else has written:
            it is emptied when another connection has committed, which SQLite says inside the transaction, where nobody can write any
            more; when anything but a flush writes on this one; and when what was written may have been undone.
    """

    def __init__(self, path: str, connection: sqlite3.Connection, on_commit: Callable[[str], None]) -> None:
        self._path, self._connection, self._on_commit = path, connection, on_commit
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self.known: dict[Any, Any] = {}
        self._foreign = 0
        self._full = True
        self._commits = 0
        self._checkpointer = Checkpointer(path)
        self._ended = self._closed = False
        self._thread = threading.Thread(target=self._serve, name=f"agentkit-sqlite-{Path(path).name}", daemon=True)
        self._thread.start()

    def put(self, job: Job[Any]) -> None:
        """Have a job done."""
        self._queue.put(job)
        if self._closed:  # it may have come after the last look
            self._refuse_rest()

    def stop(self) -> None:
        """Do what is queued, then close the connection. Blocks; a second call does nothing."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError, sqlite3.Error):
            self._checkpointer.stand(self._connection)
        while not self._ended:
            jobs = self._take()
            writes = [job for job in jobs if job.write]
            if len(writes) < len(jobs):
                reads = [job for job in jobs if not job.write]
                for job in reads:
                    self._run(job)
                answer(reads)
            if writes:
                self._transact(writes)
                answer(writes)
        self._checkpointer.stop()
        self._connection.close()
        self._checkpointer.resign()
        self._closed = True
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        with suppress(Empty):
            while True:
                job = self._queue.get_nowait()
                if job is not None:
                    job.error = StoreUnavailable(self._path, "it was closed meanwhile")
                    answer([job])

    def _take(self) -> list[Job[Any]]:
        """Wait for a job; with it, all that came meanwhile."""
        jobs: list[Job[Any]] = []
        job = self._queue.get()
        while True:
            if job is None:
                self._ended = True
                return jobs
            jobs.append(job)
            if len(jobs) >= MAX_JOBS or not self._queue.qsize():
                return jobs
            job = self._queue.get_nowait()

    def _run(self, job: Job[Any]) -> None:
        try:
            job.result = drive(self._connection, job.script)
        except BaseException as exc:  # noqa: BLE001  whatever it is, it belongs to the caller, and the thread lives on
            job.error = self._told(exc)
        if job.write and (not job.flush or job.error is not None):
            self.known.clear()

    def _told(self, exc: BaseException) -> BaseException:
        told = translated(exc, self._path)
        if told is not exc:
            told.__cause__ = exc
        return told

    def _transact(self, jobs: list[Job[Any]]) -> None:
        """All of `jobs` in one transaction; an error undoes its own job, one that ends the transaction fails them all."""
        try:
            self._carry_out(jobs)
        except BaseException as exc:  # noqa: BLE001  as in _run
            self.known.clear()
            told = self._told(exc)
            for job in jobs:
                job.error = job.error or told
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            return
        for topic in {job.topic for job in jobs if job.error is None}:
            self._on_commit(topic)
        self._commits += 1
        self._checkpointer.committed()
        if not self._commits % COMMITS_BETWEEN_ELECTIONS:
            with suppress(OSError, sqlite3.Error):
                self._checkpointer.stand(self._connection)

    def _carry_out(self, jobs: list[Job[Any]]) -> None:
        connection, alone = self._connection, len(jobs) == 1
        self._begin(full=any(job.sync for job in jobs))
        for job in jobs:
            if not alone:
                connection.execute("SAVEPOINT job")
            self._run(job)
            if job.error is not None:
                if alone or not connection.in_transaction:  # a full disk and its like undo the whole transaction
                    raise job.error
                connection.execute("ROLLBACK TO job")
            if not alone:
                connection.execute("RELEASE job")
        connection.execute("COMMIT")

    def _begin(self, *, full: bool) -> None:
        # The log's order carries the prefix: what is committed without a sync reaches the disk with the next one, before it.
        if full != self._full:
            self._connection.execute("PRAGMA synchronous = " + ("FULL" if full else "NORMAL")).fetchall()
            self._full = full
        self._connection.execute("BEGIN IMMEDIATE")
        [(foreign,)] = self._connection.execute("PRAGMA data_version")
        if foreign != self._foreign:
            self._foreign = foreign
            self.known.clear()


def answer(jobs: list[Job[Any]]) -> None:
    """Wake the callers, with one call for each event loop."""
    by_loop: dict[Any, list[Job[Any]]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, waiting in by_loop.items():
        call_in(loop, tell, waiting)


def tell(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job.done = True
        job.gate.set()
