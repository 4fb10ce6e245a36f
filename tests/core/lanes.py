"""A lane over a store in memory whose writes a test watches, holds back, refuses and cuts off."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from agentkit.durable.group_commit import Claim, Durability, Lane
from agentkit.errors import StoreUnavailable
from agentkit.inmemory.runs import InMemoryRuns
from agentkit.ports.records import Claimed, Entry, EntryKind, NewRun, RunWrite, Written
from agentkit.testing import FakeClock

ME = "worker-1"
LEASE_S = 10.0


class Watched(InMemoryRuns):
    """Notes every batch. `gate` holds writes back; `lose` cuts the connection before or after the next writes land; `refuse` raises."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.remote = False
        self.batches: list[list[RunWrite]] = []
        self.syncs: list[bool] = []
        self.gate: anyio.Event | None = None
        self.writing = anyio.Event()
        self.lose: list[str] = []
        self.refuse: Callable[[Sequence[RunWrite]], None] = lambda batch: None

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        self.batches.append(list(batch))
        self.syncs.append(sync)
        self.writing.set()
        if self.gate is not None:
            await self.gate.wait()
        fate = self.lose.pop(0) if self.lose else ""
        if fate == "before":
            raise StoreUnavailable("memory", "cut before it landed")
        self.refuse(batch)
        verdicts = await super().write(worker_id, batch, sync=sync)
        if fate == "after":
            raise StoreUnavailable("memory", "cut after it landed")
        return verdicts

    def rows(self, batch: int) -> dict[str, list[int]]:
        """What a batch held: the seqs of each run."""
        return {w.run_id: [e.seq for e in w.entries] for w in self.batches[batch]}


class Bench:
    """A running lane, and claims to write under."""

    def __init__(self, clock: FakeClock, *, remote: bool) -> None:
        self.clock = clock
        self.store = Watched(clock)
        self.store.remote = remote
        self.deaths = 0
        self.flushed: list[int] = []
        self.lane = Lane(
            self.store, ME, clock, lease_s=LEASE_S, on_dead=self._died, on_flush=lambda rows, _seconds: self.flushed.append(rows)
        )

    def _died(self) -> None:
        self.deaths += 1

    async def claim(self, run_id: str, durability: Durability = "durable") -> Claim:
        await self.store.create([NewRun(run_id=run_id, kind="a", version="1", input=b"null", held=True)])
        (claimed,) = await self.store.claim(ME, [run_id], {"a": frozenset({"1"})})
        assert isinstance(claimed, Claimed)
        return Claim(run_id, claimed.run.fence, durability=durability)

    def add(self, claim: Claim, *keys: str, kind: EntryKind = EntryKind.RESULT, body: bytes = b"1") -> int:
        return [self.lane.append(claim, kind, key, body) for key in keys][-1]

    async def journal(self, run_id: str) -> list[Entry]:
        return await self.store.load(run_id, after=-1)

    async def keys(self, run_id: str) -> list[str]:
        return [e.key for e in await self.journal(run_id)]

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """The lane's next batch is on its way and not answered inside the block: what is handed in there gathers for the one after."""
        self.store.gate = anyio.Event()
        self.store.writing = anyio.Event()
        probe = await self.claim("held-" + str(len(self.store.batches)))
        self.add(probe, "x")
        await self.store.writing.wait()
        try:
            yield
        finally:
            self.store.gate.set()
            self.store.gate = None


@asynccontextmanager
async def bench(*, remote: bool = False) -> AsyncGenerator[Bench]:
    """A lane that runs until the block ends."""
    made = Bench(FakeClock(), remote=remote)
    await made.store.register(ME, "a@1", "here")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.lane.run)
        yield made
        tasks.cancel_scope.cancel()
