"""The queue on PostgreSQL and MariaDB, beside the same work in bare statements of the same driver."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import anyio.to_thread

from agentkit.clock import SYSTEM
from agentkit.plugins import open_url
from agentkit.ports.queue import Lease, Queue, Ticket
from benchmarks.figures import Bar, Bench, Figure
from benchmarks.raw_servers import MARIADB, POSTGRESQL, Kind, asyncmy, asyncpg
from benchmarks.rows.redis_queue import BATCH, KINDS, LEASE_S, PUT_BATCH, some_tickets
from tests.servers.mariadb import USER as MARIADB_USER
from tests.servers.mariadb import Mariadb
from tests.servers.postgresql import Postgresql
from tests.servers.process import private


class Contender(Protocol):
    """A queue, as these rows use one."""

    async def put(self, tickets: Sequence[Ticket]) -> None: ...

    async def lease(self) -> Sequence[Any]:
        """The first `BATCH` that wait, with their tickets read."""
        ...

    async def finish(self, leases: Sequence[Any]) -> object: ...


class Ours:
    """The port, as anybody may use it."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.put, self.finish = queue.put, queue.finish

    async def lease(self) -> list[Lease]:
        return await self._queue.lease(BATCH, wait_s=0, lease_s=LEASE_S, kinds=KINDS)


class RawPostgresql:
    """A body, a state and a lease; each answer fenced by its attempt. No kinds, no priorities, no fairness, no dedup, no bound."""

    TABLE = (
        "CREATE TABLE raw (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body TEXT NOT NULL, state SMALLINT NOT NULL DEFAULT 0, "
        "attempt INT NOT NULL DEFAULT 0, due TIMESTAMPTZ)"
    )
    READY = "CREATE INDEX raw_ready ON raw (id) WHERE state = 0"
    PUT = "INSERT INTO raw (body) SELECT unnest($1::text[])"
    QUIET = "(SELECT set_config('synchronous_commit', 'off', true)) AS quiet"  # as the product: only `put` waits for the disk
    LEASE = (
        f"UPDATE raw SET state = 1, attempt = attempt + 1, due = now() + interval '{LEASE_S} s' FROM {QUIET} WHERE id = ANY(ARRAY"
        f"(SELECT id FROM raw WHERE state = 0 ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED)) RETURNING id, attempt, body"
    )
    FINISH = (
        f"DELETE FROM raw USING {QUIET}, unnest($1::bigint[], $2::int[]) AS held(id, attempt) "
        "WHERE raw.id = held.id AND raw.attempt = held.attempt AND state = 1"
    )

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def opened(cls, server: Postgresql) -> AsyncGenerator[RawPostgresql]:
        # Two connections, one to lease and one to finish. Their plans are made while the table is empty, and must be good when it is full.
        in_order = {"enable_seqscan": "off", "enable_bitmapscan": "off"}
        async with asyncpg.create_pool(server.url("postgres"), min_size=2, max_size=2, server_settings=in_order) as pool:
            await pool.execute(cls.TABLE)
            await pool.execute(cls.READY)
            yield cls(pool)

    async def put(self, tickets: Sequence[Ticket]) -> None:
        await self._pool.execute(self.PUT, [json.dumps(ticket) for ticket in tickets])

    async def lease(self) -> list[tuple[int, int, Ticket]]:
        return [(id_, attempt, Ticket(*json.loads(body))) for id_, attempt, body in await self._pool.fetch(self.LEASE)]

    async def finish(self, leases: Sequence[tuple[int, int, Ticket]]) -> None:
        await self._pool.execute(self.FINISH, [one[0] for one in leases], [one[1] for one in leases])


