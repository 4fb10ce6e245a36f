"""Where tickets stand: the moves that the operations of the queue are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agentkit.errors import QueueFull
from agentkit.ports.queue import Ticket
from agentkit_sql.dialect import Statement
from agentkit_sql.queue_turns import QueueState, to_state
from agentkit_sql.rows import QUEUED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentkit_sql.dialect import Dialect, Script

READY, LEASED, DELAYED, BEHIND = range(4)
"""BEHIND: another ticket of its key comes first."""
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
        return cls(row[9], row[10], row[11], row[12], Ticket(*row[:9]))


class TicketMoves:
    """Tickets enter the line, leave it, and come back. Called inside a transaction."""

    def __init__(self, dialect: Dialect, max_depth: int) -> None:
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
        self._insert = dialect.bulk("tickets", f"{QUEUED}, n, id, served, state, turn, due, put_at, tries, deliveries")
        self._delete = Statement(f"DELETE FROM tickets WHERE {among_n}")
        self._twin = Statement(f"SELECT n, deliveries, due FROM tickets WHERE state <> 1 AND id = ?{before}")
        self._place = Statement("UPDATE tickets SET state = ?, due = ?, deliveries = ? WHERE n = ?")
        self._key_leased = Statement('SELECT 1 FROM tickets WHERE "key" <> \'\' AND "key" = ? AND state = 1 LIMIT 1')
        self._key_head = Statement('SELECT min(n) FROM tickets WHERE "key" <> \'\' AND "key" = ? AND state IN (0, 3)')
        self._to_front = Statement("UPDATE tickets SET state = 0 WHERE n = ? AND state = 3")
        self._behind = Statement('UPDATE tickets SET state = 3 WHERE "key" <> \'\' AND "key" = ? AND state = 0 AND n <> ?')

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
            turns[line] += ticket.stride
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
