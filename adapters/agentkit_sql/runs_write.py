"""Claiming runs and writing their journals: what a worker does under its fence."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from agentkit.errors import WorkerFenced
from agentkit.ports.records import Claimed, RunStatus, Written
from agentkit_sql.dialect import Statement
from agentkit_sql.rows import ENTRY, NO, PARKED, READY, RUNNING, TO_TELL, select_runs, to_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.ports.records import ClaimRefusal, Entry, Release, Run, RunWrite
    from agentkit_sql.dialect import Dialect, Script

Ended: TypeAlias = "tuple[str, Release, tuple[str, str, int]]"
"""A run's id, its release, and the claim that ends: run_id, owner, fence."""

SUSPECT_CRASHES = 2
LOST = Written("lost", 0)


class Known:
    """A claim as the last flush left it. Under one fence one worker writes, so what was there stays the last until it writes again."""

    __slots__ = ("fence", "last", "no", "verdict")

    def __init__(self, fence: int, last: int, no: int, inbox_seq: int) -> None:
        self.fence, self.no = fence, no
        self.last = last
        """The seq of the last entry."""
        self.verdict = Written("ok", inbox_seq)
        """On all that goes on from there."""

    def goes_on(self, write: RunWrite) -> bool:
        """Whether it is entries alone, right after those that are there."""
        entries = write.entries
        if not entries or write.release or write.takes or write.joins or write.clear_crashes or write.fence != self.fence:
            return False
        return entries[0].seq == self.last + 1 and (len(entries) == 1 or follows(entries, self.last))


def going_on(known: Iterable[Known | None], batch: Sequence[RunWrite]) -> list[Known] | None:
    """What is known of each run of a batch, if all of it is entries that go on from there."""
    claims: list[Known] = []
    for claim, write in zip(known, batch, strict=True):
        if claim is None or not claim.goes_on(write):
            return None
        claims.append(claim)
    return claims


