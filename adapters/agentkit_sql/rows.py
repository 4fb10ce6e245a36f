"""Rows of runs: their columns, and the changes of state that several operations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.ports.queue import Ticket
from agentkit.ports.records import Run, RunStatus
from agentkit_sql.dialect import Statement
from agentkit_sql.schema import runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentkit_sql.dialect import Dialect, Script

READY, RUNNING, PARKED, COMPLETED = RunStatus.READY, RunStatus.RUNNING, RunStatus.PARKED, RunStatus.COMPLETED
CANCELLED, BURIED = RunStatus.CANCELLED, RunStatus.BURIED
WINDOW, DELAY, CANCEL = "window", "delay", "cancel"
"""What a run waits for that never started: its turn among its siblings, its time. A message does not start it, but `CANCEL` ends it."""

COLUMNS = ", ".join(f'"{column}"' for column in runs.c.keys() if column != "no")  # noqa: SIM118  a column collection is no mapping
ENTRY = 'run_no, seq, fence, kind, "key", attempt, fp, codec, body, at_ms, took_us'
"""The columns of a journal entry."""
NO = "(SELECT no FROM runs WHERE run_id = ?)"
FIELDS = (
    'run_id, kind, version, status, owner, fence, wake, inbox_seq, ticketed_at IS NOT NULL, crashes, priority, tenant, "key", parent_id, '
    "parent_key, idx, notify = 1, depth, seed, deadline, wake_at, waiting_for, keep_s, input, result, trace, meta, created_at, updated_at, "
    "expires_at"
)
TICKET = 'run_id, kind, version, wake, tenant, priority, "key", trace'
"""The columns of a run's `Ticket`, in its order."""
QUEUED = f"{TICKET}, weight"
"""Those of a `Ticket` in the queue, where it has a weight too."""

TO_TELL = (
    "CASE WHEN notify = 0 AND parent_id IS NOT NULL AND EXISTS "
    '(SELECT 1 FROM joins WHERE joins.run_id = runs.parent_id AND joins."key" = runs.parent_key) THEN 1 ELSE notify END'
)
"""Of a run that ends: 1, its parent is to be told. It becomes 2 once told, so that a child that is revived is not counted again."""


def select_runs(where: str, *more: str) -> str:
    """A query whose rows `to_run` reads, but for columns that are asked for beside."""
    return f"SELECT {', '.join((FIELDS, *more))} FROM runs WHERE {where}"


def to_run(row: Sequence[Any]) -> Run:
    """A row of `select_runs`."""
    fields = list(row)
    fields[3], fields[8], fields[16] = RunStatus(row[3]), bool(row[8]), bool(row[16])
    return Run(*fields)


def to_tickets(rows: Iterable[Sequence[Any]]) -> list[Ticket]:
    """Rows of the columns `TICKET`."""
    return [Ticket(*row) for row in rows]


class Changes:
    """The changes of state that several operations share. They are called inside a transaction."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        mine = dialect.among("run_id")
        self.end_unowned = Statement(
            "UPDATE runs SET status = ?, result = ?, owner = NULL, ticketed_at = NULL, wake_at = NULL, updated_at = ?, "
            f"waiting_for = '', notify = {TO_TELL}, "
            f"expires_at = CASE WHEN parent_id IS NULL THEN ? + keep_s END WHERE {mine}"
        )
        self.wake = Statement(
            "UPDATE runs SET status = 1, wake = wake + 1, ticketed_at = NULL, wake_at = NULL, waiting_for = '', holds_slot = 1, "
            f"updated_at = ? WHERE status = 3 AND {mine}"
        )
        self.tickets = Statement(f"SELECT {TICKET} FROM runs WHERE {mine}")
        self.add_message = Statement(dialect.or_ignore("inbox", "run_id, id, seq, topic, body"))
        self.count_message = Statement("UPDATE runs SET inbox_seq = ?, updated_at = ? WHERE run_id = ?")
        self.inbox_of = Statement(f"SELECT status, fence, inbox_seq, waiting_for FROM runs WHERE run_id = ?{dialect.exclusive}")

    def end(self, run_ids: Sequence[str], status: RunStatus, result: bytes, now: float) -> Script[None]:
        """End runs that nobody owns."""
        yield self.end_unowned(int(status), result, now, now, self.dialect.listed(run_ids))

    def wake_up(self, run_ids: Sequence[str], now: float) -> Script[list[Ticket]]:
        """Make parked runs READY; returns their tickets, in that order."""
        listed = self.dialect.listed(run_ids)
        yield self.wake(now, listed)
        tickets = {row[0]: row for row in (yield self.tickets(listed))}
        return to_tickets(tickets[run_id] for run_id in run_ids)

    def deliver(self, run_id: str, message_id: str, topic: str, body: bytes, now: float) -> Script[list[Ticket] | None]:
        """Put a message in a living run's inbox and wake the run if it is parked; None: the message was there already."""
        [(status, _, inbox_seq, waiting_for)] = yield self.inbox_of(run_id)
        if not (yield self.add_message(run_id, message_id, inbox_seq + 1, topic, body)):
            return None
        yield self.count_message(inbox_seq + 1, now, run_id)
        if status != PARKED or waiting_for in (WINDOW, DELAY):
            return []
        return (yield from self.wake_up([run_id], now))
