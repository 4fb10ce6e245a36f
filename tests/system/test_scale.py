"""What many runs cost."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import anyio
import pytest

from agentkit.ports.records import RunQuery, RunStatus
from agentkit.testing.crash import Crew, until
from tests.system import proof
from tests.system.app import Effects, Slow, Waiting, Wide
from tests.system.conftest import open_runtime

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.blocks_the_loop("steps note their effects in one call, in the loop, so that a kill leaves all of a line or nothing"),
]

LEASE_S = 10.0  # nobody dies here


def file_handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_ten_thousand_parked_runs_cost_no_tasks_and_no_file_handles(url: str) -> None:
    async with open_runtime(url, lease_s=LEASE_S, worker=True, concurrency=500) as runtime:
        await anyio.sleep(0.1)
        tasks, handles = len(asyncio.all_tasks()), await anyio.to_thread.run_sync(file_handles)
        await runtime.submit_many(Waiting, {f"run-{n:05}": n for n in range(10_000)})

        async def parked() -> bool:
            row = await runtime.store.list(RunQuery(status=frozenset({RunStatus.READY, RunStatus.RUNNING}), limit=1))
            return not row and not runtime.engine.active

        await until("all are parked", parked, patience_s=200)
        assert len(asyncio.all_tasks()) <= tasks + 2
        assert await anyio.to_thread.run_sync(file_handles) <= handles + 2
        await runtime.handle("run-09999", Waiting).signal(Waiting.go, 1)
        assert await proof.result_of(runtime, "run-09999", Waiting) == 10_000


async def test_a_thousand_concurrent_runs_in_one_worker_stay_under_300_mb(tmp_path: Path, url: str, effects: Effects) -> None:
    settings = {"concurrency": 1000}
    async with (
        Crew(tmp_path, "tests.system.app:runtime", url, lease_s=LEASE_S, settings=settings) as crew,
        open_runtime(url, lease_s=LEASE_S) as runtime,
    ):
        await runtime.submit_many(Slow, {f"run-{n}": 3600.0 for n in range(1000)})
        worker = await crew.start("tell@inside step linger#1000")

        async def all_there() -> bool:
            return "inside step linger" in worker.said

        await until("all run at once", all_there, patience_s=100)
        resident = int((await anyio.Path(f"/proc/{worker.pid}/statm").read_text()).split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert resident < 300_000_000, f"{resident / 1e6:.0f} MB"


async def test_a_map_over_ten_thousand_children_wakes_its_parent_once(url: str) -> None:
    async with open_runtime(url, lease_s=LEASE_S, worker=True, concurrency=500) as runtime:
        await runtime.submit(Wide, 10_000, run_id="wide")
        assert await proof.result_of(runtime, "wide", Wide, patience_s=280) == sum(range(10_000))
        row, _ = await proof.history(runtime.store, "wide")
        assert row.wake <= 1, "on a slow machine its children end so steadily that it never comes to park"
        assert row.fence == row.wake + 1