class RawMariadb:
    """The same on MariaDB, which returns no rows from an UPDATE."""

    TABLE = (
        "CREATE TABLE raw (id BIGINT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(400) NOT NULL, state TINYINT NOT NULL DEFAULT 0, "
        "attempt INT NOT NULL DEFAULT 0, due DOUBLE, KEY ready (state, id))"
    )
    PUT = "INSERT INTO raw (body) VALUES (%s)"
    PICK = f"SELECT id, attempt + 1, body FROM raw WHERE state = 0 ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
    HOLD = f"UPDATE raw SET state = 1, attempt = attempt + 1, due = UNIX_TIMESTAMP(NOW(6)) + {LEASE_S} WHERE id IN "
    FINISH = "DELETE FROM raw WHERE state = 1 AND id IN "

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def opened(cls, server: Mariadb) -> AsyncGenerator[RawMariadb]:
        database = await anyio.to_thread.run_sync(server.new_database)
        where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "user": MARIADB_USER, "db": database}
        async with asyncmy.create_pool(
            **where, minsize=2, maxsize=2, init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
        ) as pool:
            made = cls(pool)
            async with made._transaction() as cursor:
                await cursor.execute(cls.TABLE)
            yield made

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Any]:
        async with self._pool.acquire() as connection, connection.cursor() as cursor:
            yield cursor
            await connection.commit()

    async def put(self, tickets: Sequence[Ticket]) -> None:
        async with self._transaction() as cursor:
            await cursor.executemany(self.PUT, [(json.dumps(ticket),) for ticket in tickets])

    async def lease(self) -> list[tuple[int, int, Ticket]]:
        async with self._transaction() as cursor:
            await cursor.execute(self.PICK)
            rows = await cursor.fetchall()
            if rows:
                await cursor.execute(self.HOLD + _listed(row[0] for row in rows))
        return [(id_, attempt, Ticket(*json.loads(body))) for id_, attempt, body in rows]

    async def finish(self, leases: Sequence[tuple[int, int, Ticket]]) -> None:
        async with self._transaction() as cursor:
            fence = _listed(f"({id_}, {attempt})" for id_, attempt, _ in leases)
            await cursor.execute(f"{self.FINISH}{_listed(one[0] for one in leases)} AND (id, attempt) IN {fence}")


def _listed(values: Iterable[object]) -> str:
    return f"({', '.join(map(str, values))})"


async def put_a_second(contender: Contender, tickets: list[Ticket]) -> float:
    began = time.perf_counter()
    for i in range(0, len(tickets), PUT_BATCH):
        await contender.put(tickets[i : i + PUT_BATCH])
    return len(tickets) / (time.perf_counter() - began)


async def drained_a_second(contender: Contender) -> float:
    """As a worker: the next batch is leased while the last is being finished."""
    done, began = 0, time.perf_counter()
    async with anyio.create_task_group() as tasks:
        while leases := await contender.lease():
            tasks.start_soon(contender.finish, leases)
            done += len(leases)
    return done / (time.perf_counter() - began)


@dataclass(frozen=True)
class SqlQueueRow:
    """Put in batches, lease and finish in batches."""

    kind: Kind
    raw: Callable[[Any], AbstractAsyncContextManager[Contender]]
    drain: Bar | None = None
    put: Bar | None = None

    @property
    def name(self) -> str:
        return f"{self.kind.name}-queue"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        many = bench.size(10_000, 1_000)
        async with private(self.kind.start) as server, self.raw(server) as raw:
            queue: Queue = open_url("queue", await anyio.to_thread.run_sync(self.kind.url, server), SYSTEM)
            await queue.open()
            try:
                ours = Ours(queue)
                # In this order: what is put is then drained.
                turns: dict[str, Callable[[], Awaitable[float]]] = {
                    "put": lambda: put_a_second(ours, some_tickets(many)),
                    "raw put": lambda: put_a_second(raw, some_tickets(many)),
                    "drain": lambda: drained_a_second(ours),
                    "raw drain": lambda: drained_a_second(raw),
                }
                samples = await bench.alternate(turns)
            finally:
                await queue.aclose()

        def against_raw(title: str, name: str, bar: Bar | None) -> Figure:
            rates = {"ours/s": samples.median(name), "raw/s": samples.median(f"raw {name}")}
            return Figure(f"{self.kind.name}: {title}", samples.ratio(name, f"raw {name}"), "x", bar, rates)

        return [
            against_raw("drain: lease 100, finish, fenced / the same by bare SKIP LOCKED", "drain", self.drain),
            against_raw("put in batches of 500 / one bare statement for each batch", "put", self.put),
        ]


SQL_QUEUE_ROWS = (
    SqlQueueRow(POSTGRESQL, RawPostgresql.opened, Bar(0.4), Bar(0.5)),
    SqlQueueRow(MARIADB, RawMariadb.opened),
)
