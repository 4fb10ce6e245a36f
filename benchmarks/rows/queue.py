"""The queue: putting tickets and draining them, beside the same statements on bare sqlite3."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from itertools import count

import anyio

from agentkit import Runtime
from agentkit.clock import SYSTEM
from agentkit.plugins import open_url
from agentkit.ports.queue import Queue, Ticket
from benchmarks.figures import Bar, Bench, Figure
from benchmarks.raw import commit, connect, in_thread
from benchmarks.work import Nothing

BATCH = 100
PUT_BATCH = 500
KINDS = frozenset({"review@1"})
TABLE = (
    "CREATE TABLE tickets (n INTEGER PRIMARY KEY, id TEXT NOT NULL, run_id TEXT NOT NULL, kind TEXT NOT NULL, version TEXT NOT NULL, "
    "wake INTEGER NOT NULL, tenant TEXT NOT NULL, priority INTEGER NOT NULL, key TEXT NOT NULL, trace TEXT NOT NULL, served TEXT NOT NULL, "
    "state INTEGER NOT NULL, turn REAL NOT NULL, due REAL NOT NULL, put_at REAL NOT NULL, tries INTEGER NOT NULL, "
    "deliveries INTEGER NOT NULL)"
)
READY = "CREATE INDEX tickets_ready ON tickets (served, priority, n) WHERE state = 0"
LEASED = "CREATE INDEX tickets_leased ON tickets (due) WHERE state = 1"
INSERT = f"INSERT INTO tickets VALUES ({', '.join('?' * 17)})"
LEASE = (
    "UPDATE tickets SET state = 1, tries = tries + 1, due = ? WHERE n IN "
    "(SELECT n FROM tickets WHERE served = ? AND priority = 1 AND state = 0 ORDER BY n LIMIT ?) RETURNING n, run_id, tries"
)
FINISH = "DELETE FROM tickets WHERE n = ? AND tries = ? AND state = 1"

numbers = count(1)


def some_tickets(n: int) -> list[Ticket]:
    return [Ticket(f"contract-{next(numbers)}", "review", "1", 0, "acme", 1) for _ in range(n)]


def raw_row(ticket: Ticket) -> tuple[object, ...]:
    return (
        next(numbers), ticket.id, ticket.run_id, ticket.kind, ticket.version, ticket.wake, ticket.tenant, ticket.priority, "", "",
        ticket.served_by, 0, 0.0, 0.0, 0.0, 0, 0,
    )  # fmt: skip


class RawQueue:
    """Lease a batch in one transaction, finish it in another, each finish fenced by its attempt. As the product, without a sync."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def put(self, tickets: list[Ticket], batch: int) -> float:
        began = time.perf_counter()
        for i in range(0, len(tickets), batch):
            commit(self._connection, INSERT, [raw_row(ticket) for ticket in tickets[i : i + batch]])
        return len(tickets) / (time.perf_counter() - began)

    def drain(self) -> float:
        done, began = 0, time.perf_counter()
        while leased := self._connection.execute(LEASE, (time.monotonic() + 10, "review@1", BATCH)).fetchall():
            commit(self._connection, FINISH, [(n, tries) for n, _, tries in leased])
            done += len(leased)
        return done / (time.perf_counter() - began)


async def put(queue: Queue, tickets: list[Ticket], batch: int) -> float:
    began = time.perf_counter()
    for i in range(0, len(tickets), batch):
        await queue.put(tickets[i : i + batch])
    return len(tickets) / (time.perf_counter() - began)


async def drain(queue: Queue) -> float:
    """As a worker: the next batch is leased while the last is being finished."""
    done, began = 0, time.perf_counter()
    async with anyio.create_task_group() as tasks:
        while leases := await queue.lease(BATCH, wait_s=0, lease_s=10, kinds=KINDS):
            tasks.start_soon(queue.finish, leases)
            done += len(leases)
    return done / (time.perf_counter() - began)


class QueueRow:
    """Put in batches, put one by one, drain."""

    name = "queue"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        many, single = bench.size(5_000, 1_000), bench.size(500, 50)
        queue: Queue = open_url("queue", f"sqlite:///{bench.file('queue')}", SYSTEM)
        await queue.open()
        try:
            with closing(connect(bench.file("raw"), "NORMAL", TABLE, READY, LEASED)) as connection:
                raw = RawQueue(connection)
                # In this order: what the first two put, the last one drains.
                samples = await bench.alternate({
                    "put": lambda: put(queue, some_tickets(many), PUT_BATCH),
                    "raw put": lambda: in_thread(lambda: raw.put(some_tickets(many), PUT_BATCH)),
                    "single": lambda: put(queue, some_tickets(single), 1),
                    "raw single": lambda: in_thread(lambda: raw.put(some_tickets(single), 1)),
                    "drain": lambda: drain(queue),
                    "raw drain": lambda: in_thread(raw.drain),
                })  # fmt: skip
        finally:
            await queue.aclose()

        def against_raw(title: str, name: str, bar: Bar | None = None) -> Figure:
            rates = {"ours/s": samples.median(name), "raw/s": samples.median(f"raw {name}")}
            return Figure(title, samples.ratio(name, f"raw {name}"), "x", bar, rates)

        return [
            against_raw("drain: lease 100, finish / the same on bare sqlite3", "drain", Bar(0.4)),
            against_raw("put in batches of 500 / the same on bare sqlite3", "put"),
            against_raw("put one by one / the same on bare sqlite3", "single"),
        ]


class RunsRow:
    """Whole runs without a step, submitted in one call and executed by a worker."""

    name = "runs"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        runs = bench.size(1_000, 100)

        async def through(runtime: Runtime) -> float:
            began = time.perf_counter()
            handles = await runtime.submit_many(Nothing, {f"run-{next(numbers)}": 1 for _ in range(runs)})
            for handle in handles:
                await handle.result()
            return runs / (time.perf_counter() - began)

        async with (
            Runtime(state=f"sqlite:///{bench.file('runs')}", agents=[Nothing], worker=True) as stored,
            Runtime(agents=[Nothing], worker=True) as in_memory,
        ):
            samples = await bench.alternate({"sqlite": lambda: through(stored), "memory": lambda: through(in_memory)})
        return [
            Figure("runs without a step, from submit_many to the last result, SQLite", samples.median("sqlite"), "/s"),
            Figure("the same in memory", samples.median("memory"), "/s"),
        ]
