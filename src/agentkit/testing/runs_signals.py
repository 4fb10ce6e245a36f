"""Laws of a run store: signals, parking, cancelling, and who waits for a change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest

from agentkit.ports.queue import Ticket
from agentkit.ports.records import Claimed, EntryKind, Release, RunStatus, Signalled
from agentkit.ports.runs import RunStore
from agentkit.testing.contract import race
from agentkit.testing.runs_base import (
    AWKWARD_BYTES,
    RunsBase,
    bodies,
    claim,
    completed,
    crash,
    create,
    entry,
    get,
    new,
    park,
    parked,
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

SOON_S = 10.0  # of real time: generous, as a slow machine is no failure


class SignalLaws(RunsBase):
    """A message is taken exactly once, and no run sleeps through one."""

    async def test_a_signal_to_a_ready_run_is_accepted(self, store: RunStore) -> None:
        await create(store, "run-1")
        assert await store.signal("run-1", "m", "topic", b"") == Signalled("accepted")
        run = await get(store, "run-1")
        assert (run.status, run.inbox_seq) == (RunStatus.READY, 1)

    async def test_a_signal_to_a_running_run_is_accepted(self, store: RunStore) -> None:
        _, run = await start(store, "run-1")
        assert await store.signal("run-1", "m", "topic", b"") == Signalled("accepted")
        after = await get(store, "run-1")
        assert (after.status, after.owner, after.fence, after.inbox_seq) == (RunStatus.RUNNING, run.owner, run.fence, 1)

    async def test_a_signal_to_a_parked_run_is_accepted_and_wakes_it(self, store: RunStore, second: RunStore) -> None:
        await park(store, "run-1", waiting_for="approval")
        answer = await second.signal("run-1", "m", "topic", b"")
        assert answer.answer == "accepted"
        run = await get(store, "run-1")
        assert (run.status, run.ticketed, run.inbox_seq, run.waiting_for) == (RunStatus.READY, False, 1, "")
        assert answer.ticket is not None
        assert (answer.ticket.run_id, answer.ticket.wake) == ("run-1", run.wake)
        assert isinstance(await try_claim(store, await register(store), "run-1"), Claimed)

    @pytest.mark.parametrize("end", [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED])
    async def test_a_signal_to_an_ended_run_is_told_so_and_nothing_is_written(self, store: RunStore, end: RunStatus) -> None:
        worker_id, run = await start(store, "run-1")
        await release(store, worker_id, run, Release(end))
        ended = await get(store, "run-1")
        for topic in ("topic", "cancel"):
            assert await store.signal("run-1", topic, topic, b"") == Signalled("ended")
        assert (await get(store, "run-1"), await store.inbox("run-1")) == (ended, [])

    async def test_a_signal_to_an_unknown_run_is_told_so(self, store: RunStore) -> None:
        assert await store.signal("nobody", "m", "topic", b"") == Signalled("unknown")
        assert await store.inbox("nobody") == []

    async def test_a_repeated_id_is_a_duplicate_whoever_took_the_first(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await store.signal("run-1", "m", "topic", b"first")
        assert await second.signal("run-1", "m", "other", b"second") == Signalled("duplicate")
        taken = write(run, [entry(1, kind=EntryKind.SIGNAL)], takes=[("m", 1)], release=parked(run, seen=1))
        assert (await write_one(store, worker_id, taken)).verdict == "ok"
        assert await second.signal("run-1", "m", "topic", b"third") == Signalled("duplicate")
        assert await store.inbox("run-1") == [(1, "m", "topic", b"first", 1)]
        assert (await get(store, "run-1")).status is RunStatus.PARKED

    async def test_of_many_racing_senders_of_one_id_one_is_accepted(self, store: RunStore, second: RunStore) -> None:
        await park(store, "run-1")
        outcomes = await race(*(partial(client.signal, "run-1", "m", "topic", b"") for client in [store, second] * 5))
        answers = [outcome for outcome in outcomes if isinstance(outcome, Signalled)]
        assert sorted(each.answer for each in answers) == ["accepted"] + ["duplicate"] * 9
        assert len([each for each in answers if each.ticket]) == 1
        assert (len(await store.inbox("run-1")), (await get(store, "run-1")).inbox_seq) == (1, 1)

    async def test_racing_signals_all_arrive_in_one_order_and_wake_once(self, store: RunStore, second: RunStore) -> None:
        await park(store, "run-1")
        sends = [partial(client.signal, "run-1", f"m{number}", "topic", b"") for number, client in enumerate([store, second] * 10)]
        outcomes = await race(*sends)
        assert [outcome.answer for outcome in outcomes if isinstance(outcome, Signalled)] == ["accepted"] * 20
        assert len([outcome for outcome in outcomes if isinstance(outcome, Signalled) and outcome.ticket]) == 1
        inbox = await store.inbox("run-1")
        assert [message.seq for message in inbox] == list(range(1, 21))
        assert {message.id for message in inbox} == {f"m{number}" for number in range(20)}

    @pytest.mark.parametrize("body", AWKWARD_BYTES, ids=lambda body: f"{len(body)} bytes")
    async def test_a_message_comes_back_byte_identical(self, store: RunStore, second: RunStore, body: bytes) -> None:
        await create(store, "run-1")
        await store.signal("run-1", "größe 1", "tür:öffnen", body)
        assert await second.inbox("run-1") == [(1, "größe 1", "tür:öffnen", body, None)]

    async def test_message_ids_that_differ_in_case_or_spaces_are_different_messages(self, store: RunStore) -> None:
        await create(store, "run-1")
        for message_id in ("m", "M", "m ", "ḿ", "m\u0301"):
            assert (await store.signal("run-1", message_id, "topic", b"")).answer == "accepted"
        assert [message.id for message in await store.inbox("run-1")] == ["m", "M", "m ", "ḿ", "m\u0301"]

    async def test_taking_a_message_is_its_entry_and_its_mark_in_one_write(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await store.signal("run-1", "a", "topic", b"")
        await store.signal("run-1", "b", "topic", b"")
        gap = write(run, [entry(2, kind=EntryKind.SIGNAL)], takes=[("b", 2)])
        assert (await write_one(store, worker_id, gap)).verdict == "lost"
        assert [message.taken_seq for message in await store.inbox("run-1")] == [None, None]
        good = write(run, [entry(1, kind=EntryKind.SIGNAL)], takes=[("b", 1)])
        assert (await write_one(store, worker_id, good)).verdict == "ok"
        assert [message.taken_seq for message in await store.inbox("run-1")] == [None, 1]

    async def test_a_park_that_has_not_read_the_last_signal_does_not_happen(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await second.signal("run-1", "m", "topic", b"")
        batch = [write(run, [entry(1)], release=parked(run))]
        for _ in range(2):
            assert await store.write(worker_id, batch) == [("moved", 1)]
        assert (await get(store, "run-1")).status is RunStatus.RUNNING
        assert await bodies(store, "run-1") == [entry(1).body]
        taken = write(run, [entry(2, kind=EntryKind.SIGNAL)], takes=[("m", 2)], release=parked(run, seen=1))
        assert (await write_one(store, worker_id, taken)).verdict == "ok"
        assert (await get(store, "run-1")).status is RunStatus.PARKED

    async def test_one_that_did_not_park_does_not_disturb_its_neighbours(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        _, neighbour = await start(store, "run-2", worker_id)
        await store.signal("run-1", "m", "topic", b"")
        written = await store.write(worker_id, [write(each, [entry(1)], release=parked(each)) for each in (run, neighbour)])
        assert [each.verdict for each in written] == ["moved", "ok"]
        assert await statuses(store, ["run-1", "run-2"]) == [RunStatus.RUNNING, RunStatus.PARKED]

    async def test_a_park_that_races_a_signal_never_sleeps_through_it(self, store: RunStore, second: RunStore) -> None:
        for number in range(20):
            worker_id, run = await start(store, f"run-{number}")
            both: list[Callable[[], Awaitable[object]]] = [
                partial(store.write, worker_id, [write(run, release=parked(run))]),
                partial(second.signal, run.run_id, "m", "topic", b""),
            ]
            await race(*(both if number % 2 else both[::-1]))
            after = await get(store, run.run_id)
            assert (after.status, len(await store.inbox(run.run_id))) in {(RunStatus.RUNNING, 1), (RunStatus.READY, 1)}

    async def test_a_ticket_noted_late_leaves_the_next_wake_its_own(self, store: RunStore) -> None:
        await create(store, "run-1")
        ticket = await the_ticket(store, "run-1")
        worker_id = await register(store)
        run = await claim(store, worker_id, "run-1")
        await release(store, worker_id, run, parked(run))
        await store.signal("run-1", "m", "topic", b"")
        await store.ticketed([ticket])
        again = await the_ticket(store, "run-1")
        # While the old ticket still waits, a queue drops a copy of it: the new one must be another.
        assert again.id != ticket.id

    async def test_a_ticket_says_what_the_run_is(self, store: RunStore) -> None:
        await create(store, "run-1", tenant="acme", priority=2, key="customer 7", trace="00-4bf92f35-01")
        ticket = await the_ticket(store, "run-1")
        assert ticket._replace(wake=0) == Ticket("run-1", "review", "3", 0, "acme", 2, "customer 7", "00-4bf92f35-01")


class CancelLaws(RunsBase):
    """A cancel is a signal; what never started ends at once."""

    @pytest.mark.parametrize("delay_s", [0.0, 60.0], ids=["ready", "delayed"])
    async def test_a_cancel_ends_a_run_that_never_started_at_once(self, store: RunStore, delay_s: float) -> None:
        await create(store, "run-1", delay_s=delay_s)
        assert await store.signal("run-1", "c", "cancel", b'{"kind": "RunCancelled"}') == Signalled("accepted", None, True)
        run = await get(store, "run-1")
        assert (run.status, run.result, run.wake_at) == (RunStatus.CANCELLED, b'{"kind": "RunCancelled"}', None)
        assert await try_claim(store, await register(store), "run-1") == "ended"
        assert (await sweep(store)).tickets == []

    async def test_a_cancel_of_a_run_that_started_is_a_message_to_it(self, store: RunStore) -> None:
        _, running = await start(store, "running")
        assert await store.signal("running", "c", "cancel", b"") == Signalled("accepted")
        assert (await get(store, "running")).owner == running.owner
        await park(store, "parked")
        answer = await store.signal("parked", "c", "cancel", b"")
        assert (answer.answer, answer.ended_now, answer.ticket and answer.ticket.run_id) == ("accepted", False, "parked")
        await create(store, "crashed")
        await crash(store, "crashed")
        assert await store.signal("crashed", "c", "cancel", b"") == Signalled("accepted")
        assert await statuses(store, ["running", "parked", "crashed"]) == [RunStatus.RUNNING, RunStatus.READY, RunStatus.READY]

    async def test_a_cancel_that_races_a_claim_ends_the_run_or_reaches_it(self, store: RunStore, second: RunStore) -> None:
        for number in range(20):
            run_id = f"run-{number}"
            await create(store, run_id)
            worker_id = await register(store)
            cancel = partial(second.signal, run_id, "c", "cancel", b"")
            both: list[Callable[[], Awaitable[object]]] = [partial(try_claim, store, worker_id, run_id), cancel]
            outcomes = await race(*(both if number % 2 else both[::-1]))
            answer, signalled = outcomes if number % 2 else outcomes[::-1]
            assert isinstance(signalled, Signalled)
            assert signalled.answer == "accepted"
            assert signalled.ended_now == (answer == "ended")
            assert signalled.ended_now or [message.topic for message in await store.inbox(run_id)] == ["cancel"]

    async def test_only_a_ready_or_parked_run_is_buried_and_its_reason_is_kept(self, store: RunStore) -> None:
        await create(store, "ready")
        await park(store, "parked")
        worker_id, running = await start(store, "running")
        _, ended = await start(store, "ended", worker_id)
        await release(store, worker_id, ended, completed())
        names = ["ready", "parked", "running", "ended", "nobody"]
        assert [await store.bury(name, b'{"kind": "RunBuried"}') for name in names] == [True, True, False, False, False]
        runs = [await get(store, name) for name in names[:2]]
        assert [(run.status, run.result) for run in runs] == [(RunStatus.BURIED, b'{"kind": "RunBuried"}')] * 2
        assert await get(store, "running") == running
        assert await try_claim(store, worker_id, "ready") == "ended"

    async def test_a_buried_run_is_revived_once_with_its_journal_and_no_crashes(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        assert (await write_one(store, worker_id, write(run, [entry(1)], release=Release(RunStatus.READY)))).verdict == "ok"
        await crash(store, "run-1", max_crashes=1)
        assert (await get(store, "run-1")).status is RunStatus.BURIED
        ticket = await store.revive("run-1")
        assert ticket is not None
        revived = await get(store, "run-1")
        assert (revived.status, revived.crashes, revived.wake, revived.expires_at) == (RunStatus.READY, 0, ticket.wake, None)
        assert await store.revive("run-1") is None
        assert await store.revive("nobody") is None
        assert run_ids((await sweep(store)).tickets) == ["run-1"]
        assert await bodies(store, "run-1") == [entry(1).body]


class ChangeLaws(RunsBase):
    """Whoever waits for a change hears of it."""

    async def test_who_waits_hears_of_a_change(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        changes: dict[str, Callable[[], Awaitable[object]]] = {
            "create": partial(store.create, [new("run-2")]),
            "write": partial(store.write, worker_id, [write(run, [entry(1)])]),
            "signal": partial(store.signal, "run-1", "m", "topic", b""),
            "end": partial(store.write, worker_id, [write(run, [entry(2)], release=completed())]),
        }
        for name, change in changes.items():
            seen = await store.changed(0, 0.0)
            heard = anyio.Event()

            async def wait(seen: int, heard: anyio.Event) -> None:
                while await store.changed(seen, SOON_S) == seen:
                    pass
                heard.set()

            with anyio.move_on_after(SOON_S):
                async with anyio.create_task_group() as group:
                    group.start_soon(wait, seen, heard)
                    await anyio.wait_all_tasks_blocked()
                    await change()
            assert heard.is_set(), name

    async def test_a_change_made_before_one_waits_is_not_missed(self, store: RunStore, second: RunStore) -> None:
        seen = await store.changed(0, 0.0)
        await create(store, "run-1")
        with anyio.fail_after(SOON_S):
            assert await store.changed(seen, SOON_S) != seen

    async def test_who_waits_in_vain_gets_its_token_back(self, store: RunStore) -> None:
        tokens = [await store.changed(0, 0.0)]
        for _ in range(10):
            tokens.append(await store.changed(tokens[-1], 0.0))
        # A change may be reported that was none, but not for ever.
        assert tokens[-1] == tokens[-2]
