"""PostgreSQL by asyncpg."""

from __future__ import annotations

from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio

from agentkit.errors import AgentKitError, InvalidSetting, StoreBusy, StoreRefused, StoreUnavailable
from agentkit_sql.postgresql import UNDONE, PostgresSettings, begin, by_state
from agentkit_sql.server import Unprepared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from agentkit_sql.dialect import Params

asyncpg: Any = import_module("asyncpg")  # it says nothing of its types
STATEMENTS = 1  # we keep them ourselves, but with a cache of none asyncpg gives them no names, and prepares at each use
CLOSE_S = 1.0  # for a farewell; a server that does not hear it notices the closed socket


class AsyncpgConnection:
    """One connection.

    asyncpg prepares with Flush, not Sync, and between that and the execution of the statement PostgreSQL heeds none of its timeouts: a
    process that is stopped there, in a transaction, would keep its locks for as long as it stands still. So no statement is prepared in a
    transaction, except one that needs what this very transaction makes.
    """

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self._prepared: dict[str, Any] = {}
        self._of_the_future: set[str] = set()

    @property
    def closed(self) -> bool:
        return bool(self.raw.is_closed())

    async def rows(self, sql: str, params: Params) -> Sequence[Sequence[Any]]:
        statement = self._prepared.get(sql) or await self._statement(sql)
        try:
            found: Sequence[Sequence[Any]] = await statement.fetch(*params)
        except asyncpg.InvalidCachedStatementError:  # the schema has changed
            self._prepared.clear()
            raise
        return found

    async def count(self, sql: str, params: Params) -> int:
        if not params:
            return _number(await self.raw.execute(sql))  # simple protocol: nothing is prepared
        await self.rows(sql, params)
        return _number(self._prepared[sql].get_statusmsg())

    async def many(self, sql: str, rows: Sequence[Params]) -> None:
        statement = self._prepared.get(sql) or await self._statement(sql)
        await statement.executemany(rows)

    async def _statement(self, sql: str) -> Any:
        if self.raw.is_in_transaction() and sql not in self._of_the_future:
            raise Unprepared(partial(self._prepare, sql))
        statement = self._prepared[sql] = await self.raw.prepare(numbered(sql))
        self._of_the_future.discard(sql)
        return statement

    async def _prepare(self, sql: str) -> None:
        try:
            await self._statement(sql)
        except asyncpg.SyntaxOrAccessError:  # no such table, or column: the transaction will tell
            self._of_the_future.add(sql)

    async def plain(self, sql: str) -> None:
        await self.raw.execute(sql)

    async def hear(self, channels: Collection[str], heard: Callable[[str, str], None], alive_s: float) -> None:
        """Call `heard(channel, payload)` for each notification until the connection is lost; it is tried every `alive_s`."""
        lost = anyio.Event()
        self.raw.add_termination_listener(_then(lost.set))
        for channel in channels:
            await self.raw.add_listener(channel, _passed_on(heard))
        while True:
            with anyio.move_on_after(alive_s):
                await lost.wait()
            with anyio.fail_after(alive_s):
                await self.raw.execute("SELECT 1")

    async def close(self) -> None:
        try:
            await self.raw.close(timeout=CLOSE_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.terminate()

    def terminate(self) -> None:
        if not self.raw.is_closed():
            self.raw.terminate()


def _then(function: Callable[[], object]) -> Callable[[object], None]:
    """A listener of asyncpg's that is called with the connection."""

    def listener(_: object) -> None:
        function()

    return listener


def _passed_on(heard: Callable[[str, str], None]) -> Callable[[object, int, str, str], None]:
    """A listener of asyncpg's that is called with connection, process, channel and payload."""

    def listener(_: object, __: int, channel: str, payload: str) -> None:
        heard(channel, payload)

    return listener


class PooledConnection(AsyncpgConnection):
    """One connection to PgBouncer, where each transaction may meet another session: nothing that was prepared is there to be used again."""

    async def rows(self, sql: str, params: Params) -> Sequence[Sequence[Any]]:
        found: Sequence[Sequence[Any]] = await self.raw.fetch(numbered(sql), *params)
        return found

    async def count(self, sql: str, params: Params) -> int:
        return _number(await self.raw.execute(numbered(sql), *params))

    async def many(self, sql: str, rows: Sequence[Params]) -> None:
        await self.raw.executemany(numbered(sql), rows)


def _number(tag: str) -> int:
    """How many rows a command's tag speaks of: `UPDATE 3`."""
    number = tag.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0


class AsyncpgDriver:
    """The driver with its settings."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self.transactions_only = settings.pgbouncer

    async def connect(self) -> AsyncpgConnection:
        settings = self._settings
        try:
            with anyio.fail_after(settings.connect_timeout_s):
                raw = await asyncpg.connect(
                    settings.dsn,
                    timeout=settings.connect_timeout_s,
                    statement_cache_size=0 if settings.pgbouncer else STATEMENTS,
                    server_settings=None if settings.pgbouncer else {**settings.session, **settings.own, "application_name": "agentkit"},
                    target_session_attrs="any" if settings.pgbouncer else "read-write",
                )
        except Exception as exc:
            told = self.translated(exc)
            if isinstance(told, (InvalidSetting, StoreBusy)):
                raise told from exc
            if isinstance(told, StoreUnavailable):
                raise StoreBusy(
                    settings.store, f"cannot connect: {str(exc) or 'no answer'}: is the server up, and may this host reach it?"
                ) from exc
            raise
        return PooledConnection(raw) if settings.pgbouncer else AsyncpgConnection(raw)

    def begin(self, *, sync: bool) -> str:
        return begin(self._settings, sync=sync)

    def undone(self, exc: BaseException) -> bool:
        return _state(exc) in UNDONE or isinstance(exc, asyncpg.InvalidCachedStatementError)

    def translated(self, exc: BaseException) -> BaseException:
        store = self._settings.store
        if isinstance(exc, AgentKitError):
            return exc
        if isinstance(exc, asyncpg.PostgresConnectionError):
            return StoreUnavailable(store, f"the connection was lost: {exc}")
        if state := _state(exc):
            return by_state(state, str(exc), store)
        if isinstance(exc, (asyncpg.DataError, UnicodeError, OverflowError)):
            return StoreRefused(f"{store}: PostgreSQL does not take the data: {exc}. Nothing was written")
        if isinstance(exc, (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
            return StoreUnavailable(store, str(exc) or "no answer")
        return exc


def _state(exc: BaseException) -> str:
    state = getattr(exc, "sqlstate", None) if isinstance(exc, asyncpg.PostgresError) else None
    return state or ""


@lru_cache(maxsize=1024)
def numbered(sql: str) -> str:
    """`?` as `$1`, `$2`, …"""
    first, *others = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(others, 1))


def open_driver(settings: PostgresSettings) -> AsyncpgDriver:
    """The driver for a URL."""
    return AsyncpgDriver(settings)
