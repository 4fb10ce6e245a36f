"""What a flush remembers of its runs on MariaDB, so that it is one prepared statement, and what makes it look again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from agentkit.errors import WorkerFenced
from agentkit.ports.records import Run, RunWrite, Written
from agentkit.testing.runs_base import bodies, entries, entry, reap, register, start, write
from agentkit_sql import Sql, SqlRuns
from agentkit_sql.dialect import Script, Statement
from agentkit_sql.mariadb_asyncmy import MOST_PREPARED
from agentkit_sql.mariadb_runs import AT_ONCE, AT_ONCE_BYTES, MariadbRuns
from tests.adapters.opening import HASTY, opened
from tests.servers.mariadb import Mariadb
from tests.servers.process import private


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def store(mariadb_url: str) -> AsyncIterator[SqlRuns]:
    async with opened(Sql(f"{mariadb_url}?{HASTY}").runs) as store:
        yield store


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each batch had that was written in a transaction, with a look at what is there."""
    sizes: list[int] = []
    looking: Any = vars(MariadbRuns)["_write"]

    async def counted(self: MariadbRuns, worker_id: str, batch: Sequence[RunWrite], *, sync: bool) -> list[Written]:
        sizes.append(len(batch))
        written: list[Written] = await looking(self, worker_id, batch, sync=sync)
        return written

    monkeypatch.setattr(MariadbRuns, "_write", counted)
    return sizes


async def started(store: SqlRuns, n: int) -> tuple[str, list[Run]]:
    worker_id = await register(store)
    return worker_id, [(await start(store, f"run-{i}", worker_id))[1] for i in range(n)]


async def test_from_its_first_claim_on_a_run_is_written_without_a_look(store: SqlRuns, looks: list[int]) -> None:
    worker_id, runs = await started(store, 3)
    for seq in range(1, 4):
        assert [one.verdict for one in await store.write(worker_id, [write(run, [entry(seq)]) for run in runs])] == ["ok"] * 3
    assert looks == []


async def test_a_batch_of_any_size_lands_whole(store: SqlRuns, looks: list[int]) -> None:
    """More sizes than statements are kept prepared, and sizes for which none is."""
    worker_id, [run, other] = await started(store, 2)
    last = 0
    sizes = [*range(1, MOST_PREPARED + 5), AT_ONCE - 1, AT_ONCE, 3 * AT_ONCE, 1]
    for step, size in enumerate(sizes, 1):
        batch = [write(other, [entry(step)]), write(run, entries(range(last + 1, last + size + 1)))]
        assert [one.verdict for one in await store.write(worker_id, batch)] == ["ok", "ok"]
        last += size
    assert [found.seq for found in await store.load(run.run_id)] == [*range(1, last + 1)]
    assert len(await store.load(other.run_id)) == len(sizes)
    assert looks == [2, 2]  # those with more entries than go at once


async def test_a_large_value_goes_another_way(store: SqlRuns, looks: list[int]) -> None:
    worker_id, [run] = await started(store, 1)
    large = b"x" * (AT_ONCE_BYTES + 1)
    for seq, body in enumerate([b"1", large, b"3"], 1):
        assert (await store.write(worker_id, [write(run, [entry(seq, body)])]))[0].verdict == "ok"
    assert await bodies(store, run.run_id) == [b"1", large, b"3"]
    assert looks == [1]


async def test_news_in_an_inbox_is_told_by_the_next_flush_and_costs_one_look(store: SqlRuns, looks: list[int]) -> None:
    worker_id, [run, other] = await started(store, 2)

    async def flush(seq: int) -> list[int]:
        written = await store.write(worker_id, [write(run, [entry(seq)]), write(other, [entry(seq)])])
        assert [one.verdict for one in written] == ["ok", "ok"]
        return [one.inbox_seq for one in written]

    assert await flush(1) == [0, 0]
    await store.signal(run.run_id, "news", "topic", b"1")
    assert [await flush(seq) for seq in (2, 3, 4)] == [[1, 0]] * 3
    assert looks == [2]


async def test_a_run_that_was_taken_away_is_lost_and_its_neighbour_is_written(store: SqlRuns, looks: list[int]) -> None:
    worker_id, [run, other] = await started(store, 2)
    await store.write(worker_id, [write(run, [entry(1)]), write(other, [entry(1)])])

    def take_away() -> Script[None]:
        yield Statement("UPDATE runs SET fence = fence + 1 WHERE run_id = ?")(other.run_id)

    await store.database.write(take_away, sync=True)
    assert [one.verdict for one in await store.write(worker_id, [write(run, [entry(2)]), write(other, [entry(2)])])] == ["ok", "lost"]
    assert looks == [2]
    assert (len(await store.load(run.run_id)), len(await store.load(other.run_id))) == (2, 1)


async def test_a_worker_that_was_declared_dead_writes_nothing_by_what_it_remembers(store: SqlRuns) -> None:
    worker_id, run = await start(store, "run-1")
    await store.write(worker_id, [write(run, [entry(1)])])
    await reap(store, worker_id)
    with pytest.raises(WorkerFenced):
        await store.write(worker_id, [write(run, [entry(2)])])
    assert len(await store.load(run.run_id)) == 1


async def test_a_server_with_no_room_for_prepared_statements_gets_text() -> None:
    async with (
        private(Mariadb, max_prepared_stmt_count="0") as server,
        opened(Sql(server.url(server.new_database())).runs) as store,
    ):
        worker_id, runs = await started(store, 8)
        for seq in (1, 2):
            batch = [write(run, [entry(seq, b"it's \\ \xff")]) for run in runs]
            assert {one.verdict for one in await store.write(worker_id, batch)} == {"ok"}
        assert await bodies(store, "run-7") == [b"it's \\ \xff"] * 2
