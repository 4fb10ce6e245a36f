"""What a Redis server loses when it is killed with -9 under load, by the setting of its append-only file.

    python -m benchmarks.redis_loss [rounds]

50 runs write as fast as the store lets them, each entry after the one before it was acknowledged. The server is killed, started again,
and the journals are compared with what was acknowledged. A power cut is not measured: what it takes beyond that is what the server had
written and its disk had not, at most the second or two of `everysec`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import NamedTuple
from uuid import uuid4

import anyio
import anyio.to_thread

from agentkit.errors import StoreUnavailable
from agentkit.ports.records import Entry, EntryKind, NewRun, RunWrite
from agentkit_redis.runs import RedisRuns, from_url
from tests.servers.process import private
from tests.servers.redis import Redis

SETTINGS: dict[str, dict[str, str]] = {
    "appendonly no, save ''": {"appendonly": "no", "save": ""},
    "appendonly no, save 1 1": {"appendonly": "no", "save": "1 1"},
    "appendfsync no": {"appendonly": "yes", "appendfsync": "no"},
    "appendfsync everysec": {"appendonly": "yes", "appendfsync": "everysec"},
    "appendfsync always": {"appendonly": "yes", "appendfsync": "always"},
}
RUNS = 50
LOAD_S = 3.0
BODY = b"x" * 1000


class Loss(NamedTuple):
    """What one kill took: of how many acknowledged entries, and of how long a time before it."""

    acknowledged: int
    lost: int
    lost_s: float


async def measure(options: Mapping[str, str]) -> Loss:
    """Load a server, kill it, and count."""
    async with private(Redis, **options) as server:
        store = from_url(server.url)
        await store.open()
        acked_at: dict[str, list[float]] = {f"run-{number}": [] for number in range(RUNS)}
        killed_at = 0.0
        async with anyio.create_task_group() as group:
            group.start_soon(load, store, acked_at)
            await anyio.sleep(LOAD_S)
            await anyio.to_thread.run_sync(server.kill)
            killed_at = time.monotonic()
        await anyio.to_thread.run_sync(server.start)
        kept = {run_id: len(await journal(store, run_id)) for run_id in acked_at}
        await store.aclose()
    lost = [at for run_id, times in acked_at.items() for at in times[kept[run_id] :]]
    return Loss(sum(map(len, acked_at.values())), len(lost), killed_at - min(lost, default=killed_at))


async def load(store: RedisRuns, acked_at: Mapping[str, list[float]]) -> None:
    """Write batches as a worker's lane does, until the server is gone."""
    worker_id = uuid4().hex
    await store.register(worker_id, "", "")
    await store.create([NewRun(run_id=run_id, kind="k", version="1", input=b"") for run_id in acked_at])
    await store.claim(worker_id, list(acked_at), {"k": frozenset("1")})
    while True:
        seq = len(acked_at["run-0"]) + 1
        entry = Entry(seq, int(EntryKind.RESULT), "step#1", 1, "", 0, BODY, 0, 0)
        try:
            await store.write(worker_id, [RunWrite(run_id, 1, [entry]) for run_id in acked_at])
        except StoreUnavailable:
            return
        now = time.monotonic()
        for times in acked_at.values():
            times.append(now)


async def journal(store: RedisRuns, run_id: str) -> list[Entry]:
    """A journal, once the server is back."""
    while True:
        try:
            return await store.load(run_id)
        except StoreUnavailable:
            await anyio.sleep(0.05)


async def main(rounds: int) -> None:
    print(f"{'setting':<26}{'acknowledged':>14}{'lost, most':>12}{'lost, of how long':>19}   {rounds} kills each")
    for name, options in SETTINGS.items():
        losses = [await measure(options) for _ in range(rounds)]
        worst = max(losses, key=lambda loss: loss.lost)
        print(f"{name:<26}{worst.acknowledged:>14}{worst.lost:>12}{worst.lost_s:>17.2f} s")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
