"""Laws of a run store: writing journals and reading them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agentkit.errors import StoreRefused, WorkerFenced
from agentkit.ports.records import EntryKind, Release, Run, RunStatus, RunWrite, Written
from agentkit.ports.runs import RunStore
from agentkit.testing.contract import race
from agentkit.testing.runs_base import (
    AWKWARD_BYTES,
    Reopen,
    RunsBase,
    bodies,
    claim,
    completed,
    crash,
    create,
    entries,
    entry,
    get,
    parked,
    reap,
    register,
    release,
    start,
    sweep,
    try_claim,
    write,
    write_one,
)

RELEASES = {
    "park": Release(RunStatus.PARKED, seen=0, waiting_for="approval"),
    "drain": Release(RunStatus.READY, ticketed=True),
    "completed": Release(RunStatus.COMPLETED, result=b"1"),
    "failed": Release(RunStatus.FAILED, result=b"{}"),
    "cancelled": Release(RunStatus.CANCELLED, result=b"{}"),
}
any_release = pytest.mark.parametrize("how", list(RELEASES.values()), ids=list(RELEASES))


class WriteLaws(RunsBase):
    """A write is whole, once, and only under one's own claim."""

    async def test_entries_load_in_order_as_written_with_the_fence_that_wrote_them(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        first = [entry(seq, body, key=f"größe/{seq}#0", codec=seq % 2, attempt=seq) for seq, body in enumerate(AWKWARD_BYTES, 1)]
        assert (await write_one(store, worker_id, write(run, first))).verdict == "ok"
        await release(store, worker_id, run, Release(RunStatus.READY))
        run = await claim(store, worker_id, "run-1")
        last = entry(len(first) + 1, kind=EntryKind.ERROR, fp="")
        assert (await write_one(store, worker_id, write(run, [last]))).verdict == "ok"
        assert await second.load("run-1") == [*(each._replace(fence=1) for each in first), last._replace(fence=2)]

    async def test_an_unknown_run_has_no_entries_and_no_messages(self, store: RunStore) -> None:
        assert (await store.load("nobody"), await store.inbox("nobody")) == ([], [])

    async def test_a_write_under_an_older_claim_is_lost(self, store: RunStore, second: RunStore) -> None:
        # The owner parked, but never heard that it did; it lives on and goes on, while another was given the run.
        worker_id, old = await start(store, "run-1")
        await release(store, worker_id, old, parked(old))
        await second.signal("run-1", "m", "topic", b"")
        await claim(second, await register(second), "run-1")
        late = write(old, [entry(1, kind=EntryKind.SIGNAL)], takes=[("m", 1)], release=completed())
        assert (await write_one(store, worker_id, late)).verdict == "lost"
        assert (await store.load("run-1"), await store.inbox("run-1")) == ([], [(1, "m", "topic", b"", None)])
        assert (await get(store, "run-1")).status is RunStatus.RUNNING

    async def test_a_write_under_an_older_claim_of_ones_own_is_lost(self, store: RunStore) -> None:
        worker_id, old = await start(store, "run-1")
        await release(store, worker_id, old, Release(RunStatus.READY))
        current = await claim(store, worker_id, "run-1")
        assert (await write_one(store, worker_id, write(old, [entry(1)]))).verdict == "lost"
        assert (await write_one(store, worker_id, write(current, [entry(1, b'"mine"')]))).verdict == "ok"
        assert await bodies(store, "run-1") == [b'"mine"']

    async def test_nobody_writes_to_the_run_of_another(self, store: RunStore) -> None:
        _, run = await start(store, "run-1")
        other = await register(store)
        assert (await write_one(store, other, write(run, [entry(1)], release=completed()))).verdict == "lost"
        assert (await store.load("run-1"), await get(store, "run-1")) == ([], run)

    @pytest.mark.parametrize("end", [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.PARKED])
    async def test_after_a_release_nothing_is_written(self, store: RunStore, end: RunStatus) -> None:
        worker_id, run = await start(store, "run-1")
        await release(store, worker_id, run, Release(end, result=b"1"))
        before = await get(store, "run-1")
        assert (await write_one(store, worker_id, write(run, [entry(1)]))).verdict == "lost"
        assert (await store.load("run-1"), await get(store, "run-1")) == ([], before)

    async def test_the_rows_of_a_lost_run_are_absent_and_those_of_its_neighbours_are_there(self, store: RunStore) -> None:
        worker_id = await register(store)
        runs = [(await start(store, f"run-{number}", worker_id))[1] for number in range(9)]
        await release(store, worker_id, runs[4], Release(RunStatus.READY))
        await claim(store, await register(store), "run-4")
        batch = [*(write(run, entries([1, 2])) for run in runs), RunWrite("nobody", 1, entries([1]))]
        verdicts = [written.verdict for written in await store.write(worker_id, batch)]
        assert verdicts == ["ok"] * 4 + ["lost"] + ["ok"] * 4 + ["lost"]
        assert [len(await store.load(run.run_id)) for run in runs] == [2] * 4 + [0] + [2] * 4

    async def test_a_write_of_a_dead_worker_is_refused_whole(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await start(store, "run-2", worker_id)
        # Only one of the two is freed here: the other still shows its dead owner.
        swept = await reap(second, worker_id, limit=1)
        assert len(swept.taken_over) == 1
        for run_id in ("run-1", "run-2"):
            with pytest.raises(WorkerFenced):
                await store.write(worker_id, [RunWrite(run_id, run.fence, [entry(1)], release=completed())])
            assert await store.load(run_id) == []
            assert not (await get(store, run_id)).status.ended

    async def test_a_dead_worker_registered_anew_has_none_of_its_runs(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await reap(store, worker_id)
        anew = await register(store)
        assert (await write_one(store, anew, write(run, [entry(1)]))).verdict == "lost"
        assert await store.load("run-1") == []

    async def test_who_never_registered_writes_nothing(self, store: RunStore) -> None:
        _, run = await start(store, "run-1")
        with pytest.raises(WorkerFenced):
            await store.write("nobody", [write(run, [entry(1)])])
        assert await store.load("run-1") == []

    async def test_a_write_sent_twice_lands_once(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await store.signal("run-1", "m", "topic", b"")
        batch = [write(run, [entry(1), entry(2, kind=EntryKind.SIGNAL)], takes=[("m", 2)])]
        first = await store.write(worker_id, batch)
        assert await store.write(worker_id, batch) == first == [Written("ok", 1)]
        assert await store.load("run-1") == [each._replace(fence=1) for each in batch[0].entries]

    async def test_a_repetition_that_brings_more_adds_what_is_new(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        for seqs in ([1, 2], [1, 2, 3], [3, 4], [2]):
            assert (await write_one(store, worker_id, write(run, entries(seqs)))).verdict == "ok"
        assert [each.seq for each in await store.load("run-1")] == [1, 2, 3, 4]

    @any_release
    async def test_a_release_sent_twice_lands_once(self, store: RunStore, how: Release) -> None:
        worker_id, run = await start(store, "run-1")
        batch = [write(run, entries([1]), release=how)]
        assert await store.write(worker_id, batch) == [Written("ok", 0)]
        landed = await get(store, "run-1")
        assert landed.status is how.status
        assert (landed.owner, landed.result, landed.waiting_for) == (None, how.result, how.waiting_for)
        assert await store.write(worker_id, batch) == [Written("ok", 0)]
        assert (await get(store, "run-1"), len(await store.load("run-1"))) == (landed, 1)

    @any_release
    async def test_a_release_without_entries_sent_twice_lands_once(self, store: RunStore, how: Release) -> None:
        worker_id, run = await start(store, "run-1")
        for _ in range(2):
            assert await store.write(worker_id, [write(run, release=how)]) == [Written("ok", 0)]

    async def test_the_repetition_of_a_release_leaves_the_next_owner_alone(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        batch = [write(run, entries([1]), release=Release(RunStatus.READY))]
        assert (await store.write(worker_id, batch))[0].verdict == "ok"
        following = await claim(store, await register(store), "run-1")
        assert (await store.write(worker_id, batch))[0].verdict == "ok"
        assert await get(store, "run-1") == following

    @pytest.mark.parametrize("turns", range(4))
    async def test_a_write_that_was_cut_off_lands_before_its_repetition_is_answered_or_never(self, store: RunStore, turns: int) -> None:
        worker_id, run = await start(store, "run-1")
        batch = [write(run, entries([1, 2]), release=parked(run))]
        await cut_off(partial(store.write, worker_id, batch), turns)
        assert (await store.write(worker_id, batch))[0].verdict == "ok"
        assert [each.seq for each in await store.load("run-1")] == [1, 2]
        assert (await get(store, "run-1")).status is RunStatus.PARKED

    async def test_a_gap_is_refused_and_the_neighbours_go_on(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        _, neighbour = await start(store, "run-2", worker_id)
        assert (await write_one(store, worker_id, write(run, entries([1])))).verdict == "ok"
        for seqs in ([3], [2, 4]):
            written = await store.write(worker_id, [write(run, entries(seqs)), write(neighbour, entries([1]))])
            assert [each.verdict for each in written] == ["lost", "ok"]
            assert [each.seq for each in await store.load("run-1")] == [1]
        assert (await write_one(store, worker_id, write(neighbour, entries([3]), release=completed()))).verdict == "lost"
        assert (await get(store, "run-2")).status is RunStatus.RUNNING

    async def test_an_entry_is_never_replaced_by_one_of_another_claim(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        assert (await write_one(store, worker_id, write(run, [entry(1, b'"first"')]))).verdict == "ok"
        await reap(store, worker_id)
        other = await register(store)
        run = await claim(store, other, "run-1")
        for body in (b'"first"', b'"other"'):
            assert (await write_one(store, other, write(run, [entry(1, body), entry(2)]))).verdict == "lost"
        assert await bodies(store, "run-1") == [b'"first"']

    @pytest.mark.parametrize("sync", [True, False])
    async def test_ten_thousand_entries_load_in_one_read(self, store: RunStore, second: RunStore, *, sync: bool) -> None:
        worker_id, run = await start(store, "run-1")
        for first in range(1, 10_001, 500):
            assert [each.verdict for each in await store.write(worker_id, [write(run, entries(range(first, first + 500)))], sync=sync)] == [
                "ok"
            ]
        assert [each.seq for each in await second.load("run-1")] == list(range(1, 10_001))
        assert [each.seq for each in await second.load("run-1", after=9_990)] == list(range(9_991, 10_001))

    async def test_the_newest_snapshot_hides_what_is_before_it(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        kinds = {3: EntryKind.SNAPSHOT, 5: EntryKind.SNAPSHOT}
        for seq in range(1, 8):
            assert (await write_one(store, worker_id, write(run, [entry(seq, kind=kinds.get(seq, EntryKind.RESULT))]))).verdict == "ok"
        assert [each.seq for each in await second.load("run-1")] == [5, 6, 7]
        assert [each.seq for each in await second.load("run-1", after=2)] == [3, 4, 5, 6, 7]
        assert await second.load("run-1", after=7) == []

    async def test_a_batch_that_the_store_refuses_leaves_nothing_and_lands_without_the_guilty_run(self, store: RunStore) -> None:
        worker_id = await register(store)
        runs = [(await start(store, f"run-{number}", worker_id))[1] for number in range(3)]
        guilty = write(runs[1], [entry(1), entry(2, key=self.unstorable_key), entry(3)])
        batch = [write(runs[0], entries([1])), guilty, write(runs[2], entries([1]), release=completed())]
        with pytest.raises(StoreRefused):
            await store.write(worker_id, batch)
        assert [await store.load(run.run_id) for run in runs] == [[], [], []]
        assert (await get(store, "run-2")).status is RunStatus.RUNNING
        assert [each.verdict for each in await store.write(worker_id, [batch[0], batch[2]])] == ["ok", "ok"]
        assert (await write_one(store, worker_id, write(runs[1], [entry(1)]))).verdict == "ok"

    async def test_two_writers_on_one_storage_do_not_disturb_each_other(self, store: RunStore, second: RunStore) -> None:
        async def work(client: RunStore, name: str) -> None:
            worker_id, run = await start(client, name)
            for seq in range(1, 31):
                assert (await write_one(client, worker_id, write(run, [entry(seq, name.encode())]))).verdict == "ok"

        outcomes = await race(*(partial(work, client, f"run-{index}") for index, client in enumerate([store, second] * 2)))
        assert outcomes == [None] * 4
        for index in range(4):
            assert await bodies(second, f"run-{index}") == [f"run-{index}".encode()] * 30

    async def test_a_write_that_races_a_take_over_is_refused_or_read_by_the_next_owner(self, store: RunStore, second: RunStore) -> None:
        for number in range(10):
            worker_id, run = await start(store, f"run-{number}")
            seen = (await sweep(second)).beats[worker_id]
            written, journal = await race(
                partial(store.write, worker_id, [write(run, entries(range(1, 101)))]), partial(take_over, second, worker_id, seen, run)
            )
            assert not isinstance(journal, Exception)
            assert journal == (0 if isinstance(written, WorkerFenced) else 100)
            assert isinstance(written, WorkerFenced) or written == [Written("ok", 0)]
            assert len(await store.load(run.run_id)) == journal

    async def test_the_end_of_a_run_is_there_before_anybody_is_told(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
            worker_id, run = await start(store, f"run-{status.name}")
            await release(store, worker_id, run, Release(status, result=b'"the end"'))
            ended = await get(second, run.run_id)
            assert (ended.status, ended.result, ended.owner) == (status, b'"the end"', None)

    async def test_runs_that_end_in_one_batch_come_each_to_its_own_end(self, store: RunStore, second: RunStore) -> None:
        worker_id = await register(store)
        ran = [(await start(store, f"run-{number}", worker_id))[1] for number in range(30)]
        ends = [RunStatus.FAILED if number % 3 == 1 else RunStatus.COMPLETED for number in range(30)]
        results = [b'"' + b"%d" % number * (20_000 if number == 7 else 1) + b'"' for number in range(30)]
        batch = [write(run, [entry(1)], release=Release(end, result=result)) for run, end, result in zip(ran, ends, results, strict=True)]
        batch[11] = batch[11]._replace(fence=batch[11].fence + 1)
        assert [each.verdict for each in await store.write(worker_id, batch)] == ["lost" if i == 11 else "ok" for i in range(30)]
        for number, run in enumerate(ran):
            ended = await get(second, run.run_id)
            told = (RunStatus.RUNNING, worker_id, b"") if number == 11 else (ends[number], None, results[number])
            assert (ended.status, ended.owner, ended.result) == told

    async def test_the_first_result_after_a_claim_forgets_the_crashes_before(self, store: RunStore) -> None:
        await create(store, "run-1")
        for _ in range(2):
            await crash(store, "run-1")
        worker_id = await register(store)
        run = await claim(store, worker_id, "run-1")
        assert run.crashes == 2
        assert (await write_one(store, worker_id, write(run, entries([1]), clear_crashes=True))).verdict == "ok"
        assert (await get(store, "run-1")).crashes == 0

    async def test_what_is_acknowledged_survives_a_restart(self, store: RunStore, reopen: Reopen) -> None:
        worker_id, run = await start(store, "run-1")
        assert (await write_one(store, worker_id, write(run, entries([1, 2])))).verdict == "ok"
        await store.signal("run-1", "m", "topic", b"body")
        await start(store, "ended", worker_id)
        await release(store, worker_id, await get(store, "ended"), completed(b'"ok"'))
        again = await reopen()
        assert [each.seq for each in await again.load("run-1")] == [1, 2]
        assert await again.inbox("run-1") == [(1, "m", "topic", b"body", None)]
        assert (await get(again, "ended")).result == b'"ok"'
        assert await try_claim(again, await register(again), "run-1") == "taken"
        assert (await reap(again, worker_id)).taken_over[0].run_id == "run-1"


async def cut_off(work: Callable[[], Coroutine[Any, Any, object]], turns: int) -> None:
    """Start a call, and cancel it after so many turns of the event loop."""
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        for _ in range(turns):
            await checkpoint()
        group.cancel_scope.cancel()


async def take_over(store: RunStore, worker_id: str, seen: int, run: Run) -> int:
    """Declare the owner dead, claim its run and read its journal: the number of entries."""
    swept = await sweep(store, {worker_id: seen})
    assert [freed.run_id for freed in swept.taken_over] == [run.run_id]
    await claim(store, await register(store), run.run_id)
    return len(await store.load(run.run_id))
