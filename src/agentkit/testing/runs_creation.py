"""Laws of a run store: creating runs."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from agentkit.errors import StoreRefused
from agentkit.ports.records import Claimed, EntryKind, ParentClaim, RunStatus, Signalled
from agentkit.ports.runs import RunStore
from agentkit.testing.contract import Advance, race
from agentkit.testing.runs_base import (
    AWKWARD_BYTES,
    KIND,
    RunsBase,
    claim,
    completed,
    create,
    entries,
    entry,
    family,
    get,
    new,
    reap,
    register,
    release,
    run_ids,
    start,
    sweep,
    try_claim,
    write,
    write_one,
)

ALIKE = (
    "run",
    "Run",
    "RUN",
    "run ",
    " run",
    "rún",
    "ru\u0301n",
    "run\u00a0",
    "rün",
    "rüñ",
    "ｒｕｎ",
    "run\u200b",
    "rıun",
    "ri",
    "rı",
    "ss",
    "ß",
)


class CreationLaws(RunsBase):
    """One id, one run."""

    async def test_creating_a_run_twice_returns_the_first_and_writes_nothing(self, store: RunStore, second: RunStore) -> None:
        first = await create(store, "run-1", tenant="acme")
        [again] = await second.create([new("run-1", tenant="other", priority=2, delay_s=5.0)])
        assert again == ("exists", first)
        assert await get(store, "run-1") == first

    @pytest.mark.parametrize("other", [{"kind": "audit"}, {"input": b'{"n": 2}'}])
    async def test_one_id_with_another_kind_or_input_is_a_conflict(self, store: RunStore, other: dict[str, Any]) -> None:
        first = await create(store, "run-1")
        [again] = await store.create([new("run-1", **other)])
        assert again == ("conflict", first)
        assert await get(store, "run-1") == first

    async def test_of_many_racing_creators_one_creates_and_the_others_find_it(self, store: RunStore, second: RunStore) -> None:
        clients = [store, second] * 5
        outcomes = await race(*(partial(client.create, [new("run-1"), new("run-2")]) for client in clients))
        for index in (0, 1):
            answers = [created[index].answer for created in outcomes if not isinstance(created, Exception)]
            assert sorted(answers) == ["created"] + ["exists"] * 9

    async def test_a_submit_repeated_after_a_crash_finds_the_run_without_a_ticket(self, store: RunStore, second: RunStore) -> None:
        await create(store, "run-1")
        [again] = await second.create([new("run-1")])
        assert again.run is not None
        assert (again.run.status, again.run.ticketed) == (RunStatus.READY, False)

    async def test_a_run_is_stored_as_it_was_given(self, store: RunStore, second: RunStore) -> None:
        given = {
            "tenant": "äcme", "priority": 2, "key": "customer 7", "idx": 3, "depth": 2, "seed": 2**62 + 1, "deadline": 4_102_444_800.25,
            "keep_s": 12.5, "trace": "00-4bf92f35-01", "meta": '{"by": "ann"}', "parent_id": "somebody", "parent_key": "child=1",
        }  # fmt: skip
        await create(store, "run-1", **given)
        run = await get(second, "run-1")
        assert {name: getattr(run, name) for name in given} == given
        assert (run.kind, run.status, run.owner, run.fence, run.crashes, run.inbox_seq) == (KIND, RunStatus.READY, None, 0, 0, 0)

    @pytest.mark.parametrize("body", AWKWARD_BYTES, ids=lambda body: f"{len(body)} bytes")
    async def test_an_input_and_a_result_come_back_byte_identical(self, store: RunStore, second: RunStore, body: bytes) -> None:
        worker_id, run = await start(store, "run-1", input=body)
        await release(store, worker_id, run, completed(body))
        ended = await get(second, "run-1")
        assert (ended.input, ended.result) == (body, body)

    async def test_ids_that_differ_in_case_accents_or_spaces_are_different_runs(self, store: RunStore) -> None:
        created = await store.create([new(run_id, input=run_id.encode()) for run_id in ALIKE])
        assert [each.answer for each in created] == ["created"] * len(ALIKE)
        assert [run.input for run in await store.get(ALIKE) if run] == [run_id.encode() for run_id in ALIKE]
        worker_id = await register(store)
        run = await claim(store, worker_id, "run")
        await write_one(store, worker_id, write(run, entries([1])))
        await store.signal("run", "m", "topic", b"")
        for run_id in set(ALIKE) - {"run"}:
            assert (await get(store, run_id)).fence == 0
            assert (await store.load(run_id), await store.inbox(run_id)) == ([], [])

    async def test_get_answers_in_the_order_asked_and_none_for_the_unknown(self, store: RunStore) -> None:
        await store.create([new("b"), new("a")])
        assert [run and run.run_id for run in await store.get(["a", "x", "b", "a"])] == ["a", None, "b", "a"]
        assert await store.get([]) == []

    async def test_a_run_that_its_creator_starts_itself_needs_no_ticket(self, store: RunStore) -> None:
        await create(store, "held", held=True)
        await create(store, "free")
        assert run_ids((await sweep(store)).tickets) == ["free"]

    async def test_a_fork_starts_with_the_copied_entries_and_its_first_claim_has_fence_2(self, store: RunStore, second: RunStore) -> None:
        copied = [entry(1), entry(2, b'"b"', kind=EntryKind.INTENT), entry(3, b'"c"')]
        fork = await create(store, "fork", entries=copied, seed=7)
        assert (fork.fence, fork.seed) == (1, 7)
        assert await second.load("fork") == [each._replace(fence=1) for each in copied]
        worker_id = await register(store)
        run = await claim(store, worker_id, "fork")
        assert run.fence == 2
        assert (await write_one(store, worker_id, write(run, entries([4])))).verdict == "ok"
        assert [each.seq for each in await store.load("fork")] == [1, 2, 3, 4]

    async def test_a_delayed_run_waits_for_its_time(self, store: RunStore, advance: Advance) -> None:
        run = await create(store, "later", delay_s=1.0)
        assert run.status is RunStatus.PARKED
        assert await try_claim(store, await register(store), "later") == "taken"
        assert (await sweep(store)).tickets == []
        await advance(1.1)
        assert run_ids((await sweep(store)).tickets) == ["later"]

    async def test_a_signal_to_a_delayed_run_waits_for_its_time_too(self, store: RunStore, second: RunStore, advance: Advance) -> None:
        await create(store, "run-1", delay_s=1.0)
        assert await second.signal("run-1", "m", "topic", b"") == Signalled("accepted")
        assert (await get(store, "run-1")).status is RunStatus.PARKED
        await advance(1.1)
        assert run_ids((await sweep(store)).tickets) == ["run-1"]

    async def test_children_of_a_parent_claimed_by_somebody_else_are_refused(self, store: RunStore) -> None:
        parent = await family(store, 2)
        other = await register(store)
        claims = [parent.claim._replace(owner=other), parent.claim._replace(fence=7), ParentClaim("nobody", parent.worker_id, 1)]
        for stale in claims:
            assert await store.create(parent.new_children(), parent=stale) == [("refused", None)] * 2
        assert await store.get(parent.names) == [None, None]

    async def test_children_of_a_parent_that_was_handed_over_are_refused(self, store: RunStore) -> None:
        parent = await family(store, 1)
        await parent.park_parent()
        assert await store.create(parent.new_children(), parent=parent.claim) == [("refused", None)]
        await store.signal("parent", "m", "topic", b"")
        await claim(store, parent.worker_id, "parent")
        assert await store.create(parent.new_children(), parent=parent.claim) == [("refused", None)]

    async def test_children_of_a_parent_whose_worker_is_dead_are_refused(self, store: RunStore) -> None:
        parent = await family(store, 1)
        await start(store, "neighbour", parent.worker_id)
        # Only one of the two runs is freed here: the other still shows its dead owner.
        await reap(store, parent.worker_id, limit=1)
        for run_id in ("parent", "neighbour"):
            assert await store.create([new("child", parent_id=run_id)], parent=parent.claim._replace(run_id=run_id)) == [("refused", None)]

    async def test_no_child_is_created_while_a_cancel_of_its_parent_waits(self, store: RunStore, second: RunStore) -> None:
        parent = await family(store, 2)
        assert [created.answer for created in await store.create(parent.new_children(0, 1), parent=parent.claim)] == ["created"]
        await second.signal("parent", "c", "cancel", b"")
        assert await store.create(parent.new_children(), parent=parent.claim) == [("refused", None)] * 2
        taken = write(parent.parent, [entry(2, kind=EntryKind.CANCEL)], takes=[("c", 2)])
        assert (await write_one(store, parent.worker_id, taken)).verdict == "ok"
        assert [created.answer for created in await store.create(parent.new_children(), parent=parent.claim)] == ["exists", "created"]

    async def test_runs_that_the_store_refuses_are_refused_whole(self, store: RunStore) -> None:
        with pytest.raises(StoreRefused):
            await store.create([new("good"), new("bad", key=self.unstorable_key)])
        assert await store.get(["good"]) == [None]
        await create(store, "good")

    async def test_of_runs_created_in_one_call_each_is_answered_by_itself(self, store: RunStore, second: RunStore) -> None:
        names = [f"run-{number}" for number in range(20)]
        await create(second, names[3])
        await create(second, names[8], input=b'"other"')
        answers = [(created.answer, created.run and created.run.run_id) for created in await store.create([new(name) for name in names])]
        told = {3: "exists", 8: "conflict"}
        assert answers == [(told.get(i, "created"), name) for i, name in enumerate(names)]

    async def test_many_runs_are_created_in_one_call(self, store: RunStore) -> None:
        names = [f"run-{number:04}" for number in range(1500)]
        assert {created.answer for created in await store.create([new(name) for name in names])} == {"created"}
        worker_id = await register(store)
        answers = await store.claim(worker_id, names, {KIND: frozenset({"3"})})
        assert all(isinstance(answer, Claimed) for answer in answers)
