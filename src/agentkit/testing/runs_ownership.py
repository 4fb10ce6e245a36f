"""Laws of a run store: who owns a run, and who lives."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agentkit.errors import StoreError, WorkerFenced
from agentkit.ports.records import Claimed, EntryKind, Release, RunStatus
from agentkit.ports.runs import RunStore
from agentkit.testing.clock import FakeClock
from agentkit.testing.contract import Advance, race
from agentkit.testing.runs_base import (
    KIND,
    SERVES,
    VERSION,
    RunsBase,
    claim,
    completed,
    crash,
    create,
    entry,
    get,
    park,
    reap,
    register,
    release,
    start,
    statuses,
    sweep,
    try_claim,
    write,
    write_one,
)


class OwnershipLaws(RunsBase):
    """Claims, beats and death."""

    async def test_a_claim_takes_a_ready_run_under_the_next_fence(self, store: RunStore, second: RunStore) -> None:
        created = await create(store, "run-1")
        worker_id = await register(store)
        answer = await try_claim(store, worker_id, "run-1")
        assert isinstance(answer, Claimed)
        assert (answer.run.status, answer.run.owner, answer.run.fence) == (RunStatus.RUNNING, worker_id, 1)
        assert answer.run == await get(second, "run-1")
        assert answer.store_now >= created.created_at

    async def test_every_claim_of_a_run_has_a_higher_fence(self, store: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        for fence in (1, 2, 3):
            assert run.fence == fence
            await release(store, worker_id, run, Release(RunStatus.READY))
            run = await claim(store, worker_id, "run-1")

    async def test_of_many_racing_claimers_one_gets_the_run(self, store: RunStore, second: RunStore) -> None:
        names = [f"run-{number}" for number in range(5)]
        for name in names:
            await create(store, name)
        clients = [store, second] * 5
        workers = [await register(client) for client in clients]
        outcomes = await race(*(partial(client.claim, worker, names, SERVES) for client, worker in zip(clients, workers, strict=True)))
        for name, answers in zip(names, zip(*(outcome for outcome in outcomes if isinstance(outcome, list)), strict=True), strict=True):
            owners = [answer.run.owner for answer in answers if isinstance(answer, Claimed)]
            assert owners == [(await get(store, name)).owner]
            assert sorted(answer for answer in answers if isinstance(answer, str)) == ["taken"] * 9

    async def test_of_two_tickets_of_a_run_in_one_claim_one_gets_it(self, store: RunStore) -> None:
        """A queue may hand out a copy that was delivered again together with one that recovery put."""
        worker_id = await register(store)
        await create(store, "run-1")
        first, other, second = await store.claim(worker_id, ["run-1", "run-2", "run-1"], SERVES)
        assert isinstance(first, Claimed)
        assert (other, second) == ("gone", "taken")

    async def test_each_run_of_a_claim_is_answered_by_itself(self, store: RunStore) -> None:
        worker_id, ended = await start(store, "ended")
        await release(store, worker_id, ended, completed())
        await start(store, "running", worker_id)
        await park(store, "parked")
        await create(store, "other", kind="audit")
        await create(store, "ready")
        names = ["gone", "ended", "running", "parked", "other", "ready"]
        answers = await store.claim(worker_id, names, SERVES)
        assert answers[:5] == ["gone", "ended", "taken", "taken", "unknown"]
        assert isinstance(answers[5], Claimed)
        assert answers[5].run.run_id == "ready"

    async def test_a_redelivered_ticket_never_takes_a_running_run(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        assert await try_claim(store, worker_id, "run-1") == "taken"
        assert await try_claim(second, await register(second), "run-1") == "taken"
        assert await get(store, "run-1") == run

    @pytest.mark.parametrize("version", ["4", "30", "", "3 "])
    async def test_a_run_of_a_version_that_is_not_served_is_refused(self, store: RunStore, version: str) -> None:
        worker_id = await register(store)
        await create(store, "run-1", version=version)
        assert await try_claim(store, worker_id, "run-1") == "unknown"
        [granted] = await store.claim(worker_id, ["run-1"], {KIND: frozenset({"3", version})})
        assert isinstance(granted, Claimed)

    async def test_a_dead_worker_claims_nothing(self, store: RunStore, second: RunStore) -> None:
        await create(store, "run-1")
        worker_id = await register(store)
        await reap(second, worker_id)
        assert await try_claim(store, worker_id, "run-1") == "fenced"
        assert await statuses(store, ["run-1"]) == [RunStatus.READY]

    async def test_who_never_registered_claims_nothing(self, store: RunStore) -> None:
        await create(store, "run-1")
        assert await try_claim(store, "nobody", "run-1") == "fenced"
        assert await statuses(store, ["run-1"]) == [RunStatus.READY]

    async def test_a_worker_claims_nothing_while_it_is_declared_dead(self, store: RunStore, second: RunStore) -> None:
        worker_id, _ = await start(store, "run-1")
        seen = (await sweep(second)).beats
        answers: list[object] = []

        async def keep_claiming() -> None:
            for _ in range(20):
                answers.append(await try_claim(store, worker_id, "run-1"))
                await checkpoint()

        await race(keep_claiming, partial(sweep, second, {worker_id: seen[worker_id]}))
        assert set(answers) <= {"taken", "fenced"}
        run = await get(store, "run-1")
        assert (run.status, run.crashes) == (RunStatus.READY, 1)

    async def test_a_run_that_crashed_twice_is_claimed_only_alone(self, store: RunStore) -> None:
        await create(store, "run-1")
        for crashes in (1, 2):
            assert isinstance(await try_claim(store, await register(store), "run-1", alone=False), Claimed)
            owner = (await get(store, "run-1")).owner
            assert owner is not None
            await reap(store, owner)
            assert (await get(store, "run-1")).crashes == crashes
        worker_id = await register(store)
        assert await try_claim(store, worker_id, "run-1", alone=False) == "suspect"
        assert isinstance(await try_claim(store, worker_id, "run-1", alone=True), Claimed)

    async def test_dead_is_final(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await reap(second, worker_id)
        try:
            await store.register(worker_id, "", "")
        except StoreError:
            pass  # to say so is as good as to ignore it
        assert await store.beat(worker_id) is None
        assert await try_claim(store, worker_id, "run-1") == "fenced"
        with pytest.raises(WorkerFenced):
            await store.write(worker_id, [write(run, [entry(1)])])
        assert worker_id not in (await sweep(store)).beats

    async def test_who_retires_is_dead(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await store.retire(worker_id)
        await store.retire(worker_id)
        assert await store.beat(worker_id) is None
        assert await try_claim(second, worker_id, "run-1") == "fenced"
        with pytest.raises(WorkerFenced):
            await store.write(worker_id, [write(run, [entry(1)])])
        assert worker_id not in (await sweep(second)).beats

    async def test_the_living_workers_are_listed_with_what_they_serve(self, store: RunStore, second: RunStore) -> None:
        names = [await register(store), await register(second)]
        for row in await second.workers():
            assert (row.worker_id in names, row.kinds, row.host) == (True, f"{KIND}@{VERSION}", "host-1")
        assert sorted(row.worker_id for row in await store.workers()) == sorted(names)
        await store.retire(names[0])
        assert [row.worker_id for row in await second.workers()] == names[1:]

    async def test_who_never_registered_cannot_beat(self, store: RunStore) -> None:
        assert await store.beat("nobody") is None
        assert (await sweep(store)).beats == {}

    async def test_each_beat_is_seen_by_every_process(self, store: RunStore, second: RunStore) -> None:
        worker_id = await register(store)
        seen: list[int] = []
        for _ in range(4):
            seen.append((await sweep(second)).beats[worker_id])
            assert await store.beat(worker_id) is not None
        assert len(set(seen)) == 4

    async def test_a_worker_that_beat_since_it_was_seen_is_not_reaped(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        seen = (await sweep(second)).beats[worker_id]
        await store.beat(worker_id)
        swept = await sweep(second, {worker_id: seen})
        assert (swept.taken_over, worker_id in swept.beats) == ([], True)
        assert await store.beat(worker_id) is not None
        assert (await write_one(store, worker_id, write(run, [entry(1)]))).verdict == "ok"

    async def test_of_a_beat_and_a_reaper_that_race_one_wins(self, store: RunStore, second: RunStore) -> None:
        for number in range(10):
            worker_id, run = await start(store, f"run-{number}")
            seen = (await sweep(second)).beats[worker_id]
            beat, swept = await race(partial(store.beat, worker_id), partial(sweep, second, {worker_id: seen}))
            assert not isinstance(swept, Exception)
            alive = await store.beat(worker_id) is not None
            assert (await get(store, run.run_id)).status is (RunStatus.RUNNING if alive else RunStatus.READY)
            assert not alive or beat is not None

    async def test_no_time_that_passes_and_no_clock_that_jumps_frees_a_run(
        self, store: RunStore, second: RunStore, clock: FakeClock, advance: Advance
    ) -> None:
        worker_id, run = await start(store, "run-1")
        for move in (partial(clock.jump, 86_400.0), partial(clock.jump, -86_400.0, wall_only=True)):
            move()
            await advance(0.5)
            assert (await sweep(second)).taken_over == []
        assert await get(store, "run-1") == run
        assert (await write_one(store, worker_id, write(run, [entry(1)]))).verdict == "ok"

    async def test_a_process_that_comes_new_to_the_storage_frees_nothing(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        newcomer = await register(second)
        swept = await sweep(second, {newcomer: -1, "nobody": 0})
        assert (swept.taken_over, swept.tickets) == ([], [])
        assert {worker_id, newcomer} <= set(swept.beats)
        assert await get(store, "run-1") == run

    async def test_a_beat_names_the_runs_with_messages_not_yet_taken(self, store: RunStore, second: RunStore) -> None:
        worker_id, run = await start(store, "run-1")
        await start(store, "quiet", worker_id)
        await start(store, "of another")
        for run_id in ("run-1", "of another"):
            await second.signal(run_id, "m", "topic", b"")
        assert await store.beat(worker_id) == (["run-1"],)
        taken = write(run, [entry(1, kind=EntryKind.SIGNAL)], takes=[("m", 1)])
        assert (await write_one(store, worker_id, taken)).verdict == "ok"
        assert await store.beat(worker_id) == ([],)

    async def test_beats_come_from_a_thread_and_a_loop_of_their_own(self, store: RunStore) -> None:
        worker_id = await register(store)
        before = (await sweep(store)).beats[worker_id]
        backend = "trio" if "Trio" in type(anyio.lowlevel.current_token().native_token).__name__ else "asyncio"

        def beat_elsewhere() -> None:
            anyio.run(store.beat, worker_id, backend=backend)

        await anyio.to_thread.run_sync(beat_elsewhere)
        assert (await sweep(store)).beats[worker_id] != before

    async def test_a_crashed_run_goes_on_elsewhere(self, store: RunStore, second: RunStore) -> None:
        await create(store, "run-1")
        await crash(store, "run-1")
        worker_id = await register(second)
        run = await claim(second, worker_id, "run-1")
        await release(second, worker_id, run, completed())
        assert await statuses(store, ["run-1"]) == [RunStatus.COMPLETED]
