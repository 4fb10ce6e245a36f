"""saq on Redis: a job moves to the list of the active ones. Each slot holds a connection, so the pool has more of them than slots."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import tasks
from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

SPARE = 50  # connections for puts and upkeep


async def main() -> None:
    url, amount, at_once = tasks.asked()
    tally = tasks.Tally(amount)

    async def nothing(context: Any, *, payload: dict[str, Any]) -> int:
        tally.did()
        return len(payload)

    queue = RedisQueue(Redis.from_url(url, max_connections=at_once + SPARE))
    await queue.connect()
    put_rate = await tasks.put_all(tally.all, lambda number: queue.enqueue("nothing", payload=tasks.PAYLOAD))
    worker: Any = Worker(queue, [("nothing", nothing)], concurrency=at_once)
    await tasks.drain(f"saq {version('saq')}", put_rate, tally, worker.start())


asyncio.run(main())
