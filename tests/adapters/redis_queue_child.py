"""What a worker's process does in the tests of the queue on Redis: hold tickets until it is killed, or be killed by each one."""

from __future__ import annotations

import os
import signal
import sys

import anyio

from agentkit_redis.queue import RedisQueue
from agentkit_redis.settings import RedisSettings

KINDS = frozenset({"reviewer@3"})


async def hold(queue: RedisQueue, count: int, lease_s: float) -> None:
    leases = await queue.lease(count, wait_s=10, lease_s=lease_s, kinds=KINDS)
    print("held", len(leases), flush=True)
    await anyio.sleep_forever()


async def die(queue: RedisQueue, max_deliveries: int, lease_s: float) -> None:
    """As the worker of a runtime: what was delivered too often without an answer is buried, all else is begun, and that is the end."""
    [lease] = await queue.lease(1, wait_s=10, lease_s=lease_s, kinds=KINDS)
    if lease.deliveries <= max_deliveries:
        os.kill(os.getpid(), signal.SIGKILL)
    await queue.bury([lease], f"delivered {lease.deliveries - 1} times without an answer")


async def main(arguments: list[str]) -> None:
    act, url, number, lease_s = arguments
    queue = RedisQueue(RedisSettings.from_url(url))
    await queue.open()
    await {"hold": hold, "die": die}[act](queue, int(number), float(lease_s))
    await queue.aclose()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
