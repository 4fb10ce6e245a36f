"""Recovery: workers and their beats, the sweep, and the end of what is kept no longer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agentkit.errors import WorkerFenced
from agentkit.ports.records import Beat, Swept, TakenOver, WorkerRow
from agentkit_sql.dialect import Statement
from agentkit_sql.rows import BURIED, TICKET, Changes, to_tickets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentkit.ports.queue import Ticket
    from agentkit_sql.dialect import Dialect, Script

DEAD_KEPT_S = 30 * 86_400.0  # far longer than any process that was declared dead can sleep and still write


class SweepScripts:
    """The scripts of `register`, `beat`, `retire`, `sweep`, `ticketed`, `bury`, `revive` and `purge`."""

    def __init__(self, dialect: Dialect, changes: Changes) -> None:
        self._dialect, self._changes = dialect, changes
        among, before, unlocked = dialect.among("run_id"), dialect.exclusive, dialect.unlocked
        self._enter = Statement(dialect.or_ignore("workers", "worker_id, dead"))
        self._alive = Statement("SELECT 1 FROM workers WHERE worker_id = ? AND dead = 0")
        self._first_beat = Statement(dialect.or_ignore("beats", "worker_id, beat, kinds, host, at"))
        self._beat = Statement("UPDATE beats SET beat = beat + 1, at = ? WHERE worker_id = ?")
        self._moved = Statement(
            "SELECT run_id FROM runs WHERE owner = ? AND EXISTS "
            "(SELECT 1 FROM inbox WHERE inbox.run_id = runs.run_id AND taken_seq IS NULL)"
        )
        self._forget_beat = Statement("DELETE FROM beats WHERE worker_id = ?")
        self._stopped = Statement("DELETE FROM beats WHERE worker_id = ? AND beat = ?")
        self._dead = Statement("UPDATE workers SET dead = 1, died_at = ? WHERE worker_id = ? AND dead = 0")
        self._beats = Statement("SELECT worker_id, beat FROM beats")
        self._present = Statement("SELECT worker_id, kinds, host, beat FROM beats ORDER BY worker_id")
        self._orphans = Statement(
            "SELECT run_id, owner, crashes FROM runs WHERE owner IS NOT NULL AND "
            f"owner IN (SELECT worker_id FROM workers WHERE dead = 1) LIMIT ?{unlocked}"
        )
        self._free = Statement(
            "UPDATE runs SET status = 1, wake = wake + 1, owner = NULL, ticketed_at = NULL, crashes = crashes + 1, updated_at = ? "
            f"WHERE {among}"
        )
        self._crashed = Statement(f"UPDATE runs SET crashes = crashes + 1 WHERE {among}")
        self._due = Statement(
            f"SELECT run_id FROM runs WHERE status = 3 AND wake_at IS NOT NULL AND wake_at <= ? ORDER BY wake_at LIMIT ?{unlocked}"
        )
        self._next_due = Statement("SELECT min(wake_at) FROM runs WHERE status = 3 AND wake_at IS NOT NULL")
        self._unticketed = Statement(f"SELECT {TICKET} FROM runs WHERE status = 1 AND ticketed_at IS NULL LIMIT ?")
        self._lost = Statement(f"SELECT {TICKET} FROM runs WHERE status = 1 AND ticketed_at < ? ORDER BY ticketed_at LIMIT ?")
        self._untold = Statement("SELECT run_id FROM runs WHERE notify = 1 LIMIT ?")
        self._forget_dead = Statement(
            "DELETE FROM workers WHERE dead = 1 AND died_at < ? AND NOT EXISTS (SELECT 1 FROM runs WHERE owner = worker_id)"
        )
        self._ticketed = Statement("UPDATE runs SET ticketed_at = ? WHERE run_id = ? AND wake = ? AND status = 1")
        self._idle = Statement(f"SELECT 1 FROM runs WHERE run_id = ? AND status IN (1, 3){before}")
        self._revive = Statement(
            "UPDATE runs SET status = 1, crashes = 0, wake = wake + 1, ticketed_at = NULL, waiting_for = '', result = ?, "
            "expires_at = NULL, notify = CASE notify WHEN 1 THEN 0 ELSE notify END, updated_at = ? WHERE run_id = ? AND status = 7"
        )
        self._expired = Statement(f"SELECT run_id FROM runs WHERE expires_at <= ? ORDER BY expires_at LIMIT ?{unlocked}")
        self._family = Statement(
            "WITH RECURSIVE family(run_id, level, live) AS (SELECT run_id, 0, status < 4 FROM runs WHERE run_id = ? "
            "UNION ALL SELECT r.run_id, level + 1, r.status < 4 FROM family JOIN runs r ON r.parent_id = family.run_id) "
            "SELECT run_id, live FROM family ORDER BY live DESC, level DESC LIMIT ?"
        )
        self._numbers = Statement(f"SELECT no FROM runs WHERE {among}")
        self._delete_journal = Statement(f"DELETE FROM journal WHERE {dialect.among('run_no')}")
        self._delete = [Statement(f"DELETE FROM {table} WHERE {among}") for table in ("inbox", "joins", "runs")]

    def register(self, worker_id: str, kinds: str, host: str) -> Script[None]:
        now = yield from self._dialect.now()
        yield self._enter(worker_id, 0)
        if not (yield self._alive(worker_id)):
            raise WorkerFenced(worker_id)
        yield self._first_beat(worker_id, 0, kinds, host, now)

    def beat(self, worker_id: str) -> Script[Beat | None]:
        now = yield from self._dialect.now()
        if not (yield self._beat(now, worker_id)):
            return None
        return Beat([row[0] for row in (yield self._moved(worker_id))])

    def retire(self, worker_id: str) -> Script[None]:
        now = yield from self._dialect.now()
        yield self._forget_beat(worker_id)
        yield self._dead(now, worker_id)

    def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Script[Swept]:
        now = yield from self._dialect.now()
        for worker_id, beat in reap.items():
            # The beat decides: a worker that beat again since it was seen is not declared dead.
            if (yield self._stopped(worker_id, beat)):
                yield self._dead(now, worker_id)
        taken_over = yield from self._take_over(max_crashes, limit, now)
        due = [row[0] for row in (yield self._due(now, limit))]
        if due:
            yield from self._changes.wake_up(due, now)
        unticketed = yield self._unticketed(limit)
        lost = yield self._lost(now - lost_after_s, limit)
        untold = [row[0] for row in (yield self._untold(limit))]
        [(next_due,)] = yield self._next_due()
        beats = yield self._beats()
        yield self._forget_dead(now - DEAD_KEPT_S)
        return Swept(
            beats=dict(beats),
            taken_over=taken_over,
            tickets=to_tickets((*unticketed, *lost)[:limit]),
            untold=untold,
            next_timer_s=None if next_due is None else max(0.0, next_due - now),
            more=limit <= max(len(taken_over), len(due), len(unticketed) + len(lost), len(untold)),
        )

    def _take_over(self, max_crashes: int, limit: int, now: float) -> Script[list[TakenOver]]:
        """Free the runs of dead workers, and bury those that were it once too often."""
        orphans = yield self._orphans(limit)
        if not orphans:
            return []
        taken_over = [TakenOver(run_id, owner, crashes + 1, crashes + 1 >= max_crashes) for run_id, owner, crashes in orphans]
        yield self._free(now, self._dialect.listed(run.run_id for run in taken_over if not run.buried))
        for run in taken_over:
            if run.buried:
                yield self._crashed(self._dialect.listed([run.run_id]))
                yield from self._changes.end([run.run_id], BURIED, _crash_loop(run.crashes), now)
        return taken_over

    def workers(self) -> Script[list[WorkerRow]]:
        return [WorkerRow(*row) for row in (yield self._present())]

    def ticketed(self, tickets: Sequence[Ticket]) -> Script[None]:
        now = yield from self._dialect.now()
        yield self._ticketed.many([(now, ticket.run_id, ticket.wake) for ticket in tickets])

    def bury(self, run_id: str, reason: bytes) -> Script[bool]:
        if not (yield self._idle(run_id)):
            return False
        now = yield from self._dialect.now()
        yield from self._changes.end([run_id], BURIED, reason, now)
        return True

    def revive(self, run_id: str) -> Script[Ticket | None]:
        now = yield from self._dialect.now()
        if not (yield self._revive(b"", now, run_id)):
            return None
        return to_tickets((yield self._changes.tickets(self._dialect.listed([run_id]))))[0]

    def purge(self, limit: int) -> Script[int]:
        now = yield from self._dialect.now()
        roots = yield self._expired(now, limit)
        gone = 0
        for (root,) in roots:
            if gone >= limit:
                break
            family: list[Any] = yield self._family(root, limit - gone)
            if family[0][1]:
                continue  # a descendant lives; it needs its ancestors' joins, and its siblings' results may be asked for
            # The deepest first: a root that is too big for one round is still found by the next.
            listed = self._dialect.listed(row[0] for row in family)
            yield self._delete_journal(self._dialect.listed(row[0] for row in (yield self._numbers(listed))))
            for delete in self._delete:
                yield delete(listed)
            gone += len(family)
        return gone


def _crash_loop(crashes: int) -> bytes:
    message = f"its process ended {crashes} times while it ran; look into the cause, then redrive it"
    return json.dumps({"kind": "RunBuried", "message": message}).encode()