class WriteScripts:
    """The scripts of `claim` and `write`."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        among = dialect.among("run_id")
        # Share-locked on a server: a take-over marks the worker dead, so it waits for this transaction.
        self._alive = Statement(f"SELECT 1 FROM workers WHERE worker_id = ? AND dead = 0{dialect.share}")
        self._wanted = Statement(select_runs(f"{among} ORDER BY run_id{dialect.exclusive}"))
        self._claim = Statement(
            "UPDATE runs SET status = 2, owner = ?, fence = fence + 1, wake_at = NULL, waiting_for = '', updated_at = ? "
            f"WHERE status = 1 AND {among}"
        )
        self._mine = Statement(
            "SELECT run_id, fence, inbox_seq, (SELECT max(seq) FROM journal WHERE run_no = no), no "
            f"FROM (SELECT worker_id FROM workers WHERE worker_id = ? AND dead = 0{dialect.share}) AS me "
            f"CROSS JOIN {dialect.each('runs', 'run_id')} WHERE owner = me.worker_id"
        )
        self._insert = Statement(dialect.or_ignore("journal", ENTRY))
        self._there = Statement(f"SELECT seq, fence, body FROM journal WHERE run_no = {NO} AND seq BETWEEN ? AND ?")
        self._row = Statement("SELECT status, fence, owner, inbox_seq FROM runs WHERE run_id = ?")
        self._take = Statement("UPDATE inbox SET taken_seq = ? WHERE run_id = ? AND id = ? AND taken_seq IS NULL")
        self._join = Statement(dialect.or_ignore("joins", 'run_id, "key", total, need_good, max_bad, slots, good, bad, active, fired'))
        self._clear = Statement("UPDATE runs SET crashes = 0 WHERE run_id = ?")
        mine = "WHERE run_id = ? AND owner = ? AND fence = ?"
        self._hand_back = Statement(f"UPDATE runs SET status = 1, owner = NULL, ticketed_at = ?, updated_at = ? {mine}")
        self._park = Statement(
            "UPDATE runs SET status = 3, owner = NULL, ticketed_at = NULL, wake_at = ?, waiting_for = ?, updated_at = ? "
            f"{mine} AND inbox_seq = coalesce(?, inbox_seq)"
        )
        self._end = Statement(
            f"UPDATE runs SET status = ?, owner = NULL, ticketed_at = NULL, result = ?, updated_at = ?, notify = {TO_TELL}, "
            f"expires_at = CASE WHEN parent_id IS NULL THEN ? + keep_s END {mine}"
        )

    def claim(
        self, worker_id: str, run_ids: Sequence[str], serves: Mapping[str, AbstractSet[str]], *, alone: bool
    ) -> Script[list[Claimed | ClaimRefusal]]:
        if not (yield self._alive(worker_id)):
            return ["fenced"] * len(run_ids)
        now = yield from self._dialect.now()
        listed = self._dialect.listed(run_ids)
        found = {row[0]: to_run(row) for row in (yield from self._find(listed))}
        answers: list[Claimed | ClaimRefusal] = []
        granted: list[str] = []
        for run_id in run_ids:
            run = found.get(run_id)
            refusal = refused(run, serves, alone=alone)
            if refusal is None and run is not None:
                found[run_id] = run = _claimed(run, worker_id, now)
                granted.append(run_id)
                answers.append(Claimed(run, now))
            elif refusal is not None:
                answers.append(refusal)
        if granted:  # as a change without an answer, which may travel with the COMMIT
            yield self._claim.many([(worker_id, now, self._dialect.listed(granted))])
        return answers

    def _find(self, listed: Any) -> Script[Sequence[Sequence[Any]]]:
        """Rows for `to_run`, locked."""
        rows: Sequence[Sequence[Any]] = yield self._wanted(listed)
        return rows

    def write(self, worker_id: str, batch: Sequence[RunWrite]) -> Script[list[Written]]:
        held = yield from self._held(worker_id, [write.run_id for write in batch])
        if not held and not (yield self._alive(worker_id)):
            raise WorkerFenced(worker_id)
        verdicts: list[Written] = []
        rows: list[tuple[Any, ...]] = []
        more: list[RunWrite] = []  # those that carry more than entries: few
        for write in batch:
            mine = held.get(write.run_id)
            if mine is not None and mine[1] == write.fence and continues(write.entries, mine[3] or 0):
                rows += to_rows(mine[4], write.fence, write.entries)
                verdict = Written("ok", mine[2])
            else:
                verdict = yield from self._judge(write, mine, rows)
            verdicts.append(verdict)
            if (write.release or write.takes or write.joins or write.clear_crashes) and mine is not None and verdict.verdict == "ok":
                more.append(write)
        if rows:
            yield self._insert.many(rows)
        if not more:
            return verdicts
        yield from self._inbox_and_joins(more)
        moved = yield from self._release(worker_id, more)
        return [Written("moved", one.inbox_seq) if write.run_id in moved else one for write, one in zip(batch, verdicts, strict=True)]

    def _held(self, worker_id: str, run_ids: Sequence[str]) -> Script[dict[str, Sequence[Any]]]:
        """Those that are this worker's, if it lives: run_id, fence, inbox_seq, the last seq of the journal, no."""
        return {row[0]: row for row in (yield self._mine(worker_id, self._dialect.listed(run_ids)))}

    def _judge(self, write: RunWrite, held: Sequence[Any] | None, rows: list[tuple[Any, ...]]) -> Script[Written]:
        """The verdict on one run's part; the rows that are to be inserted are added to `rows`."""
        fence, entries = write.fence, write.entries
        if held is None or held[1] != fence:
            return (yield from self._landed_before(write))
        last = held[3] or 0
        if entries:
            if not follows(entries, last):
                return Written("lost", held[2])
            if entries[0].seq <= last:
                missing = yield from self._not_yet_there(write, last)
                if missing is None:
                    return Written("lost", held[2])
                entries = missing
            rows += to_rows(held[4], fence, entries)
        return Written("ok", held[2])

    def _not_yet_there(self, write: RunWrite, last: int) -> Script[Sequence[Entry] | None]:
        """What of a repeated write is missing; None: what is there was written by somebody else."""
        there = {seq: (fence, body) for seq, fence, body in (yield self._there(write.run_id, write.entries[0].seq, last))}
        if any(entry.seq in there and there[entry.seq] != (write.fence, entry.body) for entry in write.entries):
            return None
        return [entry for entry in write.entries if entry.seq not in there]

    def _landed_before(self, write: RunWrite) -> Script[Written]:
        """A run that is not mine: lost, unless this is a repeated write whose first copy landed."""
        found = yield self._row(write.run_id)
        if not found:
            return LOST
        [(status, fence, owner, inbox_seq)] = found
        if write.entries:
            missing = yield from self._not_yet_there(write, write.entries[-1].seq)
            return Written("ok" if missing is not None and not missing else "lost", inbox_seq)
        release = write.release
        if release is None or fence != write.fence or owner is not None:
            return Written("lost", inbox_seq)
        # Only my own release can have freed it while I live: a take-over would have declared me dead before.
        fits = status == release.status if release.status.ended else not RunStatus(status).ended or status == RunStatus.BURIED
        return Written("ok" if fits else "lost", inbox_seq)

    def _inbox_and_joins(self, writes: Sequence[RunWrite]) -> Script[None]:
        takes = [(seq, write.run_id, message_id) for write in writes for message_id, seq in write.takes]
        if takes:
            yield self._take.many(takes)
        joins = [(write.run_id, *join, 0, 0, 0, 0) for write in writes for join in write.joins]
        if joins:
            yield self._join.many(joins)
        clear = [(write.run_id,) for write in writes if write.clear_crashes]
        if clear:
            yield self._clear.many(clear)

    def _release(self, worker_id: str, writes: Sequence[RunWrite]) -> Script[set[str]]:
        """Close the claims that say so; returns the runs whose inbox moved on, so that they were not parked."""
        # In the order of ids, so that no two transactions of a server wait for each other.
        ordered = sorted(((write, write.release) for write in writes if write.release is not None), key=lambda one: one[0].run_id)
        moved: set[str] = set()
        now = (yield from self._dialect.now()) if ordered else 0.0
        for status, alike in groupby(ordered, key=lambda one: one[1].status):
            released = [(write.run_id, release, (write.run_id, worker_id, write.fence)) for write, release in alike]
            if status == PARKED:
                for run_id, release, mine in released:
                    if not (yield self._park(release.wake_at, release.waiting_for, now, *mine, release.seen)):
                        moved.add(run_id)
            elif status == READY:
                yield self._hand_back.many([(now if release.ticketed else None, now, *mine) for _, release, mine in released])
            else:
                yield from self._end_all(status, released, now)
        return moved

    def _end_all(self, status: RunStatus, ended: Sequence[Ended], now: float) -> Script[None]:
        yield self._end.many([(int(status), release.result, now, now, *mine) for _, release, mine in ended])


