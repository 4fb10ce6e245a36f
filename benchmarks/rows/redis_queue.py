"""The queue on Redis: putting, draining and waiting for tickets, beside bare Redis Streams with their commands in pipelines."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Protocol, TypeAlias

import anyio
from redis.asyncio import Redis

from agentkit.clock import SYSTEM
from agentkit.plugins import open_url
from agentkit.ports.queue import Lease, Queue, Ticket
from benchmarks.figures import Bar, Bench, Figure
from tests.servers.process import private
from tests.servers.redis import Redis as RedisServer

BATCH = 100
PUT_BATCH = 500
LEASE_S = 30.0
A_SECOND = 200
KINDS = frozenset({"review@1"})
STREAM, GROUP = "raw", "workers"

numbers = count(1)
Entry: TypeAlias = tuple[bytes, dict[bytes, bytes]]


def some_tickets(n: int, trace: str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") -> list[Ticket]:
    return [Ticket(f"contract-{next(numbers)}", "review", "1", 0, "acme", 1, trace=trace) for _ in range(n)]


class Contender(Protocol):
    """A queue, as this row uses one."""

    async def put(self, tickets: Sequence[Ticket]) -> None: ...

    async def drain(self) -> int:
        """As a worker: a task for each ticket, leases and finishes at the same time; how many there were."""
        ...

    async def wait(self, tell: Callable[[Ticket], None]) -> None:
        """Wait for tickets, tell of each and finish it, until cancelled."""
        ...


class RawStreams:
    """XADD, XREADGROUP, and XACK with XDEL and a result, all in pipelines. No fence, no lease, no fairness, no bound."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._done: list[bytes] = []
        self._new = anyio.Event()

    async def put(self, tickets: Sequence[Ticket]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for ticket in tickets:
            pipeline.xadd(STREAM, {"t": json.dumps(ticket)})
        await pipeline.execute()

    async def drain(self) -> int:
        left = all_of_them = await self._client.xlen(STREAM)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._commit, all_of_them)
            while left:
                for entry in await self._read():
                    tasks.start_soon(self._work, entry)
                    left -= 1
        return int(all_of_them)

    async def wait(self, tell: Callable[[Ticket], None]) -> None:
        while True:
            for entry, fields in await self._read(block=1000):
                tell(Ticket(*json.loads(fields[b"t"])))
                await self._acknowledge([entry])

    async def _read(self, **options: int) -> list[Entry]:
        found = await self._client.xreadgroup(GROUP, "worker", {STREAM: ">"}, count=BATCH, **options)
        return list(found[0][1]) if found else []

    async def _work(self, entry: Entry) -> None:
        Ticket(*json.loads(entry[1][b"t"]))
        self._done.append(entry[0])
        self._new.set()

    async def _commit(self, left: int) -> None:
        while left:
            if not self._done:
                self._new = anyio.Event()
                await self._new.wait()
            done, self._done = self._done, []
            await self._acknowledge(done)
            left -= len(done)

    async def _acknowledge(self, entries: Sequence[bytes]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for entry in entries:
            pipeline.set(b"result:" + entry, b"{}", ex=60)
            pipeline.xack(STREAM, GROUP, entry)
            pipeline.xdel(STREAM, entry)
        await pipeline.execute()


class OurQueue:
    """The port, as anybody may use it."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def put(self, tickets: Sequence[Ticket]) -> None:
        await self._queue.put(tickets)

    async def drain(self) -> int:
        done = 0
        async with anyio.create_task_group() as tasks:
            while leases := await self._lease(0):
                for lease in leases:
                    tasks.start_soon(self._queue.finish, [lease])
                done += len(leases)
        return done

    async def wait(self, tell: Callable[[Ticket], None]) -> None:
        while True:
            for lease in await self._lease(1):
                tell(lease.ticket)
                await self._queue.finish([lease])

    async def _lease(self, wait_s: float) -> list[Lease]:
        return await self._queue.lease(BATCH, wait_s=wait_s, lease_s=LEASE_S, kinds=KINDS)


async def put_a_second(contender: Contender, tickets: list[Ticket]) -> float:
    began = time.perf_counter()
    for i in range(0, len(tickets), PUT_BATCH):
        await contender.put(tickets[i : i + PUT_BATCH])
    return len(tickets) / (time.perf_counter() - began)


class Drain:
    """Drains, and keeps the processor time of each drain beside its rate."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._cpu_us = 0.0

    async def a_second(self) -> float:
        began, cpu = time.perf_counter(), time.process_time()
        done = await self._contender.drain()
        self._cpu_us = (time.process_time() - cpu) / done * 1e6
        return done / (time.perf_counter() - began)

    async def cpu_us(self) -> float:
        """Of the last drain, for each ticket."""
        return self._cpu_us


async def median_wait_ms(contender: Contender, tickets: int) -> float:
    """From the call that puts a ticket to its lease, at a steady pace."""
    waits: list[float] = []

    def tell(ticket: Ticket) -> None:
        waits.append(time.perf_counter() - float(ticket.trace))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(contender.wait, tell)
        began = time.perf_counter()
        for number in range(tickets):
            await anyio.sleep(max(0.0, began + number / A_SECOND - time.perf_counter()))
            await contender.put(some_tickets(1, repr(time.perf_counter())))
        while len(waits) < tickets:  # noqa: ASYNC110  the other side of it is a server
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    return statistics.median(waits) * 1e3


@asynccontextmanager
async def contenders() -> AsyncGenerator[tuple[OurQueue, RawStreams]]:
    """Both on one server that syncs its log each second."""
    async with private(RedisServer, appendonly="yes", appendfsync="everysec") as server, Redis(port=server.port) as client:
        await client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
        queue: Queue = open_url("queue", server.url, SYSTEM)
        await queue.open()
        try:
            yield OurQueue(queue), RawStreams(client)
        finally:
            await queue.aclose()


class RedisQueueRow:
    """Put in batches, drain with a task for each ticket, and wait for single ones."""

    name = "redis-queue"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        many, waited = bench.size(10_000, 1_000), bench.size(400, 40)
        async with contenders() as (ours, raw):
            our_drain, raw_drain = Drain(ours), Drain(raw)
            # In this order: what is put is then drained.
            turns: dict[str, Callable[[], Awaitable[float]]] = {
                "put": lambda: put_a_second(ours, some_tickets(many)),
                "raw put": lambda: put_a_second(raw, some_tickets(many)),
                "drain": our_drain.a_second,
                "cpu": our_drain.cpu_us,
                "raw drain": raw_drain.a_second,
                "raw cpu": raw_drain.cpu_us,
                "wait": lambda: median_wait_ms(ours, waited),
                "raw wait": lambda: median_wait_ms(raw, waited),
            }
            samples = await bench.alternate(turns)

        def against_raw(title: str, name: str, unit: str, bar: Bar) -> Figure:
            details = {f"ours {unit}": samples.median(name), f"raw {unit}": samples.median(f"raw {name}")}
            return Figure(title, samples.ratio(name, f"raw {name}"), "x", bar, details)

        return [
            Figure("worker CPU of a task that does nothing, on Redis", samples.median("cpu"), "us", Bar(60, at_least=False)),
            against_raw("the same / bare streams in pipelines", "cpu", "us", Bar(2.5, at_least=False)),
            against_raw("drain, one worker process / bare streams in pipelines", "drain", "/s", Bar(0.4)),
            against_raw("put in batches of 500 / bare streams in pipelines", "put", "/s", Bar(0.5)),
            against_raw("median wait at 200 tickets a second / bare streams", "wait", "ms", Bar(1.5, at_least=False)),
        ]
