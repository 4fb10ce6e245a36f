"""What must hold after any crash, told by the store and the side file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from agentkit import Agent, Runtime
from agentkit.durable.codec import PLAIN
from agentkit.ports.records import Entry, EntryKind, Run, RunQuery, RunStatus
from agentkit.ports.runs import RunStore

T = TypeVar("T")

OUTCOMES = (EntryKind.RESULT, EntryKind.ERROR)


async def history(store: RunStore, run_id: str) -> tuple[Run, list[Entry]]:
    """The row and the whole journal of a run."""
    (row,) = await store.get([run_id])
    assert row is not None, f"run {run_id!r} is lost"
    return row, await store.load(run_id, after=-1)


def faults_of(row: Run, entries: Sequence[Entry], effects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every law that one run's history breaks; `effects` are its lines of the side file."""
    said = [PLAIN.decode(e.body, "status")["status"] for e in entries if e.kind == EntryKind.STATUS]
    faults = [] if row.status.ended else [f"has not ended: {row.status.name}"]
    unstarted = row.status == RunStatus.CANCELLED and row.fence == 0  # by its parent's end, before anybody claimed it
    if row.status.ended and not unstarted and sum(s in ("done", "failed", "cancelled") for s in said) != 1:
        faults.append(f"did not end exactly once: {said}")
    if [e.seq for e in entries] != list(range(1, len(entries) + 1)):
        faults.append(f"its journal has gaps: {[e.seq for e in entries]}")
    if [e.fence for e in entries] != sorted(e.fence for e in entries):
        faults.append(f"an older claim wrote after a newer one: {[(e.seq, e.fence) for e in entries]}")
    outcomes = Counter(e.key for e in entries if e.kind in OUTCOMES)
    faults += [f"step {key!r} has {n} outcomes" for key, n in outcomes.items() if n > 1]
    durable = {f"{row.run_id}:{e.key}": e.fence for e in entries if e.kind in OUTCOMES}
    for line in effects:
        if line["fence"] > durable.get(line["key"], line["fence"]):
            faults.append(f"{line['key']} had a durable outcome from claim {durable[line['key']]} and was made again under {line['fence']}")
    made_under = Counter((line["key"], line["fence"]) for line in effects)
    faults += [f"{key} was made {n} times under claim {fence}" for (key, fence), n in made_under.items() if n > 1]
    return [f"run {row.run_id}: {fault}" for fault in faults]


async def faults(store: RunStore, run_ids: Sequence[str], effects: Sequence[Mapping[str, Any]]) -> list[str]:
    """The faults of many runs."""
    by_run: dict[str, list[Mapping[str, Any]]] = {}
    for line in effects:
        by_run.setdefault(line["key"].rpartition(":")[0], []).append(line)
    found: list[str] = []
    for run_id in run_ids:
        found += faults_of(*await history(store, run_id), by_run.get(run_id, []))
    return found


async def result_of(runtime: Runtime, run_id: str, agent: type[Agent[Any, T]], *, patience_s: float = 20.0) -> T:
    """The run's result; when none comes, AssertionError with what the store says."""
    try:
        return await runtime.handle(run_id, agent).result(timeout_s=patience_s)
    except TimeoutError as exc:
        rows = await runtime.store.list(RunQuery(limit=20))
        depth, workers = await runtime.tickets.depth(), await runtime.store.workers()
        raise AssertionError("\n".join(map(str, [exc, *rows, depth, *workers]))) from exc


def made(effects: Sequence[Mapping[str, Any]], key: str) -> int:
    """How often an effect happened."""
    return sum(line["key"] == key for line in effects)
