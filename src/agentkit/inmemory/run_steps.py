"""What `InMemoryRuns` does, a small step per rule: synchronous, called under its lock, so each of its verbs is one atomic statement."""

from __future__ import annotations

import json
from heapq import nsmallest
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from agentkit.errors import WorkerFenced
from agentkit.inmemory.run_rows import JoinState, Row, RunTable, ticket_for
from agentkit.ports.records import Beat, Claimed, Created, Run, RunStatus, Signalled, Swept, TakenOver, WorkerRow, Written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock
    from agentkit.ports.queue import Ticket
    from agentkit.ports.records import ClaimRefusal, Entry, NewRun, ParentClaim, Release, RunQuery, RunWrite

SUSPECT = 2  # crashes from which on a run is claimed alone: one may be a neighbour's fault
LOOK_AGAIN_S = 60.0  # when a purge met an ended root whose descendants live on


class RunSteps:
    """The steps. Whoever replaces one replaces one rule."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._table = RunTable(clock)
        self._alive: dict[str, bool] = {}
        """Every worker that ever registered: a dead one is remembered, since dead is final."""
        self._beats: dict[str, int] = {}
        self._says: dict[str, tuple[str, str]] = {}
        """What each worker serves, and where it is."""

    def _row(self, run_id: str) -> Row | None:
        return self._table.rows.get(run_id)

    def _register(self, worker_id: str, kinds: str, host: str) -> None:
        if self._alive.setdefault(worker_id, True):
            self._beats.setdefault(worker_id, 0)
            self._says.setdefault(worker_id, (kinds, host))

    def _workers(self) -> list[WorkerRow]:
        return [WorkerRow(worker_id, *self._says[worker_id], beat) for worker_id, beat in sorted(self._beats.items())]

    def _beat(self, worker_id: str) -> Beat | None:
        if not self._is_alive(worker_id):
            return None
        self._beats[worker_id] += 1
        return Beat([run_id for run_id in self._table.owned.get(worker_id, ()) if self._table.rows[run_id].untaken])

    def _is_alive(self, worker_id: str) -> bool:
        return self._alive.get(worker_id, False)

    def _check_alive(self, worker_id: str) -> None:
        if not self._is_alive(worker_id):
            raise WorkerFenced(worker_id)

    def _declare_dead(self, worker_id: str) -> None:
        self._alive[worker_id] = False
        self._beats.pop(worker_id, None)
        self._says.pop(worker_id, None)

    def _may_create(self, parent: ParentClaim) -> bool:
        row = self._row(parent.run_id)
        return row is not None and self._is_alive(parent.owner) and row.held_by(parent.owner, parent.fence) and not row.cancelled

    def _create(self, new: NewRun) -> Created:
        row = self._row(new.run_id)
        if row is not None:
            same = row.run.kind == new.kind and row.run.input == new.input
            return Created("exists" if same else "conflict", row.run)
        join = self._join(new.parent_id, new.parent_key)
        outside = join is not None and not self._enter_window(join)
        now = self._clock.time()
        run = _new_run(new, now, outside=outside)
        row = Row(run, [entry._replace(fence=1) for entry in new.entries], in_window=not outside)
        self._table.add(row)
        if join is not None and outside:
            join.waiting.push(new.idx, row)
        return Created("created", run)

    def _join(self, parent_id: str | None, parent_key: str) -> JoinState | None:
        parent = self._row(parent_id) if parent_id is not None else None
        return parent.joins.get(parent_key) if parent else None

    def _enter_window(self, join: JoinState) -> bool:
        if join.active >= join.rule.window:
            return False
        join.active += 1
        return True

    def _claim(self, worker_id: str, run_id: str, serves: Mapping[str, AbstractSet[str]], *, alone: bool) -> Claimed | ClaimRefusal:
        if not self._may_claim(worker_id):
            return "fenced"
        row = self._row(run_id)
        if row is None:
            return "gone"
        refusal = self._refusal(row.run, serves, alone=alone)
        if refusal is not None:
            return refusal
        run = self._table.change(
            row, status=RunStatus.RUNNING, owner=worker_id, fence=self._next_fence(row.run), wake_at=None, waiting_for=""
        )
        return Claimed(run, self._clock.time())

    def _may_claim(self, worker_id: str) -> bool:
        return self._is_alive(worker_id)

    def _next_fence(self, run: Run) -> int:
        return run.fence + 1

    def _refusal(self, run: Run, serves: Mapping[str, AbstractSet[str]], *, alone: bool) -> ClaimRefusal | None:
        if run.status.ended:
            return "ended"
        if run.status is not RunStatus.READY:
            return "taken"
        if run.version not in serves.get(run.kind, ()):
            return "unknown"
        if run.crashes >= SUSPECT and not alone:
            return "suspect"
        return None

    def _write(self, worker_id: str, write: RunWrite) -> Written:
        row = self._row(write.run_id)
        if row is None:
            return Written("lost", 0)
        fresh = self._unwritten(row, write)
        if not self._owns(row, worker_id, write.fence):
            return Written("ok" if self._landed_before(row, worker_id, write, fresh) else "lost", row.run.inbox_seq)
        if fresh is None:
            return Written("lost", row.run.inbox_seq)
        row.extend(fresh)
        self._take(row, write)
        for join in write.joins:
            row.joins.setdefault(join.key, JoinState(join))
        if write.clear_crashes and row.run.crashes:
            self._table.change(row, crashes=0)
        moved = write.release is not None and not self._release(row, write.release)
        return Written("moved" if moved else "ok", row.run.inbox_seq)

    def _unwritten(self, row: Row, write: RunWrite) -> list[Entry] | None:
        return row.unwritten(write.entries, write.fence)

    def _owns(self, row: Row, worker_id: str, fence: int) -> bool:
        return row.held_by(worker_id, fence)

    def _take(self, row: Row, write: RunWrite) -> None:
        for message_id, seq in write.takes:
            row.take(message_id, seq)

    def _landed_before(self, row: Row, worker_id: str, write: RunWrite, fresh: Sequence[Entry] | None) -> bool:
        """Whether this is the repetition of a write whose answer was lost."""
        return fresh == [] and (bool(write.entries) or row.closed == (worker_id, write.fence))

    def _release(self, row: Row, release: Release) -> bool:
        run = row.run
        if release.status is RunStatus.PARKED and self._inbox_moved(run, release.seen):
            return False
        assert run.owner is not None
        row.closed = (run.owner, run.fence)
        if release.status is RunStatus.PARKED:
            self._table.change(row, status=release.status, owner=None, wake_at=release.wake_at, waiting_for=release.waiting_for)
        elif release.status is RunStatus.READY:
            self._table.change(row, status=release.status, owner=None, ticketed=release.ticketed)
        else:
            self._end(row, release.status, release.result)
        return True

    def _inbox_moved(self, run: Run, seen: int | None) -> bool:
        return seen is not None and run.inbox_seq != seen

    def _end(self, row: Row, status: RunStatus, result: bytes) -> None:
        run = row.run
        self._table.change(
            row,
            status=status,
            owner=None,
            result=result,
            wake_at=None,
            waiting_for="",
            notify=self._is_awaited(row, status),
            expires_at=self._clock.time() + run.keep_s if run.parent_id is None else None,
        )

    def _is_awaited(self, row: Row, status: RunStatus) -> bool:
        return not row.told and status.ended and self._join(row.run.parent_id, row.run.parent_key) is not None

    def _signal(self, row: Row, message_id: str, topic: str, body: bytes) -> Signalled:
        if self._seen_before(row, message_id):
            return Signalled("duplicate")
        if row.run.status.ended:
            return Signalled("ended")
        row.receive(message_id, topic, body)
        run = self._table.change(row, inbox_seq=row.run.inbox_seq + 1)
        if topic == "cancel" and self._never_started(run):
            self._end(row, RunStatus.CANCELLED, body)
            return Signalled("accepted", ended_now=True)
        if self._sleeps(run, topic):
            return Signalled("accepted", self._wake(row))
        return Signalled("accepted")

    def _seen_before(self, row: Row, message_id: str) -> bool:
        return message_id in row.inbox

    def _never_started(self, run: Run) -> bool:
        return run.fence == 0 and run.status in {RunStatus.READY, RunStatus.PARKED}

    def _sleeps(self, run: Run, topic: str) -> bool:
        return run.status is RunStatus.PARKED and (run.waiting_for not in {"window", "delay"} or topic == "cancel")

    def _wake(self, row: Row) -> Ticket:
        run = self._table.change(
            row, status=RunStatus.READY, owner=None, wake=self._next_wake(row.run), ticketed=False, wake_at=None, waiting_for=""
        )
        return ticket_for(run)

    def _next_wake(self, run: Run) -> int:
        return run.wake + 1

    def _tell(self, child_id: str) -> list[Ticket]:
        child = self._row(child_id)
        if child is None or not self._is_untold(child):
            return []
        self._table.change(child, notify=False)
        child.told = True
        parent = self._row(child.run.parent_id) if child.run.parent_id is not None else None
        join = parent.joins.get(child.run.parent_key) if parent else None
        if parent is None or join is None:
            return []
        self._count(join, child)
        if self._wakes_now(join):
            join.fired = True
            ticket = self._signal(parent, f"join:{join.rule.key}", f"join:{join.rule.key}", b"").ticket
            return [ticket] if ticket else []
        return [] if join.fired else self._fill_window(join)

    def _is_untold(self, child: Row) -> bool:
        return child.run.notify

    def _count(self, join: JoinState, child: Row) -> None:
        if child.run.status is RunStatus.COMPLETED:
            join.good += 1
        else:
            join.bad += 1
        # One that was cancelled while it waited outside the window leaves no place behind.
        if child.in_window:
            join.active -= 1

    def _wakes_now(self, join: JoinState) -> bool:
        return join.holds and not join.fired

    def _fill_window(self, join: JoinState) -> list[Ticket]:
        started: list[Ticket] = []
        while (head := join.waiting.head()) is not None and self._enter_window(join):
            head[1].in_window = True
            started.append(self._wake(head[1]))
        return started

    def _reap(self, reap: Mapping[str, int]) -> None:
        for worker_id, seen in reap.items():
            if self._beats.get(worker_id) == seen:
                self._declare_dead(worker_id)

    def _free_runs_of_the_dead(self, max_crashes: int, limit: int) -> list[TakenOver]:
        owned = self._table.owned.items()
        orphans = ((worker_id, run_id) for worker_id, runs in owned if not self._is_alive(worker_id) for run_id in runs)
        return [self._take_over(worker_id, run_id, max_crashes) for worker_id, run_id in list(islice(orphans, limit))]

    def _take_over(self, worker_id: str, run_id: str, max_crashes: int) -> TakenOver:
        row = self._table.rows[run_id]
        crashes = row.run.crashes + 1
        self._table.change(row, crashes=crashes)
        buried = crashes >= max_crashes
        if buried:
            reason = {"kind": "RunBuried", "message": f"its process died {crashes} times while it ran"}
            self._end(row, RunStatus.BURIED, json.dumps(reason).encode())
        else:
            self._wake(row)
        return TakenOver(run_id, worker_id, crashes, buried)

    def _ring_timers(self, limit: int) -> int:
        now, rung = self._clock.time(), 0
        while rung < limit and (row := self._table.due_by(now)) is not None:
            self._wake(row)
            rung += 1
        return rung

    def _forget_lost_tickets(self, lost_after_s: float, limit: int) -> None:
        lost_before, forgotten = self._clock.monotonic() - lost_after_s, 0
        while forgotten < limit and (row := self._table.lost_before(lost_before)) is not None:
            self._table.change(row, ticketed=False)
            forgotten += 1

    def _found(self, taken_over: list[TakenOver], rung: int, limit: int) -> Swept:
        table, now = self._table, self._clock.time()
        tickets, untold = self._tickets_to_put(limit), self._ends_to_tell(limit)
        timer = table.due.head()
        return Swept(
            beats=dict(self._beats),
            taken_over=taken_over,
            tickets=tickets,
            untold=untold,
            next_timer_s=max(0.0, timer[0] - now) if timer else None,
            more=limit in {len(taken_over), rung, len(tickets), len(untold)},
        )

    def _tickets_to_put(self, limit: int) -> list[Ticket]:
        return [ticket_for(self._table.rows[run_id].run) for run_id in islice(self._table.unticketed, limit)]

    def _ends_to_tell(self, limit: int) -> list[str]:
        return list(islice(self._table.untold, limit))

    def _note_ticket(self, ticket: Ticket) -> None:
        row = self._row(ticket.run_id)
        if row is None or row.run.status is not RunStatus.READY or row.run.wake != ticket.wake:
            return
        if row.run.ticketed:
            self._table.note_put(row)
        else:
            self._table.change(row, ticketed=True)

    def _list(self, query: RunQuery) -> list[Run]:
        now, rows = self._clock.time(), self._table.rows
        if query.parent_id is None:
            runs = (row.run for row in rows.values())
        else:
            parent = self._row(query.parent_id)
            groups = parent.children if parent else {}
            if query.parent_key is not None:
                children = (rows[child].run for idx, child in groups.get(query.parent_key, ()) if idx > query.after_idx)
                return list(islice((run for run in children if _matches(run, query, now)), query.limit))
            runs = (rows[child].run for group in groups.values() for _, child in group)
        found = (run for run in runs if run.run_id > query.after and _matches(run, query, now))
        return nsmallest(query.limit, found, key=attrgetter("run_id"))

    def _purge(self, limit: int) -> int:
        purged = 0
        while purged < limit and (root := self._table.expired_by(self._clock.time())) is not None:
            family = self._table.family(root)
            if all(row.run.status.ended for row in family):
                self._table.delete(family)
                purged += 1
            else:
                self._table.change(root, expires_at=self._clock.time() + LOOK_AGAIN_S)
        return purged


def _new_run(new: NewRun, now: float, *, outside: bool) -> Run:
    delayed = new.delay_s > 0 and not outside
    return Run(
        run_id=new.run_id,
        kind=new.kind,
        version=new.version,
        status=RunStatus.PARKED if outside or delayed else RunStatus.READY,
        owner=None,
        fence=1 if new.entries else 0,
        wake=0,
        inbox_seq=0,
        ticketed=new.held,
        crashes=0,
        priority=new.priority,
        tenant=new.tenant,
        key=new.key,
        parent_id=new.parent_id,
        parent_key=new.parent_key,
        idx=new.idx,
        notify=False,
        depth=new.depth,
        seed=new.seed,
        deadline=new.deadline,
        wake_at=now + new.delay_s if delayed else None,
        waiting_for="window" if outside else "delay" if delayed else "",
        keep_s=new.keep_s,
        input=new.input,
        result=b"",
        trace=new.trace,
        meta=new.meta,
        created_at=now,
        updated_at=now,
        expires_at=None,
    )


def _matches(run: Run, query: RunQuery, now: float) -> bool:
    return (
        (query.kind is None or run.kind == query.kind)
        and (query.version is None or run.version == query.version)
        and (query.tenant is None or run.tenant == query.tenant)
        and (query.status is None or run.status in query.status)
        and (query.parent_key is None or run.parent_key == query.parent_key)
        and (query.idle_s is None or now - run.updated_at >= query.idle_s)
    )
