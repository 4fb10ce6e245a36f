"""What the tests of a run store share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import pytest

from agentkit.ports.queue import Ticket
from agentkit.ports.records import (
    Claimed,
    ClaimRefusal,
    Created,
    Entry,
    EntryKind,
    Join,
    NewRun,
    ParentClaim,
    Release,
    Run,
    RunStatus,
    RunWrite,
    Swept,
    Written,
)
from agentkit.ports.runs import RunStore
from agentkit.testing.contract import Contract, needs

KIND, VERSION = "review", "3"
SERVES = {KIND: frozenset({VERSION})}
LONG_S = 3600.0
AWKWARD_BYTES = (b"", b"\x00", bytes(range(256)), b"\xff\xfe\x00", "ü€😀".encode(), b"'; drop table runs; --", b"\r\n\x1a", b"x" * 300_000)

Reopen = Callable[[], Awaitable[RunStore]]


def new(run_id: str, **changes: Any) -> NewRun:
    fields: dict[str, Any] = {"kind": KIND, "version": VERSION, "input": b'{"n": 1}', **changes}
    return NewRun(run_id=run_id, **fields)


def entry(seq: int, body: bytes = b'"done"', **changes: Any) -> Entry:
    fields: dict[str, Any] = {"kind": EntryKind.RESULT, "key": f"step#{seq}", "attempt": 1, "fp": "f00d", "codec": 0, **changes}
    return Entry(seq=seq, body=body, at_ms=1_700_000_000_000 + seq, took_us=17, **fields)


def entries(seqs: Iterable[int]) -> list[Entry]:
    return [entry(seq) for seq in seqs]


def write(run: Run, written: Sequence[Entry] = (), **rest: Any) -> RunWrite:
    """A write under the claim of which `run` is the row."""
    return RunWrite(run.run_id, run.fence, written, **rest)


def parked(run: Run, **changes: Any) -> Release:
    """A park by somebody who has read the inbox as it stood at the claim."""
    fields: dict[str, Any] = {"seen": run.inbox_seq, **changes}
    return Release(RunStatus.PARKED, **fields)


def completed(result: bytes = b'"ok"') -> Release:
    return Release(RunStatus.COMPLETED, result=result)


async def register(store: RunStore) -> str:
    worker_id = f"worker-{uuid4().hex}"
    await store.register(worker_id, f"{KIND}@{VERSION}", "host-1")
    return worker_id


async def create(store: RunStore, run_id: str, **changes: Any) -> Run:
    [created] = await store.create([new(run_id, **changes)])
    assert created.answer == "created"
    assert created.run is not None
    return created.run


async def try_claim(store: RunStore, worker_id: str, run_id: str, *, alone: bool = True) -> Claimed | ClaimRefusal:
    [answer] = await store.claim(worker_id, [run_id], SERVES, alone=alone)
    return answer


async def claim(store: RunStore, worker_id: str, run_id: str) -> Run:
    answer = await try_claim(store, worker_id, run_id)
    assert isinstance(answer, Claimed), answer
    return answer.run


async def start(store: RunStore, run_id: str, worker_id: str | None = None, **changes: Any) -> tuple[str, Run]:
    """A new run, claimed; by a worker of its own if none is given."""
    worker_id = worker_id or await register(store)
    await create(store, run_id, **changes)
    return worker_id, await claim(store, worker_id, run_id)


async def write_one(store: RunStore, worker_id: str, one: RunWrite) -> Written:
    [written] = await store.write(worker_id, [one])
    return written


async def release(store: RunStore, worker_id: str, run: Run, how: Release) -> None:
    assert (await write_one(store, worker_id, write(run, release=how))).verdict == "ok"


async def park(store: RunStore, run_id: str, **changes: Any) -> Run:
    """A new run that was started once and then parked."""
    worker_id, run = await start(store, run_id)
    await release(store, worker_id, run, parked(run, **changes))
    return await get(store, run_id)


async def get(store: RunStore, run_id: str) -> Run:
    [run] = await store.get([run_id])
    assert run is not None, f"no run {run_id!r}"
    return run


async def statuses(store: RunStore, run_ids: Sequence[str]) -> list[RunStatus]:
    return [run.status for run in await store.get(run_ids) if run is not None]


async def bodies(store: RunStore, run_id: str) -> list[bytes]:
    return [each.body for each in await store.load(run_id)]


async def sweep(
    store: RunStore, reap: Mapping[str, int] | None = None, *, max_crashes: int = 5, lost_after_s: float = LONG_S, limit: int = 1000
) -> Swept:
    return await store.sweep(reap or {}, max_crashes=max_crashes, lost_after_s=lost_after_s, limit=limit)


async def reap(store: RunStore, *worker_ids: str, **options: Any) -> Swept:
    """The sweep of somebody who saw these workers' beats stand still for a lease."""
    seen = (await sweep(store)).beats
    return await sweep(store, {worker_id: seen[worker_id] for worker_id in worker_ids}, **options)


