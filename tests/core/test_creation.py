"""Creates of concurrent callers share round trips, and each caller gets its own answer."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from agentkit import StoreRefused, StoreUnavailable
from agentkit.inmemory.runs import InMemoryRuns
from agentkit.ports.records import Created, NewRun, ParentClaim
from agentkit.runtime.creation import Creation


class Slow(InMemoryRuns):
    """Takes some turns of the event loop, refuses what is called so, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.down = False

    async def create(self, runs: Sequence[NewRun], *, parent: ParentClaim | None = None) -> list[Created]:
        self.calls.append(len(runs))
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        if self.down:
            raise StoreUnavailable("test", "down")
        if any(run.run_id.startswith("refused") for run in runs):
            raise StoreRefused("no such ids")
        return await super().create(runs, parent=parent)


def new(run_id: str) -> NewRun:
    return NewRun(run_id=run_id, kind="k", version="1", input=b"{}")


async def test_callers_that_come_together_share_round_trips_and_get_their_own_answers() -> None:
    store = Slow()
    creation = Creation(store)
    answers: dict[str, Created] = {}

    async def one(run_id: str, turns: int) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        [answers[run_id]] = await creation.create([new(run_id)])

    async with anyio.create_task_group() as tasks:
        for i in range(200):
            tasks.start_soon(one, f"run-{i}", i % 17)
    assert {run_id: created.run and created.run.run_id for run_id, created in answers.items()} == {
        f"run-{i}": f"run-{i}" for i in range(200)
    }
    assert len(store.calls) < 40


async def test_what_the_store_refuses_fails_its_own_caller_alone() -> None:
    creation = Creation(Slow())
    outcomes: dict[str, str] = {}

    async def one(run_id: str) -> None:
        try:
            [created] = await creation.create([new(run_id)])
            outcomes[run_id] = created.answer
        except StoreRefused:
            outcomes[run_id] = "refused"

    async with anyio.create_task_group() as tasks:
        for run_id in ("a", "b", "refused-1", "c", "refused-2", "d"):
            tasks.start_soon(one, run_id)
    assert outcomes == {"a": "created", "b": "created", "c": "created", "d": "created", "refused-1": "refused", "refused-2": "refused"}


async def test_a_store_that_is_down_is_told_to_every_caller_and_the_next_one_tries_again() -> None:
    store = Slow()
    creation = Creation(store)
    store.down = True
    told = 0

    async def one(run_id: str) -> None:
        nonlocal told
        with pytest.raises(StoreUnavailable):
            await creation.create([new(run_id)])
        told += 1

    async with anyio.create_task_group() as tasks:
        for i in range(5):
            tasks.start_soon(one, str(i))
    assert told == 5
    store.down = False
    [created] = await creation.create([new("later")])
    assert created.answer == "created"


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_caller_stops_nobody_else(turns: int) -> None:
    creation = Creation(Slow())
    answered: list[str] = []

    async def one(run_id: str) -> None:
        await creation.create([new(run_id)])
        answered.append(run_id)

    async def cancelled(run_id: str) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as inner:
                inner.start_soon(creation.create, [new(run_id)])
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, "first")
        for i in range(3):
            tasks.start_soon(cancelled, f"gone-{i}")
        tasks.start_soon(one, "last")
    assert sorted(answered) == ["first", "last"]
