"""taskiq on Redis streams, with its Redis result backend; a message is acknowledged when its result is stored."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import tasks
from taskiq.acks import AcknowledgeType
from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker


async def main() -> None:
    url, amount, at_once = tasks.asked()
    tally = tasks.Tally(amount)
    results: Any = RedisAsyncResultBackend(url, result_ex_time=600)
    broker = RedisStreamBroker(url).with_result_backend(results)

    @broker.task(task_name="nothing")
    async def nothing(payload: dict[str, Any]) -> int:
        tally.did()
        return len(payload)

    await broker.startup()  # makes the group, which sees what is put from here on
    put_rate = await tasks.put_all(tally.all, lambda number: nothing.kiq(tasks.PAYLOAD))
    worker = run_receiver_task(broker, max_async_tasks=at_once, ack_time=AcknowledgeType.WHEN_SAVED)
    await tasks.drain(f"taskiq {version('taskiq')} (streams)", put_rate, tally, worker)


asyncio.run(main())
