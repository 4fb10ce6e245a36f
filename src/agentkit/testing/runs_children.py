"""Laws of a run store: joins, windows and telling parents."""

from __future__ import annotations

from functools import partial

import pytest

from agentkit.ports.records import EntryKind, Release, RunQuery, RunStatus, Signalled
from agentkit.ports.runs import RunStore
from agentkit.testing.contract import race
from agentkit.testing.runs_base import (
    SERVES,
    RunsBase,
    claim,
    completed,
    crash,
    create,
    entry,
    family,
    get,
    new,
    parked,
    reap,
    register,
    release,
    run_ids,
    start,
    statuses,
    sweep,
    write,
    write_one,
)


class ChildrenLaws(RunsBase):
    """A parent is woken once, when its condition holds; no more children run than the window lets through."""

    async def test_no_more_children_are_ready_than_the_window_lets_through(self, store: RunStore) -> None:
        parent = await family(store, 10, window=3)
        created = await parent.create_children()
        assert [each.run.status for each in created if each.run] == [RunStatus.READY] * 3 + [RunStatus.PARKED] * 7
        assert await parent.let_through() == [0, 1, 2]
        assert sorted(run_ids((await sweep(store)).tickets)) == parent.names[:3]

    async def test_children_created_twice_fill_the_window_once(self, store: RunStore, second: RunStore) -> None:
        parent = await family(store, 6, window=4)
        await store.create(parent.new_children(0, 3), parent=parent.claim)
        again = await second.create(parent.new_children(), parent=parent.claim)
        assert [each.answer for each in again] == ["exists"] * 3 + ["created"] * 3
        assert await parent.let_through() == [0, 1, 2, 3]

    async def test_an_ending_child_lets_the_next_one_start(self, store: RunStore) -> None:
        parent = await family(store, 6, window=2)
        await parent.create_children()
        assert run_ids(await parent.finish(1)) == [parent.names[2]]
        assert run_ids(await parent.finish(0, 2, status=RunStatus.FAILED)) == parent.names[3:5]
        assert await parent.let_through() == [0, 1, 2, 3, 4]

    async def test_an_end_told_twice_or_by_many_counts_once(self, store: RunStore, second: RunStore) -> None:
        parent = await family(store, 5, window=1)
        await parent.create_children()
        [answer] = await store.claim(parent.worker_id, [parent.names[0]], SERVES)
        assert not isinstance(answer, str)
        await release(store, parent.worker_id, answer.run, completed())
        outcomes = await race(*(partial(client.tell, [parent.names[0]] * 2) for client in [store, second] * 3))
        assert [run_ids(outcome) for outcome in outcomes if isinstance(outcome, list) and outcome] == [[parent.names[1]]]
        assert await store.tell([parent.names[0]]) == []
        assert await parent.let_through() == [0, 1]

    async def test_a_child_that_lives_is_not_counted(self, store: RunStore) -> None:
        parent = await family(store, 2, window=1)
        await parent.create_children()
        assert await store.tell([*parent.names, "nobody"]) == []
        assert await parent.let_through() == [0]

    async def test_a_parent_of_many_is_woken_once_when_all_have_ended(self, store: RunStore) -> None:
        parent = await family(store, 30, window=30)
        await parent.create_children()
        await parent.park_parent()
        assert await parent.finish(*range(29)) == []
        assert (await get(store, "parent")).status is RunStatus.PARKED
        assert run_ids(await parent.finish(29)) == ["parent"]
        assert (await get(store, "parent")).status is RunStatus.READY
        assert [(message.topic, message.taken_seq) for message in await store.inbox("parent")] == [("join:map#0", None)]

    async def test_racing_ends_wake_the_parent_once(self, store: RunStore, second: RunStore) -> None:
        parent = await family(store, 20, window=20)
        await parent.create_children()
        await parent.park_parent()
        answers = await store.claim(parent.worker_id, parent.names, SERVES)
        await store.write(parent.worker_id, [write(each.run, release=completed()) for each in answers if not isinstance(each, str)])
        outcomes = await race(*(partial(client.tell, [name]) for client, name in zip([store, second] * 10, parent.names, strict=True)))
        assert [run_ids(outcome) for outcome in outcomes if isinstance(outcome, list) and outcome] == [["parent"]]
        assert len(await store.inbox("parent")) == 1

    async def test_enough_good_children_wake_the_parent(self, store: RunStore) -> None:
        parent = await family(store, 5, need_good=2)
        await parent.create_children()
        await parent.park_parent()
        assert await parent.finish(0) == []
        assert await parent.finish(1, status=RunStatus.FAILED) == []
        assert run_ids(await parent.finish(2)) == ["parent"]
        assert await parent.finish(3, 4) == []
        assert len(await store.inbox("parent")) == 1

    @pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.CANCELLED])
    async def test_too_many_bad_children_wake_the_parent(self, store: RunStore, status: RunStatus) -> None:
        parent = await family(store, 5, max_bad=1)
        await parent.create_children()
        await parent.park_parent()
        assert await parent.finish(0, status=status) == []
        assert await parent.finish(1) == []
        assert run_ids(await parent.finish(2, status=status)) == ["parent"]

    async def test_once_the_condition_holds_no_further_child_starts(self, store: RunStore) -> None:
        parent = await family(store, 6, max_bad=0, window=2)
        await parent.create_children()
        await parent.park_parent()
        assert run_ids(await parent.finish(0, status=RunStatus.FAILED)) == ["parent"]
        assert await parent.finish(1) == []
        assert await parent.let_through() == [0, 1]

    async def test_once_enough_children_are_good_no_further_child_starts(self, store: RunStore) -> None:
        parent = await family(store, 6, need_good=1, window=2)
        await parent.create_children()
        await parent.park_parent()
        assert run_ids(await parent.finish(0)) == ["parent"]
        assert await parent.finish(1) == []
        assert await parent.let_through() == [0, 1]

    async def test_a_running_parent_finds_the_message_and_needs_no_ticket(self, store: RunStore) -> None:
        parent = await family(store, 1)
        await parent.create_children()
        assert await parent.finish(0) == []
        assert [message.topic for message in await store.inbox("parent")] == ["join:map#0"]
        stale = write(parent.parent, release=parked(parent.parent))
        assert (await write_one(store, parent.worker_id, stale)).verdict == "moved"

    async def test_the_end_of_a_child_after_its_parent_ended_wakes_nobody(self, store: RunStore) -> None:
        parent = await family(store, 2)
        await parent.create_children()
        await release(store, parent.worker_id, parent.parent, completed())
        assert await parent.finish(0, 1) == []
        assert list((await sweep(store)).untold) == []
        assert (await get(store, "parent")).status is RunStatus.COMPLETED

    async def test_a_child_without_a_join_is_nobodys_business(self, store: RunStore) -> None:
        worker_id, _ = await start(store, "parent")
        _, child = await start(store, "child", worker_id, parent_id="parent", parent_key="detached")
        await release(store, worker_id, child, completed())
        assert list((await sweep(store)).untold) == []
        assert await store.tell(["child"]) == []
        assert await store.inbox("parent") == []

    async def test_two_joins_of_one_parent_are_counted_apart(self, store: RunStore) -> None:
        parent = await family(store, 1)
        other = await write_one(
            store, parent.worker_id, write(parent.parent, [entry(2, kind=EntryKind.CHILD)], joins=[parent.join._replace(key="b", total=2)])
        )
        assert other.verdict == "ok"
        await parent.create_children()
        others = [new(f"other-{idx}", parent_id="parent", parent_key="b", idx=idx) for idx in range(2)]
        await store.create(others, parent=parent.claim)
        await parent.finish(0)
        assert [message.topic for message in await store.inbox("parent")] == ["join:map#0"]

    async def test_a_buried_child_counts_as_bad(self, store: RunStore) -> None:
        parent = await family(store, 2, max_bad=0)
        await parent.create_children()
        await parent.park_parent()
        swept = await crash(store, parent.names[0], max_crashes=1)
        assert list(swept.untold) == [parent.names[0]]
        assert run_ids(await store.tell(swept.untold)) == ["parent"]

    async def test_a_child_cancelled_before_it_started_ends_and_is_counted(self, store: RunStore) -> None:
        parent = await family(store, 2, max_bad=0)
        await parent.create_children()
        await parent.park_parent()
        assert await store.signal(parent.names[0], "c", "cancel", b"{}") == Signalled("accepted", None, True)
        assert run_ids(await store.tell([parent.names[0]])) == ["parent"]

    async def test_no_signal_but_a_cancel_starts_a_child_outside_the_window(self, store: RunStore) -> None:
        parent = await family(store, 3, window=1)
        await parent.create_children()
        assert await store.signal(parent.names[2], "m", "topic", b"") == Signalled("accepted")
        assert await parent.let_through() == [0]
        assert (await store.signal(parent.names[2], "c", "cancel", b"")).ended_now
        await parent.finish(0)
        assert await statuses(store, parent.names) == [RunStatus.COMPLETED, RunStatus.READY, RunStatus.CANCELLED]

    async def test_a_child_cancelled_outside_the_window_leaves_no_place_in_it(self, store: RunStore) -> None:
        parent = await family(store, 6, window=2)
        await parent.create_children()
        await store.signal(parent.names[4], "c", "cancel", b"")
        assert await store.tell([parent.names[4]]) == []
        assert await parent.let_through() == [0, 1, 4]
        assert run_ids(await parent.finish(0)) == [parent.names[2]]

    async def test_cancelling_the_children_ends_those_that_never_started_and_tells_the_others(self, store: RunStore) -> None:
        parent = await family(store, 6, window=4)
        await parent.create_children()
        running = await claim(store, parent.worker_id, parent.names[0])
        asleep = await claim(store, parent.worker_id, parent.names[1])
        await release(store, parent.worker_id, asleep, parked(asleep))
        await parent.finish(2)
        tickets = await store.cancel_children("parent", "map#0", b'{"kind": "RunCancelled"}')
        assert run_ids(tickets) == [parent.names[1]]
        ends = [RunStatus.COMPLETED, *[RunStatus.CANCELLED] * 3]
        assert await statuses(store, parent.names) == [RunStatus.RUNNING, RunStatus.READY, *ends]
        assert (await get(store, parent.names[3])).result == b'{"kind": "RunCancelled"}'
        assert [message.topic for message in await store.inbox(running.run_id)] == ["cancel"]
        assert await store.cancel_children("parent", "map#0", b"") == []
        assert len(await store.inbox(running.run_id)) == 1
        await store.tell((await sweep(store)).untold)
        for idx in (0, 1):
            assert await store.inbox("parent") == []
            if idx:
                await claim(store, parent.worker_id, parent.names[idx])
            child = await get(store, parent.names[idx])
            await release(store, parent.worker_id, child, Release(RunStatus.CANCELLED))
            await store.tell([child.run_id])
        assert [message.topic for message in await store.inbox("parent")] == ["join:map#0"]

    async def test_cancelling_one_join_leaves_the_children_of_another(self, store: RunStore) -> None:
        parent = await family(store, 1)
        await parent.create_children()
        await create(store, "other", parent_id="parent", parent_key="other#0")
        await create(store, "stranger", parent_id="somebody", parent_key="map#0")
        await store.cancel_children("parent", "map#0", b"")
        assert await statuses(store, [*parent.names, "other", "stranger"]) == [RunStatus.CANCELLED, RunStatus.READY, RunStatus.READY]
        await store.cancel_children("parent", None, b"")
        assert await statuses(store, ["other", "stranger"]) == [RunStatus.CANCELLED, RunStatus.READY]

    async def test_ended_children_not_yet_told_are_found_by_a_sweep_until_they_are(self, store: RunStore, second: RunStore) -> None:
        parent = await family(store, 2)
        await parent.create_children()
        await parent.park_parent()
        answers = await store.claim(parent.worker_id, parent.names, SERVES)
        await store.write(parent.worker_id, [write(each.run, release=completed()) for each in answers if not isinstance(each, str)])
        for client in (store, second):
            assert sorted((await sweep(client)).untold) == parent.names
        assert run_ids(await second.tell(parent.names)) == ["parent"]
        assert list((await sweep(store)).untold) == []

    async def test_a_window_drains_a_thousand_children_and_never_holds_more(self, store: RunStore) -> None:
        parent = await family(store, 1000, window=50)
        await parent.create_children()
        await parent.park_parent()
        ready, done, woken = list(range(50)), 0, list[str]()
        while ready:
            tickets = await parent.finish(*ready)
            done += len(ready)
            assert len(await parent.let_through()) == min(1000, done + 50)
            started = [parent.names.index(each.run_id) for each in tickets if each.run_id != "parent"]
            assert started == list(range(done, min(1000, done + 50)))
            ready, woken = started, woken + [each.run_id for each in tickets if each.run_id == "parent"]
        assert (done, woken) == (1000, ["parent"])

    async def test_a_join_of_ten_thousand_wakes_its_parent_once(self, store: RunStore) -> None:
        parent = await family(store, 10_000, window=10_000)
        await parent.create_children()
        await parent.park_parent()
        woken: list[str] = []
        for first in range(0, 10_000, 500):
            woken += run_ids(await parent.finish(*range(first, first + 500)))
        assert woken == ["parent"]
        assert ((await get(store, "parent")).wake, len(await store.inbox("parent"))) == (1, 1)

    async def test_the_children_of_a_join_are_read_in_pages_by_idx(self, store: RunStore, second: RunStore) -> None:
        parent = await family(store, 25)
        await parent.create_children()
        read: list[int] = []
        while page := await second.list(RunQuery(parent_id="parent", parent_key="map#0", after_idx=read[-1] if read else -1, limit=10)):
            assert len(page) <= 10
            read += [run.idx for run in page]
        assert read == list(range(25))
        only_failed = RunQuery(parent_id="parent", parent_key="map#0", status=frozenset({RunStatus.FAILED}))
        await parent.finish(7, status=RunStatus.FAILED)
        assert [run.idx for run in await store.list(only_failed)] == [7]

    async def test_a_child_whose_owner_died_goes_on_and_is_counted_once(self, store: RunStore) -> None:
        parent = await family(store, 1)
        await parent.create_children()
        await parent.park_parent()
        await crash(store, parent.names[0])
        assert run_ids(await parent.finish(0)) == ["parent"]

    async def test_a_parent_whose_owner_died_is_told_all_the_same(self, store: RunStore) -> None:
        parent = await family(store, 1)
        await parent.create_children()
        other = await register(store)
        child = await claim(store, other, parent.names[0])
        await reap(store, parent.worker_id)
        await release(store, other, child, Release(RunStatus.COMPLETED))
        assert await store.tell([child.run_id]) == []
        again = await claim(store, other, "parent")
        assert again.inbox_seq == 1
