"""Scripts on a server: connections of an async driver, transactions around the scripts, and errors in our words.

A connection belongs to the event loop that opened it, and several loops use one store: the heartbeat has a thread and a loop of its own.
So each loop has its own connections, which are closed with it.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

import anyio

from agentkit import tasks
from agentkit.errors import InvalidSetting, StoreBusy, StoreUnavailable
from agentkit_sql.dialect import MANY, ROWS
from agentkit_sql.news import OTHER, News, call_in
from agentkit_sql.port import BEAT, LANE, POOL
from agentkit_sql.schema import is_current, migrate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentkit_sql.dialect import Call, Dialect, Params, Script, Work

T = TypeVar("T")

TRIES = 8  # of a transaction that the server undid because of another one; each such conflict has a winner
LOOK_S = 0.25  # without a bell: a person notices nothing, and four small reads a second are nothing to a server
PAUSE_S = 0.01  # before the next, times a random number
MIGRATION_S = 3600.0  # a new index on a table of years takes its time


class Connection(Protocol):
    """What is asked of a driver's connection. SQL has `?` for parameters."""

    @property
    def closed(self) -> bool: ...

    async def rows(self, sql: str, params: Params) -> Sequence[Sequence[Any]]: ...

    async def count(self, sql: str, params: Params) -> int:
        """How many rows were changed."""
        ...

    async def many(self, sql: str, rows: Sequence[Params]) -> None: ...

    async def plain(self, sql: str) -> None:
        """What has no parameters and no answer: BEGIN and its like."""
        ...

    async def close(self) -> None: ...

    def terminate(self) -> None:
        """Close without a word to the server, from its own event loop."""
        ...


Act: TypeAlias = Callable[[Connection], Awaitable[T]]
"""What is done with a connection."""


class Driver(Protocol):
    """A driver with its settings."""

    transactions_only: bool
    """Every statement must stand between BEGIN and COMMIT: behind a pooler that lends out the server by transaction."""

    async def connect(self) -> Connection:
        """Raises errors of the port: `InvalidSetting` where trying again is no use, else `StoreBusy`."""
        ...

    def begin(self, *, sync: bool) -> str:
        """Opens a transaction; without `sync` its commit does not wait for the disk."""
        ...

    def undone(self, exc: BaseException) -> bool:
        """Whether the server undid the transaction because of another one, so that it may be tried again."""
        ...

    def translated(self, exc: BaseException) -> BaseException:
        """The error of the port for an error of the driver; any other as it is."""
        ...


class Bell(Protocol):
    """Tells other processes of changes, and hears theirs."""

    def listen(self) -> None:
        """Begin to hear, unless it has begun."""
        ...

    def ring(self, topic: str) -> None:
        """Tell, soon."""
        ...

    def stop(self) -> None:
        """Blocks until it is silent for ever."""
        ...


class Undone(Exception):
    """A transaction that left nothing behind and may be tried again; the cause says why."""


class Unprepared(Exception):
    """A statement has to be prepared first, by `prepare()`, outside of any transaction: the one that wants it is undone and run anew."""

    def __init__(self, prepare: Callable[[], Awaitable[None]]) -> None:
        super().__init__("a statement is not prepared")
        self.prepare = prepare


