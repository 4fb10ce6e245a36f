"""Creating runs, and cancelling those that have not started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.ports.ids import check_id
from agentkit.ports.records import Created, Run, RunStatus
from agentkit_sql.dialect import Statement
from agentkit_sql.rows import COLUMNS, DELAY, ENTRY, PARKED, READY, WINDOW, select_runs, to_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.ports.records import NewRun, ParentClaim
    from agentkit_sql.dialect import Dialect, Script


class CreateScripts:
    """The script of `create`."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._found = Statement(select_runs(dialect.among("run_id")))
        self._entry = Statement(dialect.or_ignore("journal", ENTRY))
        self._numbers = Statement(f"SELECT run_id, no FROM runs WHERE {dialect.among('run_id')}")
        self._parent = Statement(
            "SELECT 1 FROM runs WHERE run_id = ? AND owner = ? AND fence = ? AND status = 2 AND NOT EXISTS "
            "(SELECT 1 FROM inbox WHERE inbox.run_id = runs.run_id AND topic = 'cancel' AND taken_seq IS NULL) "
            f"AND EXISTS (SELECT 1 FROM workers WHERE worker_id = owner AND dead = 0{dialect.share})"
        )
        self._join = Statement(f'SELECT slots - active, bad > max_bad FROM joins WHERE run_id = ? AND "key" = ?{dialect.exclusive}')
        self._started = Statement('UPDATE joins SET active = active + ? WHERE run_id = ? AND "key" = ?')

    def create(self, new: Sequence[NewRun], parent: ParentClaim | None, *, look: bool = True) -> Script[list[Created]]:
        """Create runs, or find them. Without a look first, where ids are new, an INSERT of one that is taken undoes it all."""
        for run in new:
            check_id(run.run_id)
        if parent is not None and not (yield self._parent(parent.run_id, parent.owner, parent.fence)):
            return [Created("refused", None)] * len(new)
        there: set[str] = set()
        if (look and not self._dialect.tells_taken) or any(run.parent_id is not None for run in new):
            there = {row[0] for row in (yield self._found(self._dialect.listed(run.run_id for run in new)))}
        # Of two with one id in one call the second finds the first.
        fresh = {run.run_id: run for run in reversed(new) if run.run_id not in there}
        ordered = [run for run in new if fresh.get(run.run_id) is run]
        stored = yield from self._store(ordered)
        created = {run.run_id: id(run) for run in ordered if run.run_id in stored}
        others = [run.run_id for run in new if run.run_id not in stored]
        if others:
            stored |= {row[0]: to_run(row) for row in (yield self._found(self._dialect.listed(others)))}
        return [_created(run, stored[run.run_id], new=created.get(run.run_id) == id(run)) for run in new]

    def _store(self, new: Sequence[NewRun]) -> Script[dict[str, Run]]:
        """Write the rows; returns those that nobody else wrote meanwhile."""
        if not new:
            return {}
        now = yield from self._dialect.now()
        waiting = yield from self._beyond_window(new)
        rows = [row_of(run, now, in_window=run.run_id in waiting) for run in new]
        written = yield from self._dialect.insert_free("runs", COLUMNS, rows)
        forks = [run for run in new if run.entries and run.run_id in written]
        if forks:
            number = dict((yield self._numbers(self._dialect.listed(run.run_id for run in forks))))
            yield self._entry.many([(number[run.run_id], entry.seq, 1, *entry[1:9]) for run in forks for entry in run.entries])
        return {row[0]: _run_of(row) for row in rows if row[0] in written}

    def _beyond_window(self, new: Sequence[NewRun]) -> Script[set[str]]:
        """Take slots of the parents' joins for the first of their new children; returns the ids of those that must wait."""
        joins: dict[tuple[str, str], list[str]] = {}
        for run in new:
            if run.parent_id is not None:
                joins.setdefault((run.parent_id, run.parent_key), []).append(run.run_id)
        waiting: set[str] = set()
        for (parent_id, key), children in joins.items():
            for free, failed in (yield self._join(parent_id, key)):
                starting = 0 if failed else min(max(free, 0), len(children))
                waiting.update(children[starting:])
                yield self._started(starting, parent_id, key)
        return waiting


def row_of(run: NewRun, now: float, *, in_window: bool) -> tuple[Any, ...]:
    status, wake_at, waiting_for = READY, None, ""
    if in_window:
        status, waiting_for = PARKED, WINDOW
    elif run.delay_s > 0:
        status, wake_at, waiting_for = PARKED, now + run.delay_s, DELAY
    ticketed_at = now if run.held else None
    return (
        run.run_id, run.kind, run.version, int(status), None, 1 if run.entries else 0, 0, 0, ticketed_at, 0, run.priority, run.tenant,
        run.key, run.parent_id, run.parent_key, run.idx, 0 if in_window else 1, 0, run.depth, run.seed, run.deadline, wake_at, waiting_for,
        run.keep_s, run.trace, run.meta, now, now, None, run.input, b"",
    )  # fmt: skip


def _run_of(row: tuple[Any, ...]) -> Run:
    """What `to_run` would read of a row that was made by `row_of`."""
    run_id, kind, version, status, owner, fence, wake, inbox_seq, ticketed_at, *more = row
    crashes, priority, tenant, key, parent_id, parent_key, idx, _, notify, depth, seed, *more = more
    deadline, wake_at, waiting_for, keep_s, trace, meta, created_at, updated_at, expires_at, given, result = more
    return Run(
        run_id, kind, version, RunStatus(status), owner, fence, wake, inbox_seq, ticketed_at is not None, crashes, priority, tenant, key,
        parent_id, parent_key, idx, notify == 1, depth, seed, deadline, wake_at, waiting_for, keep_s, given, result, trace, meta,
        created_at, updated_at, expires_at,
    )  # fmt: skip


def _created(run: NewRun, stored: Run, *, new: bool) -> Created:
    if new:
        return Created("created", stored)
    same = stored.kind == run.kind and stored.input == run.input
    return Created("exists" if same else "conflict", stored)
