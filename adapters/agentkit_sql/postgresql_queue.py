"""The queue on PostgreSQL: what happens to tickets without a key, the most by far, each in one statement that is a transaction by itself.

A key ties tickets to each other, so what changes a key's line goes through the scripts that all databases share.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from agentkit.clock import SYSTEM
from agentkit.errors import QueueFull
from agentkit.ports.queue import Depth, Lease, Ticket
from agentkit_sql.dialect import Statement
from agentkit_sql.news import OTHER, QUEUE
from agentkit_sql.postgresql import PostgresDialect, by_column, integers
from agentkit_sql.queue import SqlQueue
from agentkit_sql.queue_moves import DELAYED, READY, RETRY_AFTER_S
from agentkit_sql.queue_scripts import QUEUE as QUEUE_LOCK
from agentkit_sql.queue_scripts import QueueScripts, to_depths
from agentkit_sql.queue_turns import TRIES_BITS, attempt_of, row_of
from agentkit_sql.rows import QUEUED
from agentkit_sql.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock
    from agentkit_sql.dialect import Script
    from agentkit_sql.port import SqlSettings

T = TypeVar("T")

NOW = "(SELECT coalesce(?::float8, extract(epoch FROM clock_timestamp())::float8) AS now)"
PRIORITY = Ticket._fields.index("priority")
QUIET = "(SELECT set_config('synchronous_commit', 'off', true)) AS quiet"
"""Does not wait for the disk: an answer that is lost with the server is one that comes late, and the claim sorts it out."""

# Of two puts of one id at the same time the second fails on the unique index, looks again, and finds it. `turns` gives each tenant the
# next places of its line: after its last ones, or where the line stands now. The tickets of one line come one after another,
# and their ids are made here as `Ticket.id` makes them.
# The twin is looked for in a subquery of its own: as a join it would be planned once for each connection, perhaps while few wait, and then
# read all that wait for each put. Of a column whose values are all alike one is sent, and `unnest` fills it up with NULLs.
PUT = (
    "WITH given AS (SELECT ?::text[] AS kinds, ?::text[] AS versions, ?::text[] AS tenants, ?::text[] AS traces, "
    "?::text::bigint[] AS weights), "
    "asked AS (SELECT i, run_id, coalesce(kind, kinds[1]) AS kind, coalesce(version, versions[1]) AS version, wake, "
    "coalesce(tenant, tenants[1]) AS tenant, least(greatest(priority, 0), 2) AS priority, coalesce(trace, traces[1]) AS trace, "
    "coalesce(weight, weights[1]) AS weight, run_id || ':' || wake AS id "
    "FROM given, unnest(?::text[], ?::text::bigint[], ?::text::bigint[], kinds, versions, tenants, traces, weights) "
    "WITH ORDINALITY AS one(run_id, wake, priority, kind, version, tenant, trace, weight, i)), "
    "fresh AS MATERIALIZED (SELECT *, row_number() OVER (ORDER BY i) AS place FROM asked "
    "WHERE (SELECT true FROM tickets WHERE tickets.id = asked.id AND state <> 1) IS NULL), "
    "counted AS (SELECT count(*) AS n FROM fresh), "
    "room AS (UPDATE queue_state SET last_n = last_n + n, waiting = waiting + n FROM counted WHERE one = 1 AND n > 0 AND waiting + n <= ? "
    "RETURNING last_n - n AS last, turn0, turn1, turn2), "
    "line AS MATERIALIZED (SELECT tenant, priority, last, count(*) AS length, min(place) AS first, "
    "greatest(max(weight), 1)::float8 AS weight, "
    "CASE priority WHEN 0 THEN turn0 WHEN 1 THEN turn1 ELSE turn2 END AS stands FROM fresh, room GROUP BY tenant, priority, last, stands), "
    "taken AS (INSERT INTO turns (tenant, priority, turn) SELECT tenant, priority, stands + length / weight FROM line "
    "ON CONFLICT (tenant, priority) DO UPDATE SET turn = (SELECT greatest(turns.turn, stands) + length / weight FROM line "
    "WHERE line.tenant = turns.tenant AND line.priority = turns.priority) RETURNING tenant, priority, turn), "
    "places AS MATERIALIZED (SELECT tenant, priority, last, turn, length + first - 1 AS until, weight AS divisor "
    "FROM line JOIN taken USING (tenant, priority)), "
    f"added AS (INSERT INTO tickets ({QUEUED}, n, id, served, state, turn, due, put_at, tries, deliveries) "
    "SELECT run_id, kind, version, wake, tenant, priority, '', trace, weight, last + place, id, kind || '@' || version, "
    f"CASE WHEN delay > 0 THEN {DELAYED} ELSE {READY} END, turn - (until - place) / divisor, now + delay, now, 0, 0 "
    f"FROM fresh JOIN places USING (tenant, priority), {NOW} AS clock, (SELECT ?::float8 AS delay) AS later) "
    "SELECT n, EXISTS (SELECT 1 FROM room) FROM counted"
)
# By their numbers, whatever the planner thinks of empty tables: no partial index is made for this state, and IS TRUE keeps what is held a
# list that is hashed, where a join would compare each with each.
HELD = "WITH held AS MATERIALIZED (SELECT * FROM unnest(?::text::bigint[], ?::text::bigint[], ?::text[]) AS held(n, tries, id))"
IS_HELD = "n = ANY(ARRAY(SELECT n FROM held)) AND ((n, tries, id) IN (SELECT * FROM held)) IS TRUE AND state + 0 = 1"
FINISH = f"{HELD} DELETE FROM tickets USING {QUIET} WHERE {IS_HELD} AND key = '' RETURNING n"
RENEW = f"{HELD} UPDATE tickets SET due = now + ? FROM {QUIET}, {NOW} AS clock WHERE {IS_HELD} RETURNING n"


LEASED = f"{QUEUED}, n, tries, deliveries"
# Nothing is due to come back, and one priority waits alone: then the first of the line are leased, and nothing is to be chosen.
LEASE = (
    f"WITH clock AS {NOW}, "
    "calm AS (SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM tickets WHERE state = 1 AND due <= (SELECT now FROM clock)) "
    "AND NOT EXISTS (SELECT 1 FROM tickets WHERE state = 2 AND due <= (SELECT now FROM clock))), "
    "asked AS (SELECT unnest(?::text[]) AS served), "
    "class AS (SELECT min(p) AS p FROM calm, (VALUES (0), (1), (2)) AS class(p) WHERE EXISTS "
    "(SELECT 1 FROM asked, LATERAL (SELECT 1 FROM tickets WHERE tickets.served = asked.served AND priority = p AND state = 0 LIMIT 1) "
    "AS one) HAVING count(*) = 1), "
    "chosen AS (SELECT first.n FROM class, asked, LATERAL (SELECT n, turn FROM tickets WHERE tickets.served = asked.served "
    "AND priority = p AND state = 0 ORDER BY turn, n LIMIT ?) AS first ORDER BY first.turn, first.n LIMIT ?), "
    "leased AS (UPDATE tickets SET state = 1, tries = tries + 1, deliveries = deliveries + 1, due = now + ? FROM clock "
    f"WHERE n = ANY(ARRAY(SELECT n FROM chosen)) RETURNING {LEASED}, turn), "
    "reached AS (SELECT count(*) AS number, max(turn) AS turn FROM leased), "
    "kept AS (UPDATE queue_state SET waiting = waiting - number, "
    + ", ".join(f"turn{p} = CASE p WHEN {p} THEN greatest(turn{p}, turn) ELSE turn{p} END" for p in range(3))
    + f" FROM reached, class WHERE one = 1) SELECT {LEASED} FROM leased ORDER BY turn, n"
)
WAITING = (
    f"SELECT first.* FROM unnest(?::text[]) AS asked(served), (VALUES (0), (1), (2)) AS class(p), LATERAL (SELECT {LEASED}, put_at, "
    "turn, n AS last FROM tickets WHERE tickets.served = asked.served AND priority = p AND state = 0 ORDER BY turn, n LIMIT ?) AS first "
    "ORDER BY turn, last"
)
LONG_COUNT_S = 0.1  # the count of some hundred thousand tickets: every process asks for it once a second
COUNTING = 10
LOOK_AGAIN_S = 1.0  # while waiting: what is put is told at once, and what falls due is known beforehand


class PostgresQueueScripts(QueueScripts):
    """The scripts that hold the lock of the line, with fewer round trips under it."""

    def __init__(self, dialect: PostgresDialect, max_depth: int) -> None:
        super().__init__(dialect, max_depth)
        self._given = dialect
        self._plain, self._waiting_of = Statement(LEASE), Statement(WAITING)
        depth = self._depth.sql.replace("?", "now")
        self._depth_now = Statement(f"SELECT depth.*, now FROM {NOW} AS clock, LATERAL ({depth}) AS depth")

    def lease(self, n: int, lease_s: float, kinds: AbstractSet[str]) -> Script[tuple[list[Lease], float | None]]:
        """Leases, or in how many seconds a delay or somebody's lease ends."""
        yield from self._dialect.serial(QUEUE_LOCK)
        rows = yield self._plain(self._given.given_now, list(kinds), n, n, lease_s)
        if rows:
            return [Lease(Ticket(*row[:9]), attempt_of(row[9], row[10]), row[11]) for row in rows], None
        return (yield from super().lease(n, lease_s, kinds))

    def depth(self) -> Script[dict[str, Depth]]:
        """How much waits, in one round trip."""
        rows = yield self._depth_now(self._given.given_now)
        return to_depths([row[:4] for row in rows], rows[0][4]) if rows else {}

    def _lines(self, n: int, kinds: AbstractSet[str]) -> Script[list[list[Sequence[Any]]]]:
        lines: list[list[Sequence[Any]]] = [[], [], []]
        for row in (yield self._waiting_of(list(kinds), n)):
            priority: int = row[PRIORITY]
            lines[priority].append(row)
        return lines


