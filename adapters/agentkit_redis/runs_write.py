"""What a worker writes under its claims, and reading it back."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from agentkit.errors import WorkerFenced
from agentkit.ports.records import Entry, EntryKind, Message, Release, RunStatus, RunWrite, Written
from agentkit_redis.connection import Script, command
from agentkit_redis.rows import compact, pack, to_messages, unpack
from agentkit_redis.runs_base import DUE, EXPIRING, PUT, READY_HINTS, UNTOLD, RunsBase, add, settled, split
from agentkit_redis.runs_create import worker_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit_redis.connection import Call, Client
    from agentkit_redis.runs_base import Hint

SNAPSHOT = int(EntryKind.SNAPSHOT)  # compared with each entry: a member of the class costs six times as much
BROKEN = -1  # instead of the first seq of entries that have a gap among them: no journal can go on with them
_append = Script("append")
_write = Script("clock", "run", "write")
_load = Script("load")


class Packed(NamedTuple):
    """A write as the scripts take it."""

    write: RunWrite
    whole: bool
    """There is no gap among its entries."""
    entries: Sequence[bytes]
    rest: bytes
    """All that is no entry."""


class Writing(RunsBase):
    """The verbs `write`, `load` and `inbox`."""

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        """Write a batch of runs. Raises `WorkerFenced`; `StoreRefused` for what cannot be stored, before anything is written."""
        client = await self.client()
        packed = [_packed(write) for write in batch]
        if client.clustered and not await client.call(worker_script(self.worker_keys(worker_id), "alive")):
            raise WorkerFenced(worker_id)  # the worker's row has a slot of its own there; the claim's token guards each run
        plain = [one for one in packed if one.whole and not one.rest]
        written = await self._append(client, worker_id, plain, sync=sync) if plain else {}
        left = [one for one in packed if one.write.run_id not in written]
        if left:
            written |= await self._write(client, worker_id, left, sync=sync)
        return [written[write.run_id] for write in batch]

    async def _append(self, client: Client, worker_id: str, batch: Sequence[Packed], *, sync: bool) -> dict[str, Written]:
        """Add entries to journals that end just before them; what became of those writes of which no more is to be said."""
        guards = [] if client.clustered else self.worker_keys(worker_id)[:1]

        def append(some: Sequence[Packed]) -> Call:
            keys: list[str] = list(guards)
            words: list[Any] = [worker_id, len(guards)]
            for write, _, entries, _ in some:
                meta = self.run_key(write.run_id)
                keys += (meta, meta + ":journal")
                words += (write.fence, write.entries[0][0] if entries else 0, len(entries), *entries)
            return _append(keys, *words)

        answers = await self.steps(client, split(client, batch, append), note=True, sync=sync)
        if b"fenced" in answers:
            raise WorkerFenced(worker_id)
        found = zip(batch, chain.from_iterable(answers), strict=True)
        return {one.write.run_id: Written("ok", int(inbox_seq)) for one, inbox_seq in found if inbox_seq is not None}

    async def _write(self, client: Client, worker_id: str, batch: Sequence[Packed], *, sync: bool) -> dict[str, Written]:
        """Everything that a write can say, and repetitions of what may have been written before."""
        hint = self.hint()
        guards = [] if client.clustered else self.worker_keys(worker_id)

        def write(some: Sequence[Packed]) -> Call:
            keys: list[str] = list(guards)
            words: list[Any] = [self.now(), worker_id, hint, int(bool(guards))]
            for one, whole, entries, rest in some:
                keys += [self.run_key(one.run_id, part) for part in ("", ":journal", ":inbox", ":joins", ":body")]
                first = BROKEN if not whole else one.entries[0].seq if entries else 0
                words += (one.fence, first, len(entries), rest, one.release.result if one.release else b"", *entries)
            return _write(keys, *words)

        before = [listed for one in batch if one.write.release is not None for listed in _listed(one.write, one.write.release, hint)]
        answers = await self.steps(client, split(client, batch, write), before=before, note=True, sync=sync)
        if b"fenced" in answers:
            raise WorkerFenced(worker_id)
        writes = [one.write for one in batch]
        verdicts = await self._judged(client, worker_id, writes, list(chain.from_iterable(answers)))
        return {write.run_id: verdict for write, verdict in zip(writes, verdicts, strict=True)}

    async def _judged(self, client: Client, worker_id: str, batch: Sequence[RunWrite], answers: Sequence[Any]) -> list[Written]:
        """The verdicts; and what follows from releases that happened."""
        written: list[Written] = []
        closed: list[str] = []
        for one, (verdict, inbox_seq, notify) in zip(batch, answers, strict=True):
            written.append(Written(verdict.decode(), int(inbox_seq)))
            if one.release is not None and verdict == b"ok":
                closed.append(f"{one.fence}:{one.run_id}")
                if one.release.status.ended and notify != b"1":
                    self.forget(*settled(one.run_id))
        if client.clustered and closed:
            await client.call(command("SREM", self.worker_keys(worker_id)[1], *closed))
        return written

    async def load(self, run_id: str, *, after: int = 0) -> list[Entry]:
        """The journal in order of seq, from the newest SNAPSHOT (or from `after`, exclusive, if it is set)."""
        client = await self.client()
        first = "" if not after else str(max(0, after + 1))
        return [unpack(row) for row in await client.call(_load([self.run_key(run_id), self.run_key(run_id, ":journal")], first))]

    async def inbox(self, run_id: str) -> list[Message]:
        """All messages in order of arrival, the taken ones too."""
        client = await self.client()
        return to_messages(await client.call(command("HGETALL", self.run_key(run_id, ":inbox"))))


def _packed(write: RunWrite) -> Packed:
    entries, fence = write.entries, write.fence
    whole = len(entries) < 2 or all(entry[0] == seq for seq, entry in enumerate(entries, entries[0][0]))
    return Packed(write, whole, [pack(entry, fence) for entry in entries], _rest(write))


def _rest(write: RunWrite) -> bytes:
    """What is rare, as JSON; nothing where there is nothing of it."""
    rest: dict[str, Any] = {}
    snapshots = [entry[0] for entry in write.entries if entry[1] == SNAPSHOT]
    if snapshots:
        rest["snap"] = snapshots[-1]
    if write.takes:
        rest["takes"] = write.takes
    if write.joins:
        rest["joins"] = [{**join._asdict(), "good": 0, "bad": 0, "active": 0, "fired": False} for join in write.joins]
    if write.clear_crashes:
        rest["clear"] = True
    if write.release is not None:
        rest["release"], rest["id"] = _release(write.release), write.run_id
    return compact(rest) if rest else b""


def _release(release: Release) -> dict[str, Any]:
    """Without what is None: to Lua a null is true. Times as text: its numbers lose their last digits."""
    said: dict[str, Any] = {"status": int(release.status), "waits": release.waiting_for, "ticketed": release.ticketed}
    if release.seen is not None:
        said["seen"] = release.seen
    if release.wake_at is not None:
        said["wake_at"] = repr(release.wake_at)
    return said


def _listed(write: RunWrite, release: Release, hint: str) -> list[Hint]:
    """Where a run is listed before it is released."""
    if release.status == RunStatus.PARKED:
        return [] if release.wake_at is None else [add(DUE, f"{write.fence}:{write.run_id}", repr(release.wake_at))]
    if release.status == RunStatus.READY:
        return [add(PUT, write.run_id) if release.ticketed else add(READY_HINTS, hint + write.run_id)]
    return [add(UNTOLD, write.run_id), add(EXPIRING, write.run_id)]
