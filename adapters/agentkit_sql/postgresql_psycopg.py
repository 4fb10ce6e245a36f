"""PostgreSQL by psycopg."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import anyio
import psycopg

from agentkit.errors import AgentKitError, InvalidSetting, StoreBusy, StoreRefused, StoreUnavailable
from agentkit_sql.postgresql import UNDONE, PostgresSettings, begin, by_state

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from agentkit_sql.dialect import Params

PREPARE_AFTER = 2  # uses of a statement on one connection; what is asked once is not worth it


class PsycopgConnection:
    """One connection, in autocommit: BEGIN is said by us."""

    def __init__(self, raw: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self.raw = raw

    @property
    def closed(self) -> bool:
        return self.raw.closed or self.raw.broken

    async def rows(self, sql: str, params: Params) -> Sequence[Sequence[Any]]:
        return await (await self.raw.execute(marked(sql), params, binary=True)).fetchall()

    async def count(self, sql: str, params: Params) -> int:
        return max(0, (await self.raw.execute(marked(sql), params)).rowcount)

    async def many(self, sql: str, rows: Sequence[Params]) -> None:
        async with self.raw.cursor() as cursor:
            await cursor.executemany(marked(sql), rows)

    async def plain(self, sql: str) -> None:
        await self.raw.execute(sql.encode())

    async def hear(self, channels: Collection[str], heard: Callable[[str, str], None], alive_s: float) -> None:
        """Call `heard(channel, payload)` for each notification until the connection is lost; it is tried every `alive_s`."""
        for channel in channels:
            await self.plain(f"LISTEN {channel}")
        while True:
            async for told in self.raw.notifies(timeout=alive_s):
                heard(told.channel, told.payload)
            with anyio.fail_after(alive_s):
                await self.plain("SELECT 1")

    async def close(self) -> None:
        await self.raw.close()

    def terminate(self) -> None:
        self.raw.pgconn.finish()


class PsycopgDriver:
    """The driver with its settings."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self.transactions_only = settings.pgbouncer

    async def connect(self) -> PsycopgConnection:
        settings = self._settings
        options = (
            ""
            if settings.pgbouncer
            else " ".join(f"-c {name}={_escaped(value)}" for name, value in (settings.session | settings.own).items())
        )
        try:
            with anyio.fail_after(settings.connect_timeout_s):
                raw = await psycopg.AsyncConnection.connect(
                    settings.dsn,
                    autocommit=True,
                    prepare_threshold=None if settings.pgbouncer else PREPARE_AFTER,
                    options=options or None,
                    application_name=None if settings.pgbouncer else "agentkit",
                    target_session_attrs="any" if settings.pgbouncer else "read-write",
                )
        except Exception as exc:
            raise self._not_connected(exc) from exc
        return PsycopgConnection(raw)

    def _not_connected(self, exc: Exception) -> BaseException:
        told = self.translated(exc)
        # libpq tells no SQLSTATE of a connection that failed, only the server's words.
        words = str(exc)
        for sign, rule in WRONG.items():
            if sign in words:
                return InvalidSetting("url", self._settings.store, f"{words.strip()}: {rule}")
        if isinstance(told, StoreUnavailable):
            store = self._settings.store
            return StoreBusy(store, f"cannot connect: {words.strip() or 'no answer'}: is the server up, and may this host reach it?")
        return told

    def begin(self, *, sync: bool) -> str:
        return begin(self._settings, sync=sync)

    def undone(self, exc: BaseException) -> bool:
        return isinstance(exc, psycopg.Error) and exc.sqlstate in UNDONE

    def translated(self, exc: BaseException) -> BaseException:
        store = self._settings.store
        if isinstance(exc, AgentKitError):
            return exc
        if isinstance(exc, psycopg.Error) and exc.sqlstate:
            return by_state(exc.sqlstate, str(exc).strip(), store)
        if isinstance(exc, (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError, UnicodeError, OverflowError)):
            return StoreRefused(f"{store}: PostgreSQL does not take the data: {exc}. Nothing was written")
        if isinstance(exc, (OSError, TimeoutError, psycopg.Error)):
            return StoreUnavailable(store, f"{str(exc).strip() or 'no answer'}")
        return exc


WRONG = {
    "password authentication failed": "check user and password, and pg_hba.conf on the server",
    "no password supplied": "write the password into the URL, or into PGPASSWORD",
    "no pg_hba.conf entry": "let this host in (pg_hba.conf on the server)",
    '" does not exist': "create it first, or correct its name",
}
"""Words of a server that refuses a connection, and the way out."""


@lru_cache(maxsize=1024)
def marked(sql: str) -> bytes:
    """`?` as `%s`."""
    return sql.replace("%", "%%").replace("?", "%s").encode()


def _escaped(value: str) -> str:
    """A value in libpq's `options`, where a blank ends it."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def open_driver(settings: PostgresSettings) -> PsycopgDriver:
    """The driver for a URL."""
    return PsycopgDriver(settings)
