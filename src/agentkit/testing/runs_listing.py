"""Laws of a run store: listing runs, and deleting those whose time is over."""

from __future__ import annotations

import pytest

from agentkit.ports.records import RunQuery, RunStatus
from agentkit.ports.runs import RunStore
from agentkit.testing.contract import Advance
from agentkit.testing.runs_base import (
    RunsBase,
    claim,
    completed,
    create,
    entries,
    family,
    get,
    new,
    park,
    register,
    release,
    start,
    sweep,
    write,
    write_one,
)

KEEP_S = 1.0


class ListingLaws(RunsBase):
    """Pages in order, each run once."""

    async def test_runs_are_listed_in_pages_in_the_order_of_their_ids(self, store: RunStore, second: RunStore) -> None:
        names = sorted([*(f"run-{number}" for number in range(23)), "Run-1", "run", "run-1 ", "rún", "ｒun"], key=str.encode)
        await store.create([new(name) for name in reversed(names)])
        read: list[str] = []
        while page := await second.list(RunQuery(after=read[-1] if read else "", limit=5)):
            assert len(page) <= 5
            read += [run.run_id for run in page]
        assert read == names

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (RunQuery(), ["a", "b", "c", "d"]),
            (RunQuery(kind="audit"), ["b"]),
            (RunQuery(version="4"), ["c"]),
            (RunQuery(tenant="acme"), ["a", "c"]),
            (RunQuery(status=frozenset({RunStatus.RUNNING})), ["a"]),
            (RunQuery(status=frozenset({RunStatus.RUNNING, RunStatus.READY}), tenant="acme"), ["a", "c"]),
            (RunQuery(parent_id="a"), ["d"]),
            (RunQuery(tenant="acme", after="a"), ["c"]),
            (RunQuery(tenant="ACME"), []),
            (RunQuery(status=frozenset()), []),
        ],
        ids=["all", "kind", "version", "tenant", "status", "status and tenant", "parent", "page", "another case", "no status"],
    )
    async def test_all_conditions_of_a_query_hold_together(self, store: RunStore, query: RunQuery, expected: list[str]) -> None:
        await start(store, "a", tenant="acme")
        await create(store, "b", kind="audit")
        await create(store, "c", version="4", tenant="acme")
        await create(store, "d", parent_id="a", parent_key="child#0")
        assert [run.run_id for run in await store.list(query)] == expected

    async def test_runs_that_nothing_happened_to_are_listed_as_idle(self, store: RunStore, advance: Advance) -> None:
        await create(store, "old")
        await create(store, "woken")
        await advance(1.5)
        await claim(store, await register(store), "woken")
        assert [run.run_id for run in await store.list(RunQuery(idle_s=1.0))] == ["old"]
        assert await store.list(RunQuery(idle_s=600.0)) == []


class PurgeLaws(RunsBase):
    """Only what ended long enough ago is deleted, with all that hangs on it."""

    async def test_an_ended_run_is_deleted_with_its_journal_and_inbox_when_its_time_is_over(
        self, store: RunStore, second: RunStore, advance: Advance
    ) -> None:
        worker_id, run = await start(store, "run-1", keep_s=KEEP_S)
        await store.signal("run-1", "m", "topic", b"")
        assert (await write_one(store, worker_id, write(run, entries([1, 2]), release=completed()))).verdict == "ok"
        assert await store.purge(100) == 0
        assert (await get(store, "run-1")).expires_at is not None
        await advance(KEEP_S + 0.1)
        assert await second.purge(100) == 1
        assert await store.get(["run-1"]) == [None]
        assert (await store.load("run-1"), await store.inbox("run-1")) == ([], [])
        assert (await store.signal("run-1", "m", "topic", b"")).answer == "unknown"
        assert await store.purge(100) == 0

    async def test_a_deleted_id_may_be_used_anew_from_nothing(self, store: RunStore, advance: Advance) -> None:
        worker_id, run = await start(store, "run-1", keep_s=KEEP_S)
        await store.signal("run-1", "m", "topic", b"")
        assert (await write_one(store, worker_id, write(run, entries([1]), release=completed()))).verdict == "ok"
        await advance(KEEP_S + 0.1)
        await store.purge(100)
        anew = await create(store, "run-1", input=b"other")
        assert (anew.fence, anew.inbox_seq, await store.load("run-1"), await store.inbox("run-1")) == (0, 0, [], [])

    async def test_no_time_deletes_a_run_that_has_not_ended(self, store: RunStore, advance: Advance) -> None:
        await create(store, "ready", keep_s=0.0)
        await park(store, "parked")
        await start(store, "running", keep_s=0.0)
        await create(store, "delayed", keep_s=0.0, delay_s=0.1)
        await advance(1.0)
        assert await store.purge(100) == 0
        assert None not in await store.get(["ready", "parked", "running", "delayed"])

    async def test_an_ended_child_is_kept_as_long_as_its_parent_lives(self, store: RunStore, advance: Advance) -> None:
        parent = await family(store, 2)
        await store.create([new(name, **_place(idx), keep_s=KEEP_S) for idx, name in enumerate(parent.names)], parent=parent.claim)
        await parent.finish(0, 1)
        await advance(KEEP_S + 0.1)
        assert await store.purge(100) == 0
        assert [run and run.result for run in await store.get(parent.names)] == [b"1", b"1"]

    async def test_a_root_is_deleted_with_all_its_descendants(self, store: RunStore, advance: Advance) -> None:
        worker_id = await register(store)
        await create(store, "stranger")
        lineage = ["root", "child", "grandchild"]
        for parent_id, name in zip([None, *lineage], lineage, strict=False):
            _, run = await start(store, name, worker_id, keep_s=KEEP_S, parent_id=parent_id, parent_key="child#0" if parent_id else "")
            assert (await write_one(store, worker_id, write(run, entries([1]), release=completed()))).verdict == "ok"
            await store.signal(name, "m", "topic", b"")
        await advance(KEEP_S + 0.1)
        assert await store.purge(100) > 0
        assert await store.get(lineage) == [None] * 3
        assert [await store.load(name) for name in lineage] == [[], [], []]
        assert [run.run_id for run in await store.list(RunQuery())] == ["stranger"]
        assert list((await sweep(store)).untold) == []

    async def test_a_purge_is_bounded(self, store: RunStore, advance: Advance) -> None:
        worker_id = await register(store)
        for number in range(7):
            _, run = await start(store, f"run-{number}", worker_id, keep_s=KEEP_S)
            await release(store, worker_id, run, completed())
        await advance(KEEP_S + 0.1)
        assert [await store.purge(3) for _ in range(4)] == [3, 3, 1, 0]

    async def test_the_ids_of_messages_are_remembered_as_long_as_the_run(self, store: RunStore, advance: Advance) -> None:
        await create(store, "run-1", keep_s=0.0)
        await store.signal("run-1", "m", "topic", b"")
        await advance(1.0)
        await store.purge(100)
        assert (await store.signal("run-1", "m", "topic", b"")).answer == "duplicate"

    async def test_a_run_that_was_revived_is_not_deleted(self, store: RunStore, advance: Advance) -> None:
        await create(store, "run-1", keep_s=KEEP_S)
        assert await store.bury("run-1", b"{}")
        assert await store.revive("run-1")
        await advance(KEEP_S + 0.1)
        assert await store.purge(100) == 0
        assert (await get(store, "run-1")).status is RunStatus.READY


def _place(idx: int) -> dict[str, object]:
    return {"parent_id": "parent", "parent_key": "map#0", "idx": idx, "depth": 1}