async def crash(store: RunStore, run_id: str, **options: Any) -> Swept:
    """A process takes the run, all alone, and dies of it."""
    worker_id = await register(store)
    await claim(store, worker_id, run_id)
    return await reap(store, worker_id, **options)


async def the_ticket(store: RunStore, run_id: str) -> Ticket:
    """The one ticket that a sweep finds now, of this run."""
    tickets = (await sweep(store)).tickets
    assert run_ids(tickets) == [run_id]
    return tickets[0]


def run_ids(tickets: Iterable[Ticket]) -> list[str]:
    return [ticket.run_id for ticket in tickets]


class Family:
    """A parent that is running and has a join, and its children."""

    def __init__(self, store: RunStore, worker_id: str, parent: Run, join: Join) -> None:
        self.store, self.worker_id, self.parent, self.join = store, worker_id, parent, join
        self.names = [f"{parent.run_id}/{join.key}/{idx}" for idx in range(join.total)]

    @property
    def claim(self) -> ParentClaim:
        return ParentClaim(self.parent.run_id, self.worker_id, self.parent.fence)

    def new_children(self, start: int = 0, stop: int | None = None) -> list[NewRun]:
        place = {"parent_id": self.parent.run_id, "parent_key": self.join.key, "depth": 1}
        return [new(name, idx=idx, **place) for idx, name in enumerate(self.names)][start:stop]

    async def create_children(self) -> list[Created]:
        created: list[Created] = []
        for first in range(0, self.join.total, 500):
            created += await self.store.create(self.new_children(first, first + 500), parent=self.claim)
        return created

    async def park_parent(self) -> None:
        await release(self.store, self.worker_id, self.parent, parked(self.parent, waiting_for="children"))

    async def finish(self, *idxs: int, status: RunStatus = RunStatus.COMPLETED) -> list[Ticket]:
        """Run these READY children to their end and tell their parent."""
        names = [self.names[idx] for idx in idxs]
        claims = await self.store.claim(self.worker_id, names, SERVES)
        ends = [write(answer.run, release=Release(status, result=b"1")) for answer in claims if isinstance(answer, Claimed)]
        assert len(ends) == len(names), claims
        assert {written.verdict for written in await self.store.write(self.worker_id, ends)} == {"ok"}
        return await self.store.tell(names)

    async def let_through(self) -> list[int]:
        """Which children are READY, RUNNING or ended: all but those outside the window."""
        runs = await self.store.get(self.names)
        return [idx for idx, run in enumerate(runs) if run is not None and run.waiting_for != "window"]


async def family(store: RunStore, total: int, *, need_good: int | None = None, max_bad: int | None = None, window: int = 100) -> Family:
    """A running parent with a join of `total` children, who wait to be created. By default it waits for all of them."""
    worker_id, parent = await start(store, "parent")
    join = Join("map#0", total, total if need_good is None else need_good, total if max_bad is None else max_bad, window)
    child = entry(1, kind=EntryKind.CHILD, key="map#0")
    assert (await write_one(store, worker_id, write(parent, [child], joins=[join]))).verdict == "ok"
    return Family(store, worker_id, parent, join)


class RunsBase(Contract):
    unstorable_key: str = "\ud800"
    """A key that the store cannot hold: half of a surrogate pair is no Unicode, and no database takes it."""

    @pytest.fixture
    def second(self, store: RunStore) -> RunStore:
        """Another client of the same storage, as another process would have it."""
        return store

    @pytest.fixture
    def reopen(self, store: RunStore) -> Reopen:
        """Close `store` and open its storage anew, as after a restart."""
        needs(store.durable, "durable")
        raise AssertionError("a durable store gives the fixture `reopen`: close the store, and return it opened anew")
