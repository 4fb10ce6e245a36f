"""arq: at least once by its key of what is in progress. Its default poll of 0.5 s would be what is measured, so it polls more often."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import tasks
from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

POLL_S = 0.1  # less changes nothing


async def main() -> None:
    url, amount, at_once = tasks.asked()
    tally = tasks.Tally(amount)

    async def nothing(context: dict[str, Any], payload: dict[str, Any]) -> int:
        tally.did()
        return len(payload)

    settings = RedisSettings.from_dsn(url)
    pool = await create_pool(settings)
    put_rate = await tasks.put_all(tally.all, lambda number: pool.enqueue_job("nothing", tasks.PAYLOAD))
    worker = Worker([func(nothing, name="nothing")], redis_settings=settings, max_jobs=at_once, poll_delay=POLL_S, handle_signals=False)
    await tasks.drain(f"arq {version('arq')}", put_rate, tally, worker.main())


asyncio.run(main())
