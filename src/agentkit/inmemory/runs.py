"""A run store in this process's memory: for tests, for tutorials, and for runs that nothing needs to outlive the process."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from threading import RLock
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidKey
from agentkit.inmemory.run_changes import Changes
from agentkit.inmemory.run_steps import RunSteps
from agentkit.inmemory.url import whole_numbers
from agentkit.ports.records import Created, RunStatus, Signalled

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock
    from agentkit.ports.queue import Ticket
    from agentkit.ports.records import (
        Beat,
        Claimed,
        ClaimRefusal,
        Entry,
        Message,
        NewRun,
        ParentClaim,
        Run,
        RunQuery,
        RunWrite,
        Swept,
        WorkerRow,
        Written,
    )


def from_url(url: str, *, clock: Clock = SYSTEM) -> InMemoryRuns:
    """The store that `memory://` names: a new and empty one.

    Raises:
        InvalidSetting: any other URL.
    """
    whole_numbers(url, frozenset())
    return InMemoryRuns(clock)


class InMemoryRuns(RunSteps):
    """A `RunStore` in memory, with every law of the port but durability.

    Each method does its work under one lock without waiting inside, so it is atomic for tasks, threads and event loops alike, and a
    parked run costs its row and nothing else. `clock` decides timers and expiry.
    """

    durable = False
    min_lease_s = 0.1  # a beat here waits for nothing but the interpreter

    def __init__(self, clock: Clock = SYSTEM) -> None:
        super().__init__(clock)
        self._lock = RLock()
        self._changes = Changes(clock)

    async def open(self) -> None:
        """Nothing to do."""
        await checkpoint()

    async def aclose(self) -> None:
        """Nothing to do: the runs live as long as this object."""
        await checkpoint()

    async def register(self, worker_id: str, kinds: str, host: str) -> None:
        await checkpoint()
        with self._lock:
            self._register(worker_id, kinds, host)

    async def beat(self, worker_id: str) -> Beat | None:
        await checkpoint()
        with self._lock:
            return self._beat(worker_id)

    async def retire(self, worker_id: str) -> None:
        await checkpoint()
        with self._lock:
            self._declare_dead(worker_id)

    async def create(self, runs: Sequence[NewRun], *, parent: ParentClaim | None = None) -> list[Created]:
        await checkpoint()
        _refuse_unstorable(chain.from_iterable((run.run_id, run.kind, run.key, *(entry.key for entry in run.entries)) for run in runs))
        with self._changing():
            if parent is not None and not self._may_create(parent):
                return [Created("refused", None)] * len(runs)
            return [self._create(new) for new in runs]

    async def claim(
        self, worker_id: str, run_ids: Sequence[str], serves: Mapping[str, AbstractSet[str]], *, alone: bool = False
    ) -> list[Claimed | ClaimRefusal]:
        await checkpoint()
        with self._lock:
            return [self._claim(worker_id, run_id, serves, alone=alone) for run_id in run_ids]

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        await checkpoint()
        _refuse_unstorable(entry.key for write in batch for entry in write.entries)
        with self._changing():
            self._check_alive(worker_id)
            return [self._write(worker_id, write) for write in batch]

    async def load(self, run_id: str, *, after: int = 0) -> list[Entry]:
        await checkpoint()
        with self._lock:
            row = self._row(run_id)
            return row.read(after) if row else []

    async def inbox(self, run_id: str) -> list[Message]:
        await checkpoint()
        with self._lock:
            row = self._row(run_id)
            return list(row.inbox.values()) if row else []

    async def signal(self, run_id: str, message_id: str, topic: str, body: bytes) -> Signalled:
        await checkpoint()
        with self._changing():
            row = self._row(run_id)
            return self._signal(row, message_id, topic, body) if row else Signalled("unknown")

    async def cancel_children(self, run_id: str, join_key: str | None, body: bytes) -> list[Ticket]:
        await checkpoint()
        with self._changing():
            parent = self._row(run_id)
            groups = parent.children if parent else {}
            of_join = groups.values() if join_key is None else [groups.get(join_key, [])]
            children = [self._table.rows[child] for group in of_join for _, child in group]
            answers = [self._signal(child, f"cancel:{run_id}", "cancel", body) for child in children]
            woken = [answer.ticket for answer in answers if answer.ticket]
            told = [self._tell(child.run.run_id) for child in children]
            return [*woken, *chain.from_iterable(told)]

    async def tell(self, child_ids: Sequence[str]) -> list[Ticket]:
        await checkpoint()
        with self._changing():
            return [ticket for child_id in child_ids for ticket in self._tell(child_id)]

    async def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Swept:
        await checkpoint()
        with self._lock:
            self._reap(reap)
            taken_over = self._free_runs_of_the_dead(max_crashes, limit)
            rung = self._ring_timers(limit)
            self._forget_lost_tickets(lost_after_s, limit)
            if taken_over or rung:
                self._changes.note()
            return self._found(taken_over, rung, limit)

    async def ticketed(self, tickets: Sequence[Ticket]) -> None:
        await checkpoint()
        with self._lock:
            for ticket in tickets:
                self._note_ticket(ticket)

    async def bury(self, run_id: str, reason: bytes) -> bool:
        await checkpoint()
        with self._changing():
            row = self._row(run_id)
            if row is None or row.run.status not in {RunStatus.READY, RunStatus.PARKED}:
                return False
            self._end(row, RunStatus.BURIED, reason)
            return True

    async def revive(self, run_id: str) -> Ticket | None:
        await checkpoint()
        with self._changing():
            row = self._row(run_id)
            if row is None or row.run.status is not RunStatus.BURIED:
                return None
            self._table.change(row, crashes=0, result=b"", expires_at=None, notify=False)
            return self._wake(row)

    async def workers(self) -> list[WorkerRow]:
        await checkpoint()
        with self._lock:
            return self._workers()

    async def get(self, run_ids: Sequence[str]) -> list[Run | None]:
        await checkpoint()
        with self._lock:
            return [row.run if row else None for row in map(self._row, run_ids)]

    async def list(self, query: RunQuery) -> list[Run]:
        await checkpoint()
        with self._lock:
            return self._list(query)

    async def purge(self, limit: int) -> int:
        await checkpoint()
        with self._changing():
            return self._purge(limit)

    async def changed(self, seen: int, timeout_s: float) -> int:
        await checkpoint()
        with self._lock:
            if self._changes.token != seen:
                return self._changes.token
            waiter = self._changes.waiter()
        try:
            await self._changes.until(waiter, timeout_s)
        finally:
            with self._lock:
                self._changes.forget(waiter)
        return self._changes.token

    @contextmanager
    def _changing(self) -> Generator[None]:
        with self._lock:
            yield
            self._changes.note()


def _refuse_unstorable(texts: Iterable[str]) -> None:
    """Refuse what no store on disk could hold, so that nothing passes here that fails there."""
    for text in texts:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as exc:
                raise InvalidKey(text.encode(errors="backslashreplace").decode(), "must be valid Unicode, it holds half of a pair") from exc
