"""Laws of a run store: what a sweep finds and finishes."""

from __future__ import annotations

import json
from functools import partial

import pytest

from agentkit.ports.records import Claimed, Release, RunStatus, Swept
from agentkit.ports.runs import RunStore
from agentkit.testing.contract import Advance, race
from agentkit.testing.runs_base import (
    SERVES,
    RunsBase,
    claim,
    completed,
    crash,
    create,
    entries,
    get,
    new,
    park,
    parked,
    reap,
    register,
    release,
    run_ids,
    start,
    statuses,
    sweep,
    the_ticket,
    try_claim,
    write,
    write_one,
)
from agentkit.testing.runs_write import cut_off


class TakeOverLaws(RunsBase):
    """The runs of the dead go on, each once; nothing acknowledged is lost."""

    async def test_the_runs_of_a_dead_worker_are_ready_again(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        _, parked_run = await start(store, "run-2", worker_id)
        await release(store, worker_id, parked_run, parked(parked_run))
        swept = await reap(second, worker_id)
        assert list(swept.taken_over) == [("run-1", worker_id, 1, False)]
        freed = await get(store, "run-1")
        assert (freed.status, freed.owner, freed.crashes, freed.fence) == (RunStatus.READY, None, 1, run.fence)
        assert (await get(store, "run-2")).status is RunStatus.PARKED
        assert run_ids(swept.tickets) == ["run-1"]
        assert worker_id not in swept.beats

    async def test_the_new_owner_reads_all_that_was_acknowledged(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        for seqs in ([1, 2], [3]):
            assert (await write_one(store, worker_id, write(run, entries(seqs)))).verdict == "ok"
        await reap(second, worker_id)
        other = await register(second)
        taken = await claim(second, other, "run-1")
        assert (taken.fence, [each.seq for each in await second.load("run-1")]) == (2, [1, 2, 3])
        assert (await write_one(second, other, write(taken, entries([4])))).verdict == "ok"
        assert [each.fence for each in await store.load("run-1")] == [1, 1, 1, 2]

    async def test_of_many_racing_sweeps_each_run_is_freed_once(self, store: RunStore, second: RunStore) -> None:
        worker_id = await register(store)
        names = sorted(f"run-{number:02}" for number in range(30))
        for name in names:
            await start(store, name, worker_id)
        seen = {worker_id: (await sweep(store)).beats[worker_id]}
        outcomes = await race(*(partial(sweep, client, seen) for client in [store, second] * 4))
        freed = [freed.run_id for outcome in outcomes if isinstance(outcome, Swept) for freed in outcome.taken_over]
        assert sorted(freed) == names
        assert {run.crashes for run in await store.get(names) if run} == {1}

    async def test_a_sweep_is_bounded_and_the_next_goes_on(self, store: RunStore) -> None:
        worker_id = await register(store)
        names = sorted(f"run-{number:02}" for number in range(25))
        for name in names:
            await start(store, name, worker_id)
        swept, freed = await reap(store, worker_id, limit=10), list[str]()
        while True:
            assert max(len(swept.taken_over), len(swept.tickets)) <= 10
            freed += [each.run_id for each in swept.taken_over]
            if not swept.more:
                break
            await store.ticketed(swept.tickets)
            swept = await sweep(store, limit=10)
        assert sorted(freed) == names

    async def test_a_sweep_whose_answer_was_lost_is_finished_by_the_next(self, store: RunStore, second: RunStore) -> None:
        worker_id, _ = await start(store, "run-1")
        await reap(store, worker_id)
        for client in (second, store):
            assert run_ids((await sweep(client)).tickets) == ["run-1"]
        assert (await get(store, "run-1")).crashes == 1

    @pytest.mark.parametrize("turns", range(6))
    async def test_a_sweep_that_was_cut_off_anywhere_is_finished_by_the_next(self, store: RunStore, second: RunStore, turns: int) -> None:
        worker_id = await register(store)
        for name in ("run-1", "run-2", "run-3"):
            await start(store, name, worker_id)
        seen = (await sweep(store)).beats[worker_id]
        await cut_off(partial(sweep, store, {worker_id: seen}, limit=2), turns)
        # Whoever comes next knows only what a sweep tells: the beats that are left.
        for _ in range(3):
            beats = (await sweep(second)).beats
            await sweep(second, {worker_id: beats[worker_id]} if worker_id in beats else {})
        runs = [await get(store, name) for name in ("run-1", "run-2", "run-3")]
        assert [(run.status, run.crashes) for run in runs] == [(RunStatus.READY, 1)] * 3

    async def test_the_dead_of_long_ago_are_swept_too(self, store: RunStore) -> None:
        worker_id, _ = await start(store, "run-1")
        await store.retire(worker_id)
        assert [freed.run_id for freed in (await sweep(store)).taken_over] == ["run-1"]

    async def test_the_ticket_of_a_run_taken_over_is_not_that_of_its_dead_owner(self, store: RunStore) -> None:
        await create(store, "run-1")
        old = await the_ticket(store, "run-1")
        await store.ticketed([old])
        await crash(store, "run-1")
        ticket = await the_ticket(store, "run-1")
        # The dead owner's ticket may still be on lease: noted again, it must not pass for the new one.
        assert ticket.id != old.id
        await store.ticketed([old])
        assert run_ids((await sweep(store)).tickets) == ["run-1"]

    async def test_a_live_worker_keeps_its_runs_when_another_dies(self, store: RunStore) -> None:
        dead, _ = await start(store, "run-1")
        alive, run = await start(store, "run-2")
        await reap(store, dead)
        assert await get(store, "run-2") == run
        assert (await write_one(store, alive, write(run, entries([1])))).verdict == "ok"

    async def test_a_run_that_kills_its_process_too_often_is_buried_with_its_reason(self, store: RunStore) -> None:
        await create(store, "run-1")
        for crashes in (1, 2):
            swept = await crash(store, "run-1", max_crashes=3)
            assert [(freed.crashes, freed.buried) for freed in swept.taken_over] == [(crashes, False)]
        swept = await crash(store, "run-1", max_crashes=3)
        assert [(freed.crashes, freed.buried) for freed in swept.taken_over] == [(3, True)]
        run = await get(store, "run-1")
        assert (run.status, run.owner) == (RunStatus.BURIED, None)
        reason = json.loads(run.result)
        assert reason["kind"] == "RunBuried"
        assert "3" in reason["message"]
        assert list((await sweep(store)).tickets) == []
        assert await try_claim(store, await register(store), "run-1") == "ended"

    async def test_the_neighbours_of_a_buried_run_are_not_buried(self, store: RunStore) -> None:
        await create(store, "killer")
        await crash(store, "killer", max_crashes=2)
        worker_id = await register(store)
        await claim(store, worker_id, "killer")
        await start(store, "neighbour", worker_id)
        swept = await reap(store, worker_id, max_crashes=2)
        assert sorted((freed.run_id, freed.buried) for freed in swept.taken_over) == [("killer", True), ("neighbour", False)]
        assert await statuses(store, ["killer", "neighbour"]) == [RunStatus.BURIED, RunStatus.READY]


class TimerLaws(RunsBase):
    """The store's clock decides when a run wakes."""

    async def test_a_due_timer_makes_a_parked_run_ready_once(self, store: RunStore, second: RunStore, advance: Advance) -> None:
        worker_id = await register(store)
        await create(store, "run-1")
        [granted] = await store.claim(worker_id, ["run-1"], SERVES)
        assert isinstance(granted, Claimed)
        await release(store, worker_id, granted.run, parked(granted.run, wake_at=granted.store_now + 1.0, waiting_for="sleep"))
        swept = await sweep(store)
        assert list(swept.tickets) == []
        assert swept.next_timer_s is not None
        assert 0 <= swept.next_timer_s <= 1.0
        await advance(1.1)
        outcomes = await race(*(partial(sweep, client) for client in [store, second] * 3))
        assert {ticket.id for outcome in outcomes if isinstance(outcome, Swept) for ticket in outcome.tickets} == {"run-1:1"}
        run = await get(store, "run-1")
        assert (run.status, run.wake, run.wake_at, run.waiting_for, run.crashes) == (RunStatus.READY, 1, None, "", 0)
        assert (await sweep(store)).next_timer_s is None

    async def test_a_run_woken_before_its_timer_is_not_woken_by_it(self, store: RunStore, advance: Advance) -> None:
        worker_id = await register(store)
        await create(store, "run-1")
        [granted] = await store.claim(worker_id, ["run-1"], SERVES)
        assert isinstance(granted, Claimed)
        await release(store, worker_id, granted.run, parked(granted.run, wake_at=granted.store_now + 1.0))
        await store.signal("run-1", "m", "topic", b"")
        again = await claim(store, worker_id, "run-1")
        await release(store, worker_id, again, parked(again))
        await advance(1.5)
        assert (await sweep(store)).next_timer_s is None
        assert (await get(store, "run-1")).status is RunStatus.PARKED

    async def test_timers_ring_in_order_and_the_next_one_is_known(self, store: RunStore, advance: Advance) -> None:
        for name, delay_s in (("late", 2.0), ("early", 0.5)):
            await create(store, name, delay_s=delay_s)
        await advance(0.6)
        swept = await sweep(store)
        assert run_ids(swept.tickets) == ["early"]
        assert swept.next_timer_s is not None
        assert swept.next_timer_s <= 1.5

    async def test_no_time_wakes_a_run_that_waits_for_a_signal(self, store: RunStore, advance: Advance) -> None:
        await park(store, "run-1")
        await advance(2.0)
        swept = await sweep(store)
        assert (list(swept.tickets), swept.next_timer_s) == ([], None)

    async def test_many_timers_due_at_once_are_rung_in_bounded_sweeps(self, store: RunStore, advance: Advance) -> None:
        names = [f"run-{number:02}" for number in range(45)]
        await store.create([new(name, delay_s=0.5) for name in names])
        await advance(0.6)
        found: list[str] = []
        for _ in range(10):
            swept = await sweep(store, limit=10)
            assert len(swept.tickets) <= 10
            found += run_ids(swept.tickets)
            await store.ticketed(swept.tickets)
            if not swept.more:
                break
        assert sorted(found) == names


class TicketLaws(RunsBase):
    """Every READY run gets a ticket, however it lost its own; a backlog does not get two."""

    async def test_a_ready_run_without_a_ticket_is_found_until_one_is_put(self, store: RunStore, second: RunStore) -> None:
        await create(store, "run-1")
        tickets = (await sweep(store)).tickets
        assert (await sweep(second)).tickets == tickets
        assert run_ids(tickets) == ["run-1"]
        await second.ticketed(tickets)
        assert list((await sweep(store)).tickets) == []
        assert (await get(store, "run-1")).ticketed

    async def test_a_run_released_without_its_ticket_is_found(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await release(store, worker_id, run, Release(RunStatus.READY))
        assert run_ids((await sweep(store)).tickets) == ["run-1"]

    async def test_a_run_whose_ticket_was_given_back_is_left_alone(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await release(store, worker_id, run, Release(RunStatus.READY, ticketed=True))
        assert list((await sweep(store)).tickets) == []

    async def test_a_lost_ticket_is_found_once_it_is_older_than_any_that_waits(self, store: RunStore, advance: Advance) -> None:
        await create(store, "run-1")
        await create(store, "held", held=True)
        await store.ticketed((await sweep(store)).tickets)
        await advance(2.0)
        assert list((await sweep(store, lost_after_s=60.0)).tickets) == []
        tickets = (await sweep(store, lost_after_s=1.0)).tickets
        assert sorted(run_ids(tickets)) == ["held", "run-1"]
        await store.ticketed(tickets)
        assert list((await sweep(store, lost_after_s=1.0)).tickets) == []

    async def test_a_backlog_is_not_put_again(self, store: RunStore, advance: Advance) -> None:
        await store.create([new(f"run-{number}") for number in range(2000)])
        while tickets := (await sweep(store, limit=500)).tickets:
            await store.ticketed(tickets)
        await advance(1.0)
        swept = await sweep(store, lost_after_s=30.0)
        assert (list(swept.tickets), swept.more) == ([], False)

    async def test_no_ticket_is_made_for_a_run_that_is_not_ready(self, store: RunStore) -> None:
        await start(store, "running")
        await park(store, "parked")
        worker_id, ended = await start(store, "ended")
        await release(store, worker_id, ended, completed())
        assert list((await sweep(store, lost_after_s=0.0)).tickets) == []

    async def test_a_ticket_noted_for_a_run_that_is_gone_or_started_changes_nothing(self, store: RunStore) -> None:
        await create(store, "run-1")
        tickets = (await sweep(store)).tickets
        worker_id = await register(store)
        run = await claim(store, worker_id, "run-1")
        await store.ticketed([*tickets, tickets[0]._replace(run_id="nobody")])
        assert (await get(store, "run-1")).status is RunStatus.RUNNING
        await release(store, worker_id, run, Release(RunStatus.READY))
        assert run_ids((await sweep(store)).tickets) == ["run-1"]
