"""Group commit: one ordered writer, a batch in flight, durability as a prefix per run, and one guilty entry that fails alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agentkit.durable.group_commit import HIGH_WATER_ROWS, MAX_BYTES, MAX_ROWS, Claim
from agentkit.errors import ClaimLost, EntryTooLarge, StoreRefused, WorkerFenced
from agentkit.ports.records import EntryKind, Join, Release, RunStatus, RunWrite
from tests.core.lanes import ME, Bench, bench


def refuse_key(key: str) -> Callable[[Sequence[RunWrite]], None]:
    def refuse(batch: Sequence[RunWrite]) -> None:
        if any(e.key == key for w in batch for e in w.entries):
            raise EntryTooLarge(f"entry {key}", 2, 1)

    return refuse


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await checkpoint()


# Gathering


async def test_an_idle_lane_commits_at_once_and_a_busy_one_what_gathered_meanwhile() -> None:
    async with bench() as b:
        one, two = await b.claim("one"), await b.claim("two")
        async with b.held():
            b.add(one, "a", "b")
            b.add(two, "c")
        await b.lane.settled(one)
        await b.lane.settled(two)
        assert b.store.rows(1) == {"one": [1, 2], "two": [1]}
        assert b.flushed == [1, 3]


async def in_lock_step(b: Bench, runs: int, steps: int) -> list[int]:
    """How many runs were in each batch, when each of them waits for its entry before it hands in the next."""
    claims = [await b.claim(f"run-{n:02}") for n in range(runs)]

    async def go(claim: Claim) -> None:
        for step in range(steps):
            b.add(claim, f"k{step}")
            await b.lane.settled(claim)

    async with anyio.create_task_group() as tasks:
        for claim in claims:
            tasks.start_soon(go, claim)
    return [len(batch) for batch in b.store.batches]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio shuffles those who are woken together; it only makes the batches smaller
async def test_runs_that_were_woken_together_commit_together_also_with_one_that_came_before_them() -> None:
    async with bench() as b:
        assert sorted(set((await in_lock_step(b, 20, 10))[2:-2])) == [20]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio shuffles those who are woken together; it only makes the batches smaller
async def test_beside_a_server_half_of_the_runs_compute_while_the_other_half_commits() -> None:
    async with bench(remote=True) as b:
        assert sorted(set((await in_lock_step(b, 20, 10))[2:-2])) == [10]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as above
async def test_halves_that_met_in_one_batch_part_again() -> None:
    async with bench(remote=True) as b:
        claims = [await b.claim(f"r{number}") for number in range(20)]
        async with b.held():
            for claim in claims:
                b.add(claim, "first")
                b.add(claim, "second")
        for claim in claims:
            await b.lane.settled(claim)
        met = len(b.store.batches)
        for claim in claims:  # all of them again, and the lane has gone to sleep meanwhile
            b.add(claim, "third")
        await b.lane.settled(claims[-1])
        assert [len(batch) for batch in b.store.batches[met:]] == [10, 10]


async def test_entries_are_numbered_from_one_without_a_gap_and_land_in_order() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        for i in range(50):
            b.add(claim, f"k{i}")
            if i % 7 == 0:
                await checkpoint()
        await b.lane.settled(claim)
        assert [(e.seq, e.key) for e in await b.journal("r")] == [(i + 1, f"k{i}") for i in range(50)]


async def test_a_batch_has_at_most_500_rows_and_a_run_that_did_not_fit_goes_to_the_back_of_the_line() -> None:
    async with bench() as b:
        big, small = await b.claim("big"), await b.claim("small")
        async with b.held():
            b.add(big, *(f"k{i}" for i in range(MAX_ROWS + 100)))
            b.add(small, "a")
        await b.lane.settled(big)
        assert {run: len(seqs) for run, seqs in b.store.rows(1).items()} == {"big": MAX_ROWS}
        assert {run: len(seqs) for run, seqs in b.store.rows(2).items()} == {"small": 1, "big": 100}
        assert [w.run_id for w in b.store.batches[2]] == ["small", "big"]


async def test_runs_take_turns_so_one_that_writes_for_ever_starves_nobody() -> None:
    async with bench() as b:
        claims = [await b.claim(f"r{i}") for i in range(4)]
        async with b.held():
            for claim in claims:
                b.add(claim, *(f"k{i}" for i in range(2 * MAX_ROWS)))
        for claim in claims:
            await b.lane.settled(claim)
        assert [w.run_id for batch in b.store.batches[1:] for w in batch] == ["r0", "r1", "r2", "r3"] * 2


async def test_a_batch_has_at_most_a_megabyte() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        async with b.held():
            b.add(claim, "a", "b", "c", body=b"x" * (MAX_BYTES // 2 - 1))
        await b.lane.settled(claim)
        assert [b.store.rows(i) for i in (1, 2)] == [{"r": [1, 2]}, {"r": [3]}]


async def test_an_entry_bigger_than_a_batch_goes_alone() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        async with b.held():
            b.add(claim, "big", body=b"x" * (MAX_BYTES + 1))
            b.add(claim, "next")
        await b.lane.settled(claim)
        assert await b.keys("r") == ["big", "next"]
        assert b.store.rows(1) == {"r": [1]}


# Durability classes


async def test_plain_results_of_the_relaxed_class_do_not_ask_for_a_sync() -> None:
    async with bench() as b:
        await b.lane.settled(claim := await b.claim("r", "relaxed"), b.add(claim, "a"))
        assert b.store.syncs == [False]


@pytest.mark.parametrize("kind", [EntryKind.INTENT, EntryKind.CHILD, EntryKind.SIGNAL, EntryKind.CANCEL, EntryKind.SNAPSHOT])
async def test_what_the_outside_world_hangs_on_is_synced_in_the_relaxed_class_too(kind: EntryKind) -> None:
    async with bench() as b:
        claim = await b.claim("r", "relaxed")
        async with b.held():
            b.add(claim, "plain")
            b.add(claim, "heavy", kind=kind)
        await b.lane.settled(claim)
        assert b.store.syncs[1:] == [True]


async def test_a_batch_is_synced_as_its_strictest_row_asks() -> None:
    async with bench() as b:
        relaxed, durable = await b.claim("relaxed", "relaxed"), await b.claim("durable")
        async with b.held():
            b.add(relaxed, "a")
            b.add(durable, "a")
        await b.lane.settled(durable)
        assert b.store.syncs[1:] == [True]


async def test_a_release_is_synced_in_every_class() -> None:
    async with bench() as b:
        claim = await b.claim("r", "relaxed")
        await b.lane.settled(claim, b.add(claim, "a"))
        await b.lane.release(claim, Release(RunStatus.COMPLETED, result=b"1"))
        assert b.store.syncs == [False, True]


async def test_the_memory_class_writes_nothing_until_somebody_must_know() -> None:
    async with bench() as b:
        claim = await b.claim("r", "memory")
        b.add(claim, "a", "b")
        await turns()
        assert b.store.batches == []
        await b.lane.settled(claim)
        assert await b.keys("r") == ["a", "b"]


async def test_a_run_of_the_memory_class_that_ends_writes_its_end_alone() -> None:
    async with bench() as b:
        claim = await b.claim("r", "memory")
        b.add(claim, "a", "b")
        assert claim.discard() == 2
        b.lane.rows -= 2
        await b.lane.release(claim, Release(RunStatus.COMPLETED, result=b"1"))
        assert await b.keys("r") == []
        assert b.lane.rows == 0


# Waiting


async def test_settled_returns_when_the_entry_is_durable_and_not_before() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        async with anyio.create_task_group() as tasks:
            async with b.held():
                seq = b.add(claim, "a")
                told = anyio.Event()

                async def wait() -> None:
                    await b.lane.settled(claim, seq)
                    told.set()

                tasks.start_soon(wait)
                await turns()
                assert not told.is_set()
            await told.wait()
        assert claim.acked == 1


async def test_a_waiter_that_is_cancelled_does_not_withdraw_its_entry() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        async with b.held():
            b.add(claim, "a")
            with anyio.move_on_after(0):
                await b.lane.settled(claim)
        b.add(claim, "b")
        await b.lane.settled(claim)
        assert await b.keys("r") == ["a", "b"]


async def test_over_the_high_water_mark_new_bodies_wait_and_results_are_still_taken() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        async with anyio.create_task_group() as tasks:
            async with b.held():
                for _ in range(HIGH_WATER_ROWS):
                    b.add(claim, "k")
                assert b.lane.full
                b.add(claim, "still taken")
                started = anyio.Event()

                async def body() -> None:
                    await b.lane.room()
                    started.set()

                tasks.start_soon(body)
                await turns()
                assert not started.is_set()
            await started.wait()
        await b.lane.settled(claim)
        assert not b.lane.full
        assert b.lane.rows == 0


# Data that the store refuses


async def test_a_refused_entry_fails_alone_and_its_neighbours_are_written() -> None:
    async with bench() as b:
        claims = [await b.claim(f"r{i}") for i in range(8)]
        b.store.refuse = refuse_key("poison")
        async with b.held():
            for i, claim in enumerate(claims):
                b.add(claim, "a", "poison" if i == 5 else "b", "c")
        for i, claim in enumerate(claims):
            if i != 5:
                await b.lane.settled(claim)
                assert await b.keys(f"r{i}") == ["a", "b", "c"]
        with pytest.raises(EntryTooLarge, match="entry poison is 2 bytes"):
            await b.lane.settled(claims[5])
        assert b.lane.rows == 0


async def test_before_a_refused_entry_its_run_is_written_and_after_it_withheld() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        b.store.refuse = refuse_key("poison")
        async with b.held():
            b.add(claim, "a", "b", "poison", "c", "d")
        with pytest.raises(EntryTooLarge):
            await b.lane.settled(claim)
        assert await b.keys("r") == ["a", "b"]
        assert claim.acked == 2


async def test_a_run_with_a_refused_entry_can_be_ended_under_the_same_claim() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        b.store.refuse = refuse_key("poison")
        b.add(claim, "a", "poison")
        with pytest.raises(StoreRefused):
            await b.lane.settled(claim)
        with pytest.raises(StoreRefused):
            b.add(claim, "more")
        again = type(claim)("r", claim.fence, seq=claim.acked)
        assert await b.lane.release(again, Release(RunStatus.FAILED, result=b"{}")) == "ok"


async def test_splitting_a_batch_keeps_takes_with_their_entry_and_the_release_last() -> None:
    async with bench() as b:
        claim, bad = await b.claim("r"), await b.claim("bad")
        claim.clear_crashes = True
        await b.store.signal("r", "m", "topic", b"1")

        def refuse(batch: Sequence[RunWrite]) -> None:
            if len(batch) > 1 or len(batch[0].entries) > 1:
                raise EntryTooLarge("x", 2, 1)

        b.store.refuse = refuse
        async with b.held():
            b.add(bad, "x")
            b.add(claim, "a")
            b.lane.take(claim, "m", b.add(claim, "s", kind=EntryKind.SIGNAL))
            b.add(claim, "c")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(b.lane.release, claim, Release(RunStatus.COMPLETED, result=b"9"))
                await turns(3)
                assert b.store.gate is not None
                b.store.gate.set()
        assert await b.keys("r") == ["a", "s", "c"]
        (row,) = await b.store.get(["r"])
        (message,) = await b.store.inbox("r")
        assert row is not None
        assert row.status == RunStatus.COMPLETED
        assert message.taken_seq == 2
        assert any(w.clear_crashes for batch in b.store.batches for w in batch if len(w.entries) == 1)


# The unknown outcome


@pytest.mark.parametrize("cut", [["before"], ["after"], ["before", "after", "before"]], ids=str)
async def test_after_an_unknown_outcome_the_very_same_batch_is_sent_again_until_it_is_answered(cut: list[str]) -> None:
    async with bench() as b:
        claim = await b.claim("r")
        b.store.lose = list(cut)
        b.add(claim, "a", "b")
        await b.lane.settled(claim)
        assert [b.store.rows(i) for i in range(len(cut) + 1)] == [{"r": [1, 2]}] * (len(cut) + 1)
        assert await b.keys("r") == ["a", "b"]


async def test_while_an_outcome_is_unknown_nothing_else_is_sent() -> None:
    async with bench() as b:
        one, two = await b.claim("one"), await b.claim("two")
        b.store.lose = ["after", "after"]
        b.add(one, "a")
        await b.store.writing.wait()
        b.add(one, "b")
        b.add(two, "c")
        await b.lane.settled(one)
        await b.lane.settled(two)
        assert [b.store.rows(i) for i in range(4)] == [{"one": [1]}] * 3 + [{"one": [2], "two": [1]}]


async def test_a_release_whose_answer_was_lost_is_settled_by_sending_it_again() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        b.store.lose = ["after"]
        assert await b.lane.release(claim, Release(RunStatus.COMPLETED, result=b"9")) == "ok"
        (row,) = await b.store.get(["r"])
        assert row is not None
        assert row.result == b"9"


async def test_what_stays_unknown_for_a_lease_ends_the_registration_and_tells_everybody() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        b.store.lose = ["before"] * 2
        b.add(claim, "a")
        await b.store.writing.wait()
        b.clock.jump(11)
        with pytest.raises(WorkerFenced, match=ME):
            await b.lane.settled(claim)
        assert b.deaths == 1


# Ownership


async def test_a_run_that_was_lost_fails_alone() -> None:
    async with bench() as b:
        mine, lost = await b.claim("mine"), await b.claim("lost")
        told: list[str] = []
        lost.on_lost = lambda: told.append("lost")
        lost.fence += 1
        async with b.held():
            b.add(mine, "a")
            b.add(lost, "a")
        await b.lane.settled(mine)
        with pytest.raises(ClaimLost, match="'lost'"):
            await b.lane.settled(lost)
        assert await b.keys("lost") == []
        assert told == ["lost"]
        assert b.deaths == 0


async def test_a_dead_worker_writes_nothing_and_everybody_who_waits_is_told() -> None:
    async with bench() as b:
        one, two = await b.claim("one"), await b.claim("two")
        await b.store.retire(ME)
        b.add(one, "a")
        b.add(two, "a")
        for claim in (one, two):
            with pytest.raises(WorkerFenced):
                await b.lane.settled(claim)
        assert b.deaths == 1
        assert await b.keys("one") == []


async def test_an_abandoned_lane_refuses_what_is_handed_in_later() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        b.lane.abandon()
        b.add(claim, "a")
        with pytest.raises(WorkerFenced):
            await b.lane.settled(claim)
        with pytest.raises(WorkerFenced):
            b.add(claim, "b")


async def test_a_release_is_the_last_write_of_a_claim() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        b.add(claim, "a")
        await b.lane.release(claim, Release(RunStatus.COMPLETED, result=b"1"))
        with pytest.raises(ClaimLost):
            b.add(claim, "late")
        assert await b.keys("r") == ["a"]


async def test_a_park_on_an_inbox_that_moved_leaves_the_claim_open() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        await b.store.signal("r", "m", "topic", b"1")
        assert await b.lane.release(claim, Release(RunStatus.PARKED, seen=0)) == "moved"
        await b.lane.settled(claim, b.add(claim, "goes on"))
        assert await b.lane.release(claim, Release(RunStatus.PARKED, seen=1)) == "ok"
        assert await b.keys("r") == ["goes on"]


async def test_an_answer_that_shows_a_moved_inbox_pokes_the_run() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        pokes: list[int] = []
        claim.on_inbox = lambda: pokes.append(1)
        await b.lane.settled(claim, b.add(claim, "a"))
        assert pokes == []
        await b.store.signal("r", "m", "topic", b"1")
        await b.lane.settled(claim, b.add(claim, "b"))
        assert pokes == [1]


async def test_a_join_is_opened_with_the_entry_that_announces_it() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        b.add(claim, "map#1", kind=EntryKind.CHILD)
        b.lane.join(claim, Join("map#1", 1, 1, 0, 16))
        await b.lane.settled(claim)
        assert [list(w.joins) for w in b.store.batches[0]] == [[Join("map#1", 1, 1, 0, 16)]]


async def test_a_closed_lane_ends_once_everything_handed_in_is_written() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        async with b.held():
            b.add(claim, "a")
            b.lane.close()
        await b.lane.settled(claim)
        assert await b.keys("r") == ["a"]


async def test_the_first_result_after_a_take_over_clears_the_count_of_crashes() -> None:
    async with bench() as b:
        claim = await b.claim("r")
        claim.clear_crashes = True
        await b.lane.settled(claim, b.add(claim, "s", kind=EntryKind.STATUS))
        await b.lane.settled(claim, b.add(claim, "a"))
        await b.lane.settled(claim, b.add(claim, "b"))
        assert [w.clear_crashes for batch in b.store.batches for w in batch] == [False, True, False]
