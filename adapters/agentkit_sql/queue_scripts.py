"""The scripts of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.ports.queue import DeadTicket, Depth, Lease, Ticket
from agentkit_sql.dialect import Statement
from agentkit_sql.queue_moves import BEHIND, READY, Row, TicketMoves
from agentkit_sql.queue_turns import attempt_of, choose, in_turn, row_of, to_state
from agentkit_sql.rows import QUEUED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from agentkit_sql.dialect import Dialect, Script

QUEUE = "queue"
"""What changes the line of tickets does it alone: it is short, and keys, turns and dedup hold across rows."""
RETURNED_AT_ONCE = 500  # in one lease: bounds its transaction


class QueueScripts(TicketMoves):
    """What the queue does, each in one transaction."""

    def __init__(self, dialect: Dialect, max_depth: int) -> None:
        super().__init__(dialect, max_depth)
        among_n, among_id, before = dialect.among("n"), dialect.among("id"), dialect.exclusive
        row = f"SELECT {QUEUED}, n, tries, deliveries, put_at"
        self._candidates = Statement(
            f"{row}, turn, n FROM tickets WHERE served = ? AND priority = ? AND state = 0 ORDER BY turn, n LIMIT ?{before}"
        )
        self._lease = Statement(f"UPDATE tickets SET state = 1, tries = tries + 1, deliveries = deliveries + 1, due = ? WHERE {among_n}")
        self._held = Statement(f"{row} FROM tickets WHERE state = 1 AND {among_n} ORDER BY n{before}")
        self._leased = Statement(f"SELECT n, tries, id FROM tickets WHERE state = 1 AND {among_n}{before}")
        self._expired = Statement(f"{row} FROM tickets WHERE state = 1 AND due <= ? ORDER BY due LIMIT ?{before}")
        self._due = Statement(f"{row} FROM tickets WHERE state = 2 AND due <= ? ORDER BY due LIMIT ?{before}")
        self._next_due = Statement(
            "SELECT min(due) FROM "
            "(SELECT min(due) AS due FROM tickets WHERE state = 1 UNION ALL SELECT min(due) FROM tickets WHERE state = 2) soonest"
        )
        self._renew = Statement(f"UPDATE tickets SET due = ? WHERE {among_n}")
        # Found by the index of ids, which begin with the run's: an index of its own would cost every ticket.
        self._of_run = Statement(f"{row} FROM tickets WHERE state <> 1 AND id >= ? AND id < ? AND run_id = ?{before}")
        self._forget_dead = Statement(f"DELETE FROM dead_tickets WHERE {among_id}")
        self._die = Statement(
            f"INSERT INTO dead_tickets ({QUEUED}, id, served, reason, deliveries, died_at) VALUES ({', '.join('?' * 14)})"
        )
        self._dead = Statement(
            f"SELECT {QUEUED}, reason, deliveries, died_at FROM dead_tickets WHERE (kind = coalesce(?, kind) OR served = ?) "
            "ORDER BY died_at, id LIMIT ?"
        )
        self._some_dead = Statement(
            f"SELECT {QUEUED} FROM dead_tickets WHERE {dialect.among('run_id')} AND (kind = coalesce(?, kind) OR served = ?) "
            f"ORDER BY died_at, id{before}"
        )
        self._all_dead = Statement(
            f"SELECT {QUEUED} FROM dead_tickets WHERE (kind = coalesce(?, kind) OR served = ?) ORDER BY died_at, id{before}"
        )
        served = dialect.in_union("served")
        self._depth = Statement(
            f"SELECT {served}, 0, count(*), min(put_at) FROM tickets WHERE state = 0 GROUP BY served "
            f"UNION ALL SELECT {served}, 1, count(*), NULL FROM tickets WHERE state = 1 GROUP BY served "
            # A delay that is over is over, though nobody asked for a ticket since: where there is no worker, this is what calls for one.
            f"UNION ALL SELECT {served}, 0, count(*), min(put_at) FROM tickets WHERE state = 2 AND due <= ? GROUP BY served "
            f"UNION ALL SELECT {served}, 2, count(*), min(put_at) FROM tickets WHERE state = 2 AND due > ? GROUP BY served "
            f"UNION ALL SELECT {served}, 0, count(*), min(put_at) FROM tickets WHERE state = 3 AND \"key\" <> '' GROUP BY served "
            f"UNION ALL SELECT {served}, 3, count(*), NULL FROM dead_tickets GROUP BY served"
        )

    def put(self, tickets: Sequence[Ticket], delay_s: float) -> Script[None]:
        yield from self._dialect.serial(QUEUE)
        now = yield from self._dialect.now()
        yield from self._add([(ticket, 0, now) for ticket in tickets], now, now + max(0.0, delay_s), bounded=True)

    def lease(self, n: int, lease_s: float, kinds: AbstractSet[str]) -> Script[tuple[list[Lease], float | None]]:
        """Leases, or in how many seconds a delay or somebody's lease ends."""
        yield from self._dialect.serial(QUEUE)
        now = yield from self._dialect.now()
        yield from self._bring_back(now)
        lines = yield from self._lines(n, kinds)
        if not any(lines):
            [(due,)] = yield self._next_due()
            return [], None if due is None else max(0.0, due - now)
        state = to_state((yield self._state())[0])
        chosen, state = choose(lines, n, state)
        yield self._lease(now + lease_s, self._dialect.listed([row[-1] for row in chosen]))
        yield from self._store(state)
        return [Lease(Ticket(*row[:9]), attempt_of(row[9], row[10] + 1), row[11] + 1) for row in chosen], None

    def _lines(self, n: int, kinds: AbstractSet[str]) -> Script[list[list[Sequence[Any]]]]:
        """Low, normal, high: of each the first that wait, in the order of their turns."""
        lines: list[list[Sequence[Any]]] = []
        for priority in range(3):
            waiting: list[list[Sequence[Any]]] = []
            for kind in kinds:
                waiting += [(yield self._candidates(kind, priority, n))]
            lines.append(in_turn(waiting))
        return lines

    def _bring_back(self, now: float) -> Script[None]:
        """Make ready what time made ready: leases that ran out, delays that are over."""
        for row in (yield self._expired(now, RETURNED_AT_ONCE)):
            yield from self._return(Row.read(row), now, now)
        due = [Row.read(row) for row in (yield self._due(now, RETURNED_AT_ONCE))]
        for row in due:
            yield self._place(BEHIND if row.ticket.key else READY, now, row.deliveries, row.n)
        yield from self._offer({row.ticket.key for row in due if row.ticket.key})

    def renew(self, leases: Sequence[Lease], lease_s: float) -> Script[list[bool]]:
        yield from self._dialect.serial(QUEUE)
        now = yield from self._dialect.now()
        still = yield from self._still(leases)
        yield self._renew(now + lease_s, self._dialect.listed(_rows_of(leases, still)))
        return still

    def finish(self, leases: Sequence[Lease]) -> Script[list[bool]]:
        yield from self._dialect.serial(QUEUE)
        still = yield from self._still(leases)
        yield self._delete(self._dialect.listed(_rows_of(leases, still)))
        yield from self._offer({lease.ticket.key for lease in leases if lease.ticket.key})
        return still

    def _still(self, leases: Sequence[Lease]) -> Script[list[bool]]:
        """Whether each lease is still its holder's: all that the commonest answers need."""
        rows = yield self._leased(self._dialect.listed([row_of(lease.attempt) for lease in leases]))
        held = {attempt_of(n, tries): ticket_id for n, tries, ticket_id in rows}
        return [held.get(lease.attempt) == lease.ticket.id for lease in leases]

    def give_back(self, leases: Sequence[Lease], delay_s: float) -> Script[list[bool]]:
        yield from self._dialect.serial(QUEUE)
        now = yield from self._dialect.now()
        held = yield from self._holds(leases)
        for row in held.values():
            yield from self._return(row._replace(deliveries=row.deliveries - 1), now + max(0.0, delay_s), now)
        return _told(leases, held)

    def retry(self, leases: Sequence[Lease], delay_s: float) -> Script[list[bool]]:
        """As new at the end of the line: in a new row, so that its place and its fence grow."""
        yield from self._dialect.serial(QUEUE)
        now = yield from self._dialect.now()
        held = yield from self._holds(leases)
        if held:
            yield from self._drop(held.values(), undelivered=False)
            again = [(row.ticket, row.deliveries - 1, row.put_at) for row in held.values()]
            yield from self._add(again, now, now + max(0.0, delay_s), bounded=False)
        return _told(leases, held)

    def bury(self, leases: Sequence[Lease], reason: str) -> Script[list[bool]]:
        yield from self._dialect.serial(QUEUE)
        now = yield from self._dialect.now()
        held = yield from self._holds(leases)
        if held:
            yield from self._drop(held.values(), undelivered=False)
            yield self._forget_dead(self._dialect.listed(row.ticket.id for row in held.values()))
            dead = [row.ticket for row in held.values()]
            yield self._die.many([(*t, t.id, t.served_by, reason, row.deliveries, now) for t, row in zip(dead, held.values(), strict=True)])
        return _told(leases, held)

    def _holds(self, leases: Sequence[Lease]) -> Script[dict[int, Row]]:
        """The rows, by number, of those leases that their holders still have."""
        asked = {lease.attempt: lease for lease in leases}
        rows = yield self._held(self._dialect.listed(row_of(attempt) for attempt in asked))
        found = [Row.read(row) for row in rows]
        return {row.n: row for row in found if _is(asked.get(attempt_of(row.n, row.tries)), row)}

    def depth(self) -> Script[dict[str, Depth]]:
        now = yield from self._dialect.now()
        return to_depths((yield self._depth(now, now)), now)

    def dead(self, kind: str | None, limit: int) -> Script[list[DeadTicket]]:
        return [DeadTicket(Ticket(*row[:9]), *row[9:]) for row in (yield self._dead(kind, kind, limit))]

    def redrive(self, run_ids: Sequence[str] | None, kind: str | None) -> Script[list[str]]:
        yield from self._dialect.serial(QUEUE)
        now = yield from self._dialect.now()
        chosen = (
            (yield self._all_dead(kind, kind)) if run_ids is None else (yield self._some_dead(self._dialect.listed(run_ids), kind, kind))
        )
        revived = [Ticket(*row) for row in chosen]
        yield self._forget_dead(self._dialect.listed(ticket.id for ticket in revived))
        yield from self._add([(ticket, 0, now) for ticket in revived], now, now, bounded=False)
        return list(dict.fromkeys(ticket.run_id for ticket in revived))

    def cancel(self, run_ids: Sequence[str]) -> Script[int]:
        yield from self._dialect.serial(QUEUE)
        rows: list[Row] = []
        for run_id in set(run_ids):
            rows += map(Row.read, (yield self._of_run(f"{run_id}:", f"{run_id};", run_id)))
        if rows:
            yield from self._drop(rows, undelivered=True)
        return len(rows)


def to_depths(rows: Sequence[Sequence[Any]], now: float) -> dict[str, Depth]:
    """Rows of (served, place, count, oldest put) by what serves them."""
    counts: dict[str, list[int]] = {}
    oldest: dict[str, float] = {}
    for served, place, count, put_at in rows:
        counts.setdefault(served, [0, 0, 0, 0])[(0, 2, 1, 3)[place]] += count
        if put_at is not None:
            oldest[served] = min(put_at, oldest.get(served, put_at))
    return {
        served: Depth(count[0], count[1], count[2], count[3], max(0.0, now - oldest.get(served, now))) for served, count in counts.items()
    }


def _is(lease: Lease | None, row: Row) -> bool:
    return lease is not None and lease.ticket.id == row.ticket.id


def _rows_of(leases: Sequence[Lease], still: Sequence[bool]) -> list[int]:
    return [row_of(lease.attempt) for lease, mine in zip(leases, still, strict=True) if mine]


def _told(leases: Sequence[Lease], held: dict[int, Row]) -> list[bool]:
    return [
        (row := held.get(row_of(lease.attempt))) is not None and lease.attempt == attempt_of(row.n, row.tries) and _is(lease, row)
        for lease in leases
    ]
