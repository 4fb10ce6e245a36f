"""streaq, with its defaults: streams, leases that are renewed, results kept for five minutes."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import tasks
from streaq import Worker


async def main() -> None:
    url, amount, at_once = tasks.asked()
    tally = tasks.Tally(amount)
    worker = Worker(redis_url=url, concurrency=at_once, handle_signals=False)

    @worker.task(silent=True)
    async def nothing(payload: dict[str, Any]) -> int:
        tally.did()
        return len(payload)

    async with worker:
        put_rate = await tasks.put_all(tally.all, lambda number: nothing.enqueue(tasks.PAYLOAD))
    await tasks.drain(f"streaq {version('streaq')}", put_rate, tally, worker.run_async())


asyncio.run(main())
