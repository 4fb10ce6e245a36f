"""The scripts of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agentkit.errors import QueueFull
from agentkit.ports.queue import DeadTicket, Depth, Lease, Ticket
from agentkit_sql.dialect import Statement
from agentkit_sql.queue_turns import QueueState, attempt_of, choose, in_turn, row_of, to_state
from agentkit_sql.rows import TICKET

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit_sql.dialect import Script, SqliteDialect

READY, LEASED, DELAYED, BEHIND = range(4)
"""BEHIND: another ticket of its key comes first."""
RETURNED_AT_ONCE = 500  # in one lease: bounds its transaction
RETRY_AFTER_S = 1.0  # a full queue is many seconds of work: sooner would only ask again in vain


class Row(NamedTuple):
    """A ticket's row, as the answers need it."""

    n: int
    tries: int
    deliveries: int
    put_at: float
    ticket: Ticket

    @classmethod
    def read(cls, row: Sequence[Any]) -> Row:
        return cls(row[8], row[9], row[10], row[11], Ticket(*row[:8]))


class QueueScripts:
    """What the queue does, each in one transaction."""

    def __init__(self, dialect: SqliteDialect, max_depth: int) -> None:
        self._dialect, self._max_depth = dialect, max_depth
        among_n, among_id, before = dialect.among("n"), dialect.among("id"), dialect.exclusive
        self._state = Statement(
            f"SELECT last_n, waiting, credit0, credit1, credit2, turn0, turn1, turn2 FROM queue_state WHERE one = 1{before}"
        )
        self._keep = Statement(
            "UPDATE queue_state SET last_n = ?, waiting = ?, credit0 = ?, credit1 = ?, credit2 = ?, turn0 = ?, turn1 = ?, turn2 = ? "
            "WHERE one = 1"
        )
        self._waiting = Statement("UPDATE queue_state SET waiting = waiting + ? WHERE one = 1")
        self._twins = Statement(f"SELECT id FROM tickets WHERE state <> 1 AND {among_id}")
        self._turn = Statement(f"SELECT turn FROM turns WHERE tenant = ? AND priority = ?{before}")
        self._first_turn = Statement("INSERT INTO turns (tenant, priority, turn) VALUES (?, ?, ?)")
        self._next_turn = Statement("UPDATE turns SET turn = ? WHERE tenant = ? AND priority = ?")
        self._past_turns = Statement("DELETE FROM turns WHERE priority = ? AND turn <= ?")
        self._insert = Statement(
            f"INSERT INTO tickets ({TICKET}, n, id, served, state, turn, due, put_at, tries, deliveries) VALUES ({', '.join('?' * 17)})"
        )
        row = f"SELECT {TICKET}, n, tries, deliveries, put_at"
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
        self._delete = Statement(f"DELETE FROM tickets WHERE {among_n}")
        self._twin = Statement(f"SELECT n, deliveries, due FROM tickets WHERE state <> 1 AND id = ?{before}")
        self._place = Statement("UPDATE tickets SET state = ?, due = ?, deliveries = ? WHERE n = ?")
        self._key_leased = Statement('SELECT 1 FROM tickets WHERE "key" <> \'\' AND "key" = ? AND state = 1 LIMIT 1')
        self._key_head = Statement('SELECT min(n) FROM tickets WHERE "key" <> \'\' AND "key" = ? AND state IN (0, 3)')
        self._to_front = Statement("UPDATE tickets SET state = 0 WHERE n = ? AND state = 3")
        self._behind = Statement('UPDATE tickets SET state = 3 WHERE "key" <> \'\' AND "key" = ? AND state = 0 AND n <> ?')
        # Found by the index of ids, which begin with the run's: an index of its own would cost every ticket.
        self._of_run = Statement(f"{row} FROM tickets WHERE state <> 1 AND id >= ? AND id < ? AND run_id = ?{before}")
        self._forget_dead = Statement(f"DELETE FROM dead_tickets WHERE {among_id}")
        self._die = Statement(
            f"INSERT INTO dead_tickets ({TICKET}, id, served, reason, deliveries, died_at) VALUES ({', '.join('?' * 13)})"
        )
        self._dead = Statement(
            f"SELECT {TICKET}, reason, deliveries, died_at FROM dead_tickets WHERE (kind = coalesce(?, kind) OR served = ?) "
            "ORDER BY died_at, id LIMIT ?"
        )
        self._some_dead = Statement(
            f"SELECT {TICKET} FROM dead_tickets WHERE {dialect.among('run_id')} AND (kind = coalesce(?, kind) OR served = ?) "
            f"ORDER BY died_at, id{before}"
        )
        self._all_dead = Statement(
            f"SELECT {TICKET} FROM dead_tickets WHERE (kind = coalesce(?, kind) OR served = ?) ORDER BY died_at, id{before}"
        )
        self._depth = Statement(
            "SELECT served, 0, count(*), min(put_at) FROM tickets WHERE state = 0 GROUP BY served "
            "UNION ALL SELECT served, 1, count(*), NULL FROM tickets WHERE state = 1 GROUP BY served "
            "UNION ALL SELECT served, 2, count(*), min(put_at) FROM tickets WHERE state = 2 GROUP BY served "
            "UNION ALL SELECT served, 0, count(*), min(put_at) FROM tickets WHERE state = 3 AND \"key\" <> '' GROUP BY served "
            "UNION ALL SELECT served, 3, count(*), NULL FROM dead_tickets GROUP BY served"
        )

    def put(self, tickets: Sequence[Ticket], delay_s: float) -> Script[None]:
        now = yield from self._dialect.now()
        yield from self._add([(ticket, 0, now) for ticket in tickets], now, now + max(0.0, delay_s), bounded=True)

    def _add(self, new: Iterable[tuple[Ticket, int, float]], now: float, due: float, *, bounded: bool) -> Script[None]:
        """Insert (ticket, deliveries, put at) at the end of their lines, but for those that have an undelivered copy."""
        fresh: dict[str, tuple[Ticket, int, float]] = {}
        for one in new:
            fresh.setdefault(one[0].id, one)
        for (twin,) in (yield self._twins(self._dialect.listed(fresh))):
            del fresh[twin]
        if not fresh:
            return
        state = to_state((yield self._state())[0])
        if bounded and state.waiting + len(fresh) > self._max_depth:
            raise QueueFull("queue", self._max_depth, RETRY_AFTER_S)
        turns: dict[tuple[str, int], float] = {}
        rows: list[tuple[object, ...]] = []
        keys: set[str] = set()
        for n, (ticket, deliveries, put_at) in enumerate(fresh.values(), state.last_n + 1):
            line = ticket.tenant, min(max(ticket.priority, 0), 2)
            if line not in turns:
                turns[line] = yield from self._begin(line, state)
            turns[line] += 1
            place = DELAYED if due > now else BEHIND if ticket.key else READY
            if place == BEHIND:
                keys.add(ticket.key)
            ticket = ticket._replace(priority=line[1])  # noqa: PLW2901
            rows.append((*ticket, n, ticket.id, ticket.served_by, place, turns[line], due, put_at, 0, deliveries))
        yield self._insert.many(rows)
        yield self._next_turn.many([(turn, *line) for line, turn in turns.items()])
        yield from self._offer(keys)
        yield from self._store(state._replace(last_n=state.last_n + len(rows), waiting=state.waiting + len(rows)))

    def _begin(self, line: tuple[str, int], state: QueueState) -> Script[float]:
        """The turn after which a tenant's next ticket of a priority comes."""
        found = yield self._turn(*line)
        if not found:
            yield self._past_turns(line[1], state.turns[line[1]])
            yield self._first_turn(*line, 0.0)
        return max(found[0][0] if found else 0.0, state.turns[line[1]])

    def _store(self, state: QueueState) -> Script[None]:
        yield self._keep(state.last_n, state.waiting, *state.credits, *state.turns)

    def lease(self, n: int, lease_s: float, kinds: AbstractSet[str]) -> Script[tuple[list[Lease], float | None]]:
        """Leases, or in how many seconds a delay or somebody's lease ends."""
        now = yield from self._dialect.now()
        yield from self._bring_back(now)
        lines: list[list[Sequence[Any]]] = []
        for priority in range(3):
            waiting: list[list[Sequence[Any]]] = []
            for kind in kinds:
                waiting += [(yield self._candidates(kind, priority, n))]
            lines.append(in_turn(waiting))
        if not any(lines):
            [(due,)] = yield self._next_due()
            return [], None if due is None else max(0.0, due - now)
        state = to_state((yield self._state())[0])
        chosen, state = choose(lines, n, state)
        yield self._lease(now + lease_s, self._dialect.listed([row[-1] for row in chosen]))
        yield from self._store(state)
        return [Lease(Ticket(*row[:8]), attempt_of(row[8], row[9] + 1), row[10] + 1) for row in chosen], None

    def _bring_back(self, now: float) -> Script[None]:
        """Make ready what time made ready: leases that ran out, delays that are over."""
        for row in (yield self._expired(now, RETURNED_AT_ONCE)):
            yield from self._return(Row.read(row), now, now)
        due = [Row.read(row) for row in (yield self._due(now, RETURNED_AT_ONCE))]
        for row in due:
            yield self._place(BEHIND if row.ticket.key else READY, now, row.deliveries, row.n)
        yield from self._offer({row.ticket.key for row in due if row.ticket.key})

    def _offer(self, keys: Iterable[str]) -> Script[None]:
        """Let the first ticket of each key stand in line, unless one of its tickets is leased."""
        for key in sorted(keys):
            if (yield self._key_leased(key)):
                yield self._behind(key, 0)
                continue
            [(head,)] = yield self._key_head(key)
            if head is not None:
                yield self._to_front(head)
                yield self._behind(key, head)

    def renew(self, leases: Sequence[Lease], lease_s: float) -> Script[list[bool]]:
        now = yield from self._dialect.now()
        still = yield from self._still(leases)
        yield self._renew(now + lease_s, self._dialect.listed(_rows_of(leases, still)))
        return still

    def finish(self, leases: Sequence[Lease]) -> Script[list[bool]]:
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
        now = yield from self._dialect.now()
        held = yield from self._holds(leases)
        for row in held.values():
            yield from self._return(row._replace(deliveries=row.deliveries - 1), now + max(0.0, delay_s), now)
        return _told(leases, held)

    def retry(self, leases: Sequence[Lease], delay_s: float) -> Script[list[bool]]:
        """As new at the end of the line: in a new row, so that its place and its fence grow."""
        now = yield from self._dialect.now()
        held = yield from self._holds(leases)
        if held:
            yield from self._drop(held.values(), undelivered=False)
            again = [(row.ticket, row.deliveries - 1, row.put_at) for row in held.values()]
            yield from self._add(again, now, now + max(0.0, delay_s), bounded=False)
        return _told(leases, held)

    def bury(self, leases: Sequence[Lease], reason: str) -> Script[list[bool]]:
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

    def _drop(self, rows: Iterable[Row], *, undelivered: bool) -> Script[None]:
        rows = list(rows)
        yield self._delete(self._dialect.listed(row.n for row in rows))
        if undelivered:
            yield self._waiting(-len(rows))
        yield from self._offer({row.ticket.key for row in rows if row.ticket.key})

    def _return(self, row: Row, due: float, now: float) -> Script[None]:
        """Make a leased ticket undelivered again, in its old place; of two copies the one that is due first stays."""
        for twin_n, deliveries, twin_due in (yield self._twin(row.ticket.id)):
            row = row._replace(deliveries=max(row.deliveries, deliveries))
            stays, goes = (twin_n, row.n) if twin_due <= due else (row.n, twin_n)
            yield self._delete(self._dialect.listed([goes]))
            yield self._waiting(-1)
            row, due = row._replace(n=stays), min(due, twin_due)
        yield self._place(DELAYED if due > now else BEHIND if row.ticket.key else READY, due, row.deliveries, row.n)
        yield self._waiting(1)
        yield from self._offer({row.ticket.key} if row.ticket.key else ())

    def depth(self) -> Script[dict[str, Depth]]:
        now = yield from self._dialect.now()
        counts: dict[str, list[int]] = {}
        oldest: dict[str, float] = {}
        for served, place, count, put_at in (yield self._depth()):
            counts.setdefault(served, [0, 0, 0, 0])[(0, 2, 1, 3)[place]] += count
            if put_at is not None:
                oldest[served] = min(put_at, oldest.get(served, put_at))
        return {
            served: Depth(count[0], count[1], count[2], count[3], max(0.0, now - oldest.get(served, now)))
            for served, count in counts.items()
        }

    def dead(self, kind: str | None, limit: int) -> Script[list[DeadTicket]]:
        return [DeadTicket(Ticket(*row[:8]), *row[8:]) for row in (yield self._dead(kind, kind, limit))]

    def redrive(self, run_ids: Sequence[str] | None, kind: str | None) -> Script[list[str]]:
        now = yield from self._dialect.now()
        chosen = (
            (yield self._all_dead(kind, kind)) if run_ids is None else (yield self._some_dead(self._dialect.listed(run_ids), kind, kind))
        )
        revived = [Ticket(*row) for row in chosen]
        yield self._forget_dead(self._dialect.listed(ticket.id for ticket in revived))
        yield from self._add([(ticket, 0, now) for ticket in revived], now, now, bounded=False)
        return list(dict.fromkeys(ticket.run_id for ticket in revived))

    def cancel(self, run_ids: Sequence[str]) -> Script[int]:
        rows: list[Row] = []
        for run_id in set(run_ids):
            rows += map(Row.read, (yield self._of_run(f"{run_id}:", f"{run_id};", run_id)))
        if rows:
            yield from self._drop(rows, undelivered=True)
        return len(rows)


def _is(lease: Lease | None, row: Row) -> bool:
    return lease is not None and lease.ticket.id == row.ticket.id


def _rows_of(leases: Sequence[Lease], still: Sequence[bool]) -> list[int]:
    return [row_of(lease.attempt) for lease, mine in zip(leases, still, strict=True) if mine]


def _told(leases: Sequence[Lease], held: dict[int, Row]) -> list[bool]:
    return [
        (row := held.get(row_of(lease.attempt))) is not None and lease.attempt == attempt_of(row.n, row.tries) and _is(lease, row)
        for lease in leases
    ]
