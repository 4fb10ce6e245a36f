"""The disk, the file and the lock: what fails says so, what was durable stays, the worker lives on."""

from __future__ import annotations

import os
import resource
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from agentkit import InvalidSetting, Runtime, SchemaTooNew, StoreCorrupt
from agentkit.ports.queue import Ticket
from agentkit.ports.records import EntryKind
from agentkit.testing.crash import Crew, until
from tests.system import proof
from tests.system.app import AGENTS, Bulky, Charged, Effects, Slow
from tests.system.conftest import LEASE_S, MARKS, Opened, open_runtime

pytestmark = MARKS


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An impatient one: the tests cannot wait five seconds for each lock."""
    return f"sqlite:///{tmp_path}/agents.db?busy_timeout_s=0.2"


async def opening(path: str) -> Runtime:
    """Open and close a runtime on that file."""
    runtime = Runtime(state=f"sqlite:///{path}", agents=AGENTS)
    async with runtime:
        pass
    return runtime


async def test_a_missing_folder_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"nowhere.*create the folder first"):
        await opening(f"{tmp_path}/nowhere/agents.db")
    assert not (tmp_path / "nowhere").exists()


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    # Root may write anywhere but in /proc.
    folder = Path("/proc") if os.geteuid() == 0 else tmp_path
    mode = folder.stat().st_mode
    if folder == tmp_path:
        folder.chmod(0o500)
    try:
        with pytest.raises(InvalidSetting, match="may write"):
            await opening(f"{folder}/agents.db")
    finally:
        if folder == tmp_path:
            folder.chmod(mode)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "agents.db"
    file.write_bytes(b"something else entirely, " * 1000)
    with pytest.raises(StoreCorrupt, match=r"agents\.db.*backup"):
        await opening(str(file))
    assert file.read_bytes() == b"something else entirely, " * 1000


async def test_a_file_damaged_in_the_middle_is_told_as_corrupt_and_the_runtime_lives_on(tmp_path: Path, url: str, effects: Effects) -> None:
    async with open_runtime(url, worker=True) as runtime:
        await runtime.submit_many(Charged, {f"run-{n}": f"rerun {n}" for n in range(50)})
        for n in range(50):
            await proof.result_of(runtime, f"run-{n}", Charged)
    file = tmp_path / "agents.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'journal'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as opened_file:
        opened_file.seek((root - 1) * size)
        opened_file.write(b"\xff" * size)
    async with open_runtime(url, worker=True) as runtime:
        with pytest.raises(StoreCorrupt, match="backup"):
            await runtime.store.load("run-1")
        assert (await runtime.handle("run-1").info()).status == "done"


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = str(tmp_path / "agents.db")
    await opening(file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
        connection.commit()
    with pytest.raises(SchemaTooNew, match="99"):
        await opening(file)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(99,)]


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA busy_timeout = 20000")
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


async def test_a_file_locked_for_longer_than_a_lease_kills_nobody(tmp_path: Path, url: str, effects: Effects) -> None:
    lease_s = 2.0
    async with Crew(tmp_path, "tests.system.app:runtime", url, lease_s=lease_s) as crew:
        async with open_runtime(url, lease_s=lease_s) as runtime:
            await runtime.submit(Slow, 1.0, run_id="slow")
            workers = [await crew.start("tell@inside step linger") for _ in range(2)]

            async def begun() -> bool:
                return any("inside step linger" in worker.said for worker in workers) and len(await runtime.store.workers()) == 3

            await until("both are there and one has the run", begun)
            before = {row.worker_id for row in await runtime.store.workers()}
            async with await anyio.open_process([sys.executable, "-c", LOCK, str(tmp_path / "agents.db")]) as other:
                assert other.stdout is not None
                assert (await other.stdout.receive()).strip() == b"locked"
                await anyio.sleep(2.5 * lease_s)
                assert other.stdin is not None
                await other.stdin.aclose()
                await other.wait()
            assert await proof.result_of(runtime, "slow", Slow) == 2
            row, _ = await proof.history(runtime.store, "slow")
            assert (row.fence, row.crashes) == (1, 0)
            assert proof.made(effects.lines(), "slow:linger#1") == 1
            await anyio.sleep(1.5 * lease_s)  # a death by the outage would be declared by now
            assert {row.worker_id for row in await runtime.store.workers()} == before
        assert [worker.code for worker in workers] == [None, None]


async def test_a_stopped_process_that_holds_the_write_lock_kills_nobody_and_its_death_frees_the_file(
    tmp_path: Path, url: str, effects: Effects, opened: Opened
) -> None:
    async with Crew(tmp_path, "tests.system.app:runtime", url, lease_s=LEASE_S) as crew:
        async with opened() as runtime:
            await runtime.submit(Slow, 0.2, run_id="slow")
            owner = await crew.start("kill@inside step linger")
            assert await owner.ended() == -9
        point = "inside sweep reap, after statement 2"
        holder = await crew.start(f"stop@{point}")
        await holder.reached(point)
        await holder.stopped()
        other = await crew.start()
        await anyio.sleep(2.5 * LEASE_S)
        assert other.code is None, other.log()
        holder.kill()
        async with opened() as runtime:
            assert await proof.result_of(runtime, "slow", Slow) == 2
            assert await proof.faults(runtime.store, ["slow"], effects.lines()) == []
        assert other.code is None


async def test_a_full_disk_stops_runs_and_when_there_is_room_again_they_end_right(
    tmp_path: Path, url: str, effects: Effects, opened: Opened
) -> None:
    async with Crew(tmp_path, "tests.system.app:runtime", url, lease_s=LEASE_S) as crew, opened() as runtime:
        await runtime.submit(Bulky, 8, run_id="bulky")
        worker = await crew.start("tell@before step bulk")
        await worker.reached("before step bulk")
        # A file that may not grow is to the process what a full disk is.
        room = (tmp_path / "agents.db-wal").stat().st_size + 200_000
        _, most = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

        async def complaining() -> bool:
            return "disk" in worker.log() or "full" in worker.log()

        await until("the worker says so", complaining)
        entries = await runtime.store.load("bulky", after=-1)
        assert "plan#1" in [entry.key for entry in entries if entry.kind == EntryKind.RESULT]
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (most, most))
        assert await proof.result_of(runtime, "bulky", Bulky) == 8 * 50_000
        assert worker.code is None, worker.log()
        assert await proof.faults(runtime.store, ["bulky"], effects.lines()) == []


async def test_a_ticket_of_a_run_that_does_not_exist_is_finished_and_the_worker_lives_on(url: str, effects: Effects) -> None:
    async with open_runtime(url, worker=True) as runtime:
        await runtime.tickets.put([Ticket("nobody", "charged", "1")])

        async def gone() -> bool:
            return not any(d.ready + d.leased for d in (await runtime.tickets.depth()).values())

        await until("the ticket is answered", gone)
        await runtime.submit(Charged, "rerun 1", run_id="after")
        assert await proof.result_of(runtime, "after", Charged) == 2
