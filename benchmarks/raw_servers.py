"""The raw limits of the servers: their drivers with nothing around them, one statement or command for each result."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from benchmarks.raw import JOURNAL, JournalRow
from tests.servers.mariadb import USER as MARIADB_USER
from tests.servers.mariadb import Mariadb
from tests.servers.postgresql import Postgresql
from tests.servers.process import Server
from tests.servers.redis import Redis

# They say too little of their types for us to check what we ask of them.
asyncmy: Any = import_module("asyncmy")
asyncpg: Any = import_module("asyncpg")
redis: Any = import_module("redis.asyncio")

POOL = 20  # connections: with more, both databases commit fewer rows a second here
COLUMNS = "run_id, seq, fence, kind, k, attempt, fp, codec, body, at_ms, took_us"

Write = Callable[[JournalRow], Awaitable[object]]


@dataclass(frozen=True)
class Kind:
    """A server, started as one that keeps what it acknowledges, and its raw writer."""

    name: str
    start: Callable[[], Server]
    url: Callable[[Any], str]
    raw: Callable[[Any], AbstractAsyncContextManager[Write]]


@asynccontextmanager
async def raw_postgresql(server: Postgresql) -> AsyncGenerator[Write]:
    """One autocommit INSERT by asyncpg for each result, on a pool."""
    table = JOURNAL.replace("INTEGER", "BIGINT").replace("BLOB", "BYTEA").replace(" key ", " k ")
    async with asyncpg.create_pool(server.url("postgres"), min_size=POOL, max_size=POOL) as pool:
        await pool.execute(table)
        insert = f"INSERT INTO journal ({COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, 12))})"

        async def write(row: JournalRow) -> None:
            await pool.execute(insert, *row)

        yield write


@asynccontextmanager
async def raw_mariadb(server: Mariadb) -> AsyncGenerator[Write]:
    """One autocommit INSERT by asyncmy for each result, on a pool."""
    table = JOURNAL.replace("INTEGER", "BIGINT").replace("TEXT", "VARCHAR(400)").replace(" key ", " k ").replace("BLOB", "LONGBLOB")
    database = server.new_database()
    async with asyncmy.create_pool(
        host="127.0.0.1", port=server.port, user=MARIADB_USER, db=database, minsize=POOL, maxsize=POOL, autocommit=True
    ) as pool:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(table)
        insert = f"INSERT INTO journal ({COLUMNS}) VALUES ({', '.join(['%s'] * 11)})"

        async def write(row: JournalRow) -> None:
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute(insert, row)

        yield write


@asynccontextmanager
async def raw_redis(server: Redis) -> AsyncGenerator[Write]:
    """One XADD for each result, on a pool."""
    pool = redis.BlockingConnectionPool.from_url(server.url, max_connections=50, timeout=None)
    client = redis.Redis(connection_pool=pool)

    async def write(row: JournalRow) -> None:
        run_id, seq, fence, kind, key, attempt, fp, codec, body, at_ms, took_us = row
        await client.xadd(
            f"raw:{run_id}",
            {
                "f": fence, "k": kind, "n": key, "a": attempt, "p": fp, "c": codec, "b": body, "t": at_ms, "u": took_us,
            },
            id=f"{seq}-0",
        )  # fmt: skip

    try:
        yield write
    finally:
        await client.aclose()
        await pool.aclose()


def _postgresql() -> Server:
    return Postgresql(lasting=True)


def _mariadb() -> Server:
    return Mariadb(lasting=True)


def _redis() -> Server:
    return Redis(appendonly="yes", appendfsync="everysec")


POSTGRESQL = Kind("postgresql", _postgresql, lambda server: server.url(server.new_database()), raw_postgresql)
MARIADB = Kind("mariadb", _mariadb, lambda server: server.url(server.new_database()), raw_mariadb)
REDIS = Kind("redis", _redis, lambda server: server.url, raw_redis)