class PostgresQueue(SqlQueue):
    """A `Queue` on PostgreSQL. What `put` acknowledges is on the disk; answers do not wait for it."""

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        dialect = settings.dialect(clock)
        assert isinstance(dialect, PostgresDialect)
        self._scripts = PostgresQueueScripts(dialect, settings.max_depth)
        self._depths: dict[str, Depth] = {}
        self._depths_until = 0.0
        if clock is SYSTEM:
            self.look_again_s = LOOK_AGAIN_S

    @property
    def _now(self) -> float | None:
        """None where the server's clock decides."""
        return None if self.clock is SYSTEM else self.clock.time()

    @property
    def _server(self) -> Server:
        server = self.database
        assert isinstance(server, Server)
        return server

    async def depth(self) -> dict[str, Depth]:
        """How much waits, for each `name@version`. Of a long line it is told anew only after ten times as long as it took to count."""
        began = time.monotonic()
        if began >= self._depths_until:
            self._depths = await super().depth()
            took_s = time.monotonic() - began
            self._depths_until = time.monotonic() + COUNTING * took_s if took_s > LONG_COUNT_S else 0.0
        return self._depths

    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        """Put tickets; those whose id is still undelivered are dropped. Raises `QueueFull`: nothing of the call was written."""
        if not tickets or any(ticket.key for ticket in tickets):
            if tickets:
                await self.database.write(lambda: self._scripts.put(tickets, delay_s), sync=True, topic=QUEUE)
            return
        run_ids, kinds, versions, wakes, tenants, priorities, _, traces, weights = by_column(_by_line(tickets))
        columns = [*map(_once, (kinds, versions, tenants, traces)), integers(_once(weights))]
        params = [*columns, run_ids, integers(wakes), integers(priorities), self.settings.max_depth, self._now, max(0.0, delay_s)]
        [(count, written)] = await self._server.statement(PUT, params, topic=QUEUE)
        if count and not written:
            raise QueueFull("queue", self.settings.max_depth, RETRY_AFTER_S)

    async def finish(self, leases: Sequence[Lease]) -> list[bool]:
        """Take delivered tickets out of the queue. False: another has it, or nobody."""
        plain = [lease for lease in leases if not lease.ticket.key]
        keyed = [lease for lease in leases if lease.ticket.key]
        gone = {row[0] for row in (await self._server.statement(FINISH, _held(plain), topic=OTHER) if plain else ())}
        others = iter(await super().finish(keyed) if keyed else ())
        return [next(others) if lease.ticket.key else row_of(lease.attempt) in gone for lease in leases]

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> list[bool]:
        """Keep leases for `lease_s` from now. False: another has it, or nobody."""
        if not leases:
            return []
        kept = {row[0] for row in await self._server.statement(RENEW, [*_held(leases), lease_s, self._now], topic=OTHER)}
        return [row_of(lease.attempt) in kept for lease in leases]


def _once(column: list[T]) -> list[T]:
    """One of them, where all are alike."""
    return column[:1] if column.count(column[0]) == len(column) else column


def _by_line(tickets: Sequence[Ticket]) -> list[Ticket]:
    """The first of each id, and those of one tenant and priority together."""
    first: dict[str, Ticket] = {}
    for ticket in tickets:
        first.setdefault(ticket.id, ticket)
    lines: dict[tuple[str, int], list[Ticket]] = {}
    for ticket in first.values():
        lines.setdefault((ticket.tenant, min(max(ticket.priority, 0), 2)), []).append(ticket)
    return [ticket for line in lines.values() for ticket in line]


def _held(leases: Sequence[Lease]) -> list[Any]:
    tries = (1 << TRIES_BITS) - 1
    rows = integers([row_of(lease.attempt) for lease in leases])
    return [rows, integers([lease.attempt & tries for lease in leases]), [lease.ticket.id for lease in leases]]
