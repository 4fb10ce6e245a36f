"""pgqueuer, a connection for the producer and one for the worker, jobs dequeued by the hundred. It keeps no results."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version

import asyncpg
import tasks
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries


async def main() -> None:
    url, amount, at_once = tasks.asked()
    tally = tasks.Tally(amount)
    producer = Queries(AsyncpgDriver(await asyncpg.connect(url)))
    await producer.install()
    payload = json.dumps(tasks.PAYLOAD).encode()
    put_rate = await tasks.put_all(tally.all, lambda number: producer.enqueue("nothing", payload))
    queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

    @queue.entrypoint("nothing")
    async def nothing(job: Job) -> None:
        tally.did()

    await tasks.drain(f"pgqueuer {version('pgqueuer')} (no results)", put_rate, tally, queue.run(batch_size=at_once))


asyncio.run(main())
