"""What is handed in while a batch is on its way is no part of it."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from agentkit.clock import SYSTEM
from agentkit.durable.group_commit import Claim, Lane
from agentkit.inmemory.runs import InMemoryRuns
from agentkit.ports.records import EntryKind, Join, RunWrite, Written


class Held(InMemoryRuns):
    """Looks at a batch only when it is let go, as a thread does that gets to it later."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.let_go = anyio.Event(), anyio.Event()
        self.seen: list[tuple[list[int], list[int], int]] = []

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        self.arrived.set()
        await self.let_go.wait()
        [write] = batch
        self.seen.append(([e.seq for e in write.entries], [seq for _, seq in write.takes], len(write.joins)))
        return [Written("ok", 0)]


async def test_a_take_and_a_join_added_while_a_batch_is_on_its_way_go_with_their_own_entry() -> None:
    store = Held()
    lane = Lane(store, "w", SYSTEM, lease_s=10.0, on_dead=lambda: None, on_flush=lambda rows, seconds: None)
    claim = Claim("run", 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lane.run)
        lane.append(claim, EntryKind.STATUS, "")
        await store.arrived.wait()
        lane.take(claim, "message", lane.append(claim, EntryKind.SIGNAL, "wait#1"))
        lane.append(claim, EntryKind.CHILD, "map#1")
        lane.join(claim, Join("map#1", 1, 1, 0, 1))
        store.let_go.set()
        await lane.settled(claim)
        lane.close()
    assert store.seen == [([1], [], 0), ([2, 3], [2], 1)]
