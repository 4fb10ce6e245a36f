"""The raw limit of a queue on Redis: a stream read by fifties, a task for each entry, SET, XACK and XDEL pipelined for what is done."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import json
from typing import Any

import tasks
from redis.asyncio import Redis

STREAM, GROUP = "raw", "workers"
RESULT_S = 600
PAYLOAD = json.dumps(tasks.PAYLOAD).encode()


async def read_and_acknowledge(redis: Any, name: str, at_once: int, tally: tasks.Tally) -> None:
    done: list[tuple[bytes, bytes]] = []

    async def nothing(entry: bytes, body: bytes) -> None:
        payload = json.loads(body)
        tally.did()
        done.append((entry, json.dumps(len(payload)).encode()))

    while True:
        found = await redis.xreadgroup(GROUP, name, {STREAM: ">"}, count=at_once, block=1000)
        async with asyncio.TaskGroup() as bodies:
            for _, entries in found:
                for entry, fields in entries:
                    bodies.create_task(nothing(entry, fields[b"d"]))
        async with redis.pipeline(transaction=False) as pipe:
            for entry, result in done:
                pipe.set(b"result:" + entry, result, ex=RESULT_S)
                pipe.xack(STREAM, GROUP, entry)
                pipe.xdel(STREAM, entry)
            await pipe.execute()
        done.clear()


async def work(redis: Any, at_once: int, tally: tasks.Tally) -> None:
    """Two consumers: while one waits for the server the other has work."""
    async with asyncio.TaskGroup() as halves:
        for name in ("one", "other"):
            halves.create_task(read_and_acknowledge(redis, name, at_once // 2, tally))


async def main() -> None:
    url, amount, at_once = tasks.asked()
    tally = tasks.Tally(amount)
    redis = Redis.from_url(url, protocol=2)  # the answers of a stream read have one shape
    await redis.xgroup_create(STREAM, GROUP, mkstream=True)
    put_rate = await tasks.put_all(tally.all, lambda number: redis.xadd(STREAM, {"d": PAYLOAD}))
    await tasks.drain("raw redis-py: pipelined streams", put_rate, tally, work(redis, at_once, tally))


asyncio.run(main())