class Pool:
    """Up to `size` connections of one event loop, opened when needed."""

    def __init__(self, driver: Driver, size: int) -> None:
        self._driver = driver
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._room = anyio.Semaphore(size, fast_acquire=True)

    async def take(self) -> Connection:
        """A connection, alone, until it is given back."""
        await self._room.acquire()
        try:
            connection = self._whole() or await self._driver.connect()
        except BaseException:
            self._room.release()
            raise
        self._busy.add(connection)
        return connection

    def give(self, connection: Connection) -> None:
        """Take back a connection."""
        self._busy.discard(connection)
        if connection.closed:
            self.forget()  # a server that lost one has lost them all, most likely
        else:
            self._idle.append(connection)
        self._room.release()

    def _whole(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    def forget(self) -> None:
        """Drop what is idle."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()

    async def close(self) -> None:
        """Take leave of the server, and cut what is still busy."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()
        self.terminate()

    def terminate(self) -> None:
        """Cut everything."""
        self.forget()
        for connection in self._busy:
            connection.terminate()


class Watch:
    """Cancels what takes too long. One timer for all: with one of its own a scope costs two and a half times as much."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[anyio.CancelScope, float] = {}
        self._next = inf
        self.timer: asyncio.TimerHandle | None = None
        self._scope = tasks.Home().scope

    def begin(self, within_s: float) -> anyio.CancelScope:
        """A shield that is cancelled after `within_s`, unless it has ended."""
        scope = self._scope(shield=True)
        due = self._due[scope] = self._loop.time() + within_s
        if due < self._next:
            self._look_at(due)
        return scope

    def end(self, scope: anyio.CancelScope) -> None:
        """It has ended."""
        del self._due[scope]

    def _look(self) -> None:
        now = self._loop.time()
        for scope, due in self._due.items():
            if due <= now:
                scope.cancel()
        self._look_at(min((due for due in self._due.values() if due > now), default=inf))

    def _look_at(self, due: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self._next = due
        self.timer = self._loop.call_at(due, self._look) if due < inf else None


class Home:
    """The connections of one event loop."""

    def __init__(self, driver: Driver, sizes: Mapping[str, int], leave: Callable[[], object]) -> None:
        self.pools = {line: Pool(driver, size) for line, size in sizes.items()}
        self.watch = Watch(asyncio.get_running_loop())
        self._stay = self._staying(leave)

    async def _staying(self, leave: Callable[[], object]) -> AsyncGenerator[None, None]:
        """An event loop that ends closes the generators that are still open, and with this one its connections."""
        try:
            yield
        finally:
            leave()
            for pool in self.pools.values():
                await pool.close()

    async def move_in(self) -> None:
        await anext(self._stay)

    async def move_out(self) -> None:
        await self._stay.aclose()

    def terminate(self) -> None:
        """Cut everything."""
        for pool in self.pools.values():
            pool.terminate()


class Server:
    """A server that is open, and who waits for its changes.

    Args:
        name: what errors call it.
        driver: how to talk to it.
        bell: how processes tell each other of changes; None: they look from time to time.
        pool_size: connections of each event loop, beside one for the lane and one for the beat.
        answer_s: how long a transaction may take before the server is given up; over the server's own timeouts.
    """

    _open: ClassVar[dict[object, Server]] = {}
    _registry = threading.Lock()

    def __init__(self, name: str, driver: Driver, *, bell: Callable[[News], Bell] | None = None, pool_size: int, answer_s: float) -> None:
        self.name, self._driver, self._answer_s = name, driver, answer_s
        self._sizes = {POOL: pool_size, LANE: 1, BEAT: 1}
        self._news = News()
        self._bell = None if bell is None else bell(self._news)
        self._homes: dict[asyncio.AbstractEventLoop, Home] = {}
        self._users = 0
        self._ready = False

    @classmethod
    async def attach(cls, key: object, make: Callable[[], Server], dialect: Dialect) -> Server:
        """Open and migrate, or share what is open. Each call needs its `detach`."""
        place = (os.getpid(), key)  # a child of fork() has the registry but not the connections
        with cls._registry:
            server = cls._open.get(place) or make()
            server._users += 1
            cls._open[place] = server
        try:
            await server._prepare(dialect)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await server.detach()
            raise
        return server

    async def _prepare(self, dialect: Dialect) -> None:
        if self._ready:
            return
        if not await self.read(lambda: is_current(dialect)):
            await self.write(lambda: migrate(dialect, self.name), sync=True, answer_s=MIGRATION_S)
        self._ready = True

    async def detach(self) -> None:
        """Close the connections with the last user."""
        with self._registry:
            self._users -= 1
            if self._users:
                return
            for place in [place for place, server in self._open.items() if server is self]:
                del self._open[place]
        if self._bell is not None:
            await anyio.to_thread.run_sync(self._bell.stop)
        for loop, home in list(self._homes.items()):
            if loop is running_loop(self.name):
                await home.move_out()
            else:
                call_in(loop, home.terminate)

    async def _home(self) -> Home:
        loop = running_loop(self.name)
        home = self._homes.get(loop)
        if home is None:
            home = self._homes[loop] = Home(self._driver, self._sizes, lambda: self._homes.pop(loop, None))
            await home.move_in()
        return home

    async def read(self, work: Work[T]) -> T:
        """Run a script that changes nothing; each statement sees what was committed before it."""
        act = self._bare(work)
        try:
            return await self._attempt(act, line=POOL)
        except StoreBusy:
            raise
        except (StoreUnavailable, Undone):  # an idle connection that had died, most likely
            return await self._last_attempt(act, line=POOL)

    async def write(self, work: Work[T], *, sync: bool, topic: str = OTHER, line: str = POOL, answer_s: float | None = None) -> T:
        """Run a script in a transaction; anew when the server undid it because of another one.

        Args:
            work: makes the script.
            sync: whether to wait for the disk.
            topic: whose waiters are told, `RUNS` or `QUEUE`.
            line: whose connection it takes, `LANE`, `BEAT` or one of the `POOL`.
            answer_s: how long it may take, where not as long as any other.
        """
        return await self._persist(
            lambda connection: self._transact(connection, work, sync=sync), topic=topic, line=line, answer_s=answer_s
        )

    async def statement(self, sql: str, params: Params, *, topic: str, line: str = POOL) -> Sequence[Sequence[Any]]:
        """Run one statement that is a transaction by itself, and says itself whether to wait for the disk; returns its rows."""
        return await self._persist(self._asking(sql, params), topic=topic, line=line)

    async def try_statement(self, sql: str, params: Params, *, topic: str, line: str = POOL) -> Sequence[Sequence[Any]]:
        """The same, but once: raises `Undone` where the server undid it because of another transaction."""
        rows = await self._attempt(self._asking(sql, params), line=line)
        self.note(topic)
        return rows

    def _bare(self, work: Work[T]) -> Act[T]:
        if self._driver.transactions_only:
            return lambda connection: self._transact(connection, work, sync=False)
        return lambda connection: drive(connection, work())

    def _asking(self, sql: str, params: Params) -> Act[Sequence[Sequence[Any]]]:
        if self._driver.transactions_only:
            return lambda connection: self._transact(connection, lambda: one(sql, params), sync=True)
        return lambda connection: connection.rows(sql, params)

    async def _persist(self, act: Act[T], *, topic: str, line: str, answer_s: float | None = None) -> T:
        for number in range(1, TRIES):
            try:
                result = await self._attempt(act, line=line, answer_s=answer_s)
            except Undone:
                await anyio.sleep(PAUSE_S * number * random.random())
            else:
                break
        else:
            result = await self._last_attempt(act, line=line, answer_s=answer_s)
        self.note(topic)
        return result

    async def _last_attempt(self, act: Act[T], *, line: str, answer_s: float | None = None) -> T:
        try:
            return await self._attempt(act, line=line, answer_s=answer_s)
        except Undone as undone:
            told = self._driver.translated(undone.__cause__ or undone)
            raise StoreBusy(self.name, f"{told} ({TRIES} times)") if isinstance(told, StoreUnavailable) else told from undone

    async def _attempt(self, act: Act[T], *, line: str, answer_s: float | None = None) -> T:
        """What is begun goes on to its end although the caller is cancelled, so that nothing of the caller's happens beside it."""
        answer_s = answer_s or self._answer_s
        home = await self._home()
        pool = home.pools[line]
        connection = await pool.take()
        scope = home.watch.begin(answer_s)
        try:
            with scope:
                return await act(connection)
            connection.terminate()
        except Exception as exc:
            if self._driver.undone(exc):
                raise Undone from exc
            told = self._driver.translated(exc)
            if told is exc:
                raise
            raise told from exc
        finally:
            home.watch.end(scope)
            pool.give(connection)
        raise StoreUnavailable(self.name, f"no answer within {answer_s:g} s")

    async def _transact(self, connection: Connection, work: Work[T], *, sync: bool) -> T:
        while True:
            await _before(connection, connection.plain(self._driver.begin(sync=sync)))
            try:
                result = await drive(connection, work())
            except Unprepared as unprepared:
                await _roll_back(connection)
                await _before(connection, unprepared.prepare())
                continue
            except BaseException as exc:
                await _roll_back(connection)
                told = self._driver.translated(exc)
                if isinstance(told, StoreUnavailable) and not isinstance(told, StoreBusy):
                    raise Undone from exc  # no COMMIT was sent
                raise
            await connection.plain("COMMIT")
            return result

    def note(self, topic: str) -> None:
        """Tell those who wait for a change, here and in other processes."""
        if topic == OTHER:
            return
        self._news.note(topic)
        if self._bell is not None:
            self._bell.ring(topic)

    def token(self, topic: str) -> int:
        """What `changed` compares with, as it is now."""
        if self._bell is not None:
            self._bell.listen()
        return self._news.token(topic)

    async def changed(self, topic: str, seen: int, timeout_s: float) -> int:
        """Wait until something about `topic` may have changed since `seen`, or the time is up; returns the new token."""
        if self._bell is None:
            return await self._news.wait(topic, seen, min(timeout_s, LOOK_S))
        self._bell.listen()
        return await self._news.wait(topic, seen, timeout_s)


def running_loop(store: object) -> asyncio.AbstractEventLoop:
    """The event loop that we are in. Raises `InvalidSetting` in one of trio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError as exc:
        rule = "its drivers run on asyncio alone: start the app with asyncio.run(main()), or keep the state in sqlite://"
        raise InvalidSetting("url", str(store), rule) from exc


def one(sql: str, params: Params) -> Script[Sequence[Sequence[Any]]]:
    """A script of one statement."""
    rows: Sequence[Sequence[Any]] = yield sql, params, ROWS
    return rows


async def drive(connection: Connection, script: Script[T]) -> T:
    """Run a script to its end on a connection."""
    try:
        call = script.send(None)
        while True:
            call = script.send(await ask(connection, call))
    except StopIteration as stop:
        result: T = stop.value
        return result


async def ask(connection: Connection, call: Call) -> Any:
    """One statement's answer."""
    sql, params, how = call
    if how == ROWS:
        return await connection.rows(sql, params)
    if how == MANY:
        return await connection.many(sql, params)
    return await connection.count(sql, params)


async def _before(connection: Connection, done: Awaitable[None]) -> None:
    """What comes before the first statement of a transaction: where it fails, nothing is there to be undone."""
    try:
        await done
    except Exception as exc:
        connection.terminate()
        raise Undone from exc


async def _roll_back(connection: Connection) -> None:
    """A connection that cannot even do this is cut; what led here is told all the same."""
    done = False
    try:
        with suppress(Exception):
            if not connection.closed:
                await connection.plain("ROLLBACK")
                done = True
    finally:
        if not done:
            connection.terminate()
