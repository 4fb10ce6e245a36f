"""Runs created inside the caller's own SQLAlchemy transaction: they are there if it commits, and were never there if it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from agentkit.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from agentkit_sql.dialect import Params

RULE = "submit(within=) takes an AsyncConnection or an AsyncSession of SQLAlchemy, on the database that holds the runs"


class _Session(Protocol):
    async def connection(self) -> AsyncConnection: ...


async def connection_of(within: AsyncConnection | AsyncSession | object) -> AsyncConnection:
    """The connection that the caller's transaction is on. Raises `InvalidSetting` for anything else."""
    if hasattr(within, "exec_driver_sql"):
        return cast("AsyncConnection", within)
    if hasattr(within, "connection"):
        return await cast("_Session", within).connection()
    raise InvalidSetting("within", type(within).__name__, RULE)


LOOPBACK = {"localhost": "127.0.0.1", "::1": "127.0.0.1"}


def same_server(one: URL, host: str, port: int, database: str | None) -> bool:
    """Whether a URL leads to that database; what it leaves open may be that."""
    hosts = {LOOPBACK.get(name, name) for name in (one.host or host, host)}
    return len(hosts) == 1 and (one.port or port, one.database or database) == (port, database or one.database)


class Within:
    """The caller's connection, as scripts see it. Nothing is begun, committed or closed here."""

    closed = False

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._dollars = connection.dialect.paramstyle == "numeric_dollar"
        self._marks = connection.dialect.paramstyle == "qmark"

    def _sql(self, sql: str) -> str:
        if self._marks:
            return sql
        first, *others = sql.split("?")
        if self._dollars:
            return first + "".join(f"${number}{part}" for number, part in enumerate(others, 1))
        return "%s".join(part.replace("%", "%%") for part in (first, *others))

    async def rows(self, sql: str, params: Params) -> Sequence[Sequence[Any]]:
        return (await self._connection.exec_driver_sql(self._sql(sql), tuple(params))).fetchall()

    async def count(self, sql: str, params: Params) -> int:
        return (await self._connection.exec_driver_sql(self._sql(sql), tuple(params))).rowcount

    async def many(self, sql: str, rows: Sequence[Params]) -> None:
        await self._connection.exec_driver_sql(self._sql(sql), [tuple(row) for row in rows])

    async def plain(self, sql: str) -> None:
        await self._connection.exec_driver_sql(sql)

    async def close(self) -> None: ...

    def terminate(self) -> None: ...