def refused(run: Run | None, serves: Mapping[str, AbstractSet[str]], *, alone: bool) -> ClaimRefusal | None:
    """Why a run may not be claimed, or None."""
    if run is None:
        return "gone"
    if run.status.ended:
        return "ended"
    if run.status != READY:
        return "taken"
    if run.version not in serves.get(run.kind, ()):
        return "unknown"
    return "suspect" if run.crashes >= SUSPECT_CRASHES and not alone else None


def continues(entries: Sequence[Entry], last: int) -> bool:
    """Whether the entries go on right after `last`, as nearly all do: then there is nothing to look up."""
    return not entries or (entries[0].seq == last + 1 and (len(entries) == 1 or follows(entries, last)))


def to_rows(run_no: int, fence: int, entries: Sequence[Entry]) -> list[tuple[Any, ...]]:
    return [(run_no, e[0], fence, e[1], e[2], e[3], e[4], e[5], e[6], e[7], e[8]) for e in entries]


def follows(entries: Sequence[Entry], last: int) -> bool:
    """Whether the entries leave no gap, neither after `last` nor among them: a journal with one could not be replayed."""
    first = entries[0].seq
    return 1 <= first <= last + 1 and all(entry.seq == seq for seq, entry in enumerate(entries, first))


def _claimed(run: Run, worker_id: str, now: float) -> Run:
    return run._replace(status=RUNNING, owner=worker_id, fence=run.fence + 1, wake_at=None, waiting_for="", updated_at=now)
