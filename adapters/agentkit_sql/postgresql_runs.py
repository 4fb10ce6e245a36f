"""Runs on PostgreSQL: what a worker does all the time, each in one statement that is a transaction by itself.

A process that stops in the middle of a transaction would block a take-over until the server ends it; within one statement there is no
middle. Each statement does what can be told from the rows as they are; what is left over (a repeated write, a lost claim, an inbox that
moved on) goes through the scripts that all databases share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.clock import SYSTEM
from agentkit.ports.ids import check_id
from agentkit.ports.records import Claimed, Created, RunStatus, Written
from agentkit_sql.news import OTHER, RUNS
from agentkit_sql.port import LANE
from agentkit_sql.postgresql import PostgresSettings, by_column, integers, numbers, packed, unnested
from agentkit_sql.postgresql_advice import ASKED as ASKED_SETTINGS
from agentkit_sql.postgresql_advice import FACTS, advice
from agentkit_sql.rows import COLUMNS, ENTRY, FIELDS, TO_TELL, to_run
from agentkit_sql.runs_create import row_of
from agentkit_sql.runs_write import SUSPECT_CRASHES, Known, follows
from agentkit_sql.server_runs import ServerRuns
from agentkit_sql.within import Within, connection_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.ports.records import ClaimRefusal, Entry, Finding, NewRun, ParentClaim, RunWrite

NOW = "(SELECT coalesce(?::float8, extract(epoch FROM clock_timestamp())::float8) AS now)"
PURGED_AT_ONCE = 20  # runs, with their journals: of a thousand entries each that is a tenth of a second
TIMES = ("ticketed_at", "wake_at", "created_at", "updated_at")
"""Columns of a new run that are handed over as seconds from now."""

# A session plans a statement once, perhaps while its tables are empty and every way looks as short as any other. So there must be only one:
# each run by its id or its number. Hence a subquery with OFFSET 0, which is not turned into a join that reads all runs; an owner that no
# index is searched for; and a status that no partial index is made for.
MINE = "owner IS NOT DISTINCT FROM ?"
READY = "status + 0 = 1"

# The row of the worker is share-locked against a take-over, which marks it dead first.
ME = (
    "me AS MATERIALIZED (SELECT set_config('synchronous_commit', CASE WHEN ? THEN current_setting('synchronous_commit') ELSE 'off' END, "
    "true) FROM workers WHERE worker_id = ? AND dead = 0 FOR SHARE)"
)
# The commonest batches by far: entries alone, of runs whose numbers and last entries are known here; and one entry, of one run alone.
# They look for no conflict, which costs a tenth: what is not known to be new goes the other way.
_LOCKED = "FROM workers WHERE worker_id = ? AND dead = 0 FOR SHARE"
_LOCK = f"WITH me AS MATERIALIZED (SELECT 1 {_LOCKED})"
_LOCK_RELAXED = f"WITH me AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) {_LOCKED})"
_ENTRIES = ", ".join(["?::text::bigint[]"] * 4 + ["?::text[]", "?::text::bigint[]", "?::text[]", "?::text::bigint[]", "?::bytea[]"])
_WRITTEN = "RETURNING run_no, (SELECT inbox_seq FROM runs WHERE no = run_no)"
_ADD = (
    f"INSERT INTO journal ({ENTRY}) SELECT entry.no, seq, entry.fence, kind, key, attempt, fp, codec, body, at_ms, took_us "
    f"FROM me, unnest({_ENTRIES}, ?::text::bigint[], ?::text::bigint[]) "
    "AS entry(no, fence, seq, kind, key, attempt, fp, codec, body, at_ms, took_us) "
    f"CROSS JOIN LATERAL (SELECT 1 FROM runs WHERE runs.no = entry.no AND runs.fence = entry.fence AND {MINE} OFFSET 0) AS run {_WRITTEN}"
)
_ADD_ONE = (
    f"INSERT INTO journal ({ENTRY}) SELECT no, ?, fence, ?, ?, ?, ?, ?, ?, ?, ? FROM me, runs "
    f"WHERE no = ? AND fence = ? AND {MINE} {_WRITTEN}"
)
ADD, ADD_RELAXED = f"{_LOCK} {_ADD}", f"{_LOCK_RELAXED} {_ADD}"
ADD_ONE, ADD_ONE_RELAXED = f"{_LOCK} {_ADD_ONE}", f"{_LOCK_RELAXED} {_ADD_ONE}"
ASKED = "run_id text, fence bigint, first bigint"
CHANGE = "change bool, clear bool, new bigint, seen bigint, due float8, waits text, put bool, made bytea"
"""What is asked of each run: its claim and where its journal ends; and the change of its row."""


def _mine(asked: str) -> str:
    """The runs that are the worker's under the fence that it says, and whose journals go on where it says."""
    columns = [column.split() for column in asked.split(", ")]
    arrays = ", ".join(f"?::text::{kind}[]" if kind in ("bigint", "float8") else f"?::{kind}[]" for _, kind in columns)
    others = "".join(f", {name}" for name, _ in columns[3:])
    return (
        f"mine AS MATERIALIZED (SELECT i, no, asked.run_id, asked.fence, inbox_seq{others} "
        f"FROM me, unnest({arrays}) WITH ORDINALITY AS asked({', '.join(name for name, _ in columns)}, i) "
        f"CROSS JOIN LATERAL (SELECT no, inbox_seq FROM runs WHERE runs.run_id = asked.run_id AND {MINE} AND runs.fence = asked.fence "
        "OFFSET 0) AS run "
        "WHERE first = 0 OR first = 1 + coalesce((SELECT max(seq) FROM journal WHERE run_no = no), 0))"
    )


_FROM_ENTRY = ENTRY.replace("run_no", "no").replace("fence", "mine.fence").replace('"key"', "entry.key")
ADDED = (
    f"added AS (INSERT INTO journal ({ENTRY}) SELECT {_FROM_ENTRY} FROM unnest(?::text::bigint[], ?::text::bigint[], "
    "?::text::bigint[], ?::text[], ?::text::bigint[], ?::text[], ?::text::bigint[], ?::bytea[], ?::text::bigint[], ?::text::bigint[]) "
    "AS entry(i, seq, kind, key, attempt, fp, codec, body, at_ms, took_us) JOIN mine USING (i) ON CONFLICT DO NOTHING RETURNING run_no)"
)
TAKEN = (
    "taken AS (UPDATE inbox SET taken_seq = take.seq FROM unnest(?::bigint[], ?::text[], ?::bigint[]) AS take(i, id, seq) "
    "JOIN mine USING (i) WHERE inbox.run_id = mine.run_id AND inbox.id = take.id AND taken_seq IS NULL)"
)
JOINED = (
    'joined AS (INSERT INTO joins (run_id, "key", total, need_good, max_bad, slots, good, bad, active, fired) '
    "SELECT mine.run_id, one.key, total, need_good, max_bad, slots, 0, 0, 0, 0 "
    "FROM unnest(?::bigint[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[]) "
    "AS one(i, key, total, need_good, max_bad, slots) JOIN mine USING (i) ON CONFLICT DO NOTHING)"
)
# What is released, and whose crashes are forgotten: one UPDATE, for a statement changes a row only once.
CHANGED = (
    "changed AS (UPDATE runs SET crashes = CASE WHEN clear THEN 0 ELSE crashes END, updated_at = now, "
    "status = coalesce(new, status), owner = CASE WHEN new IS NULL THEN owner END, "
    "ticketed_at = CASE WHEN new IS NULL THEN ticketed_at WHEN put THEN now END, "
    "wake_at = CASE new WHEN 3 THEN due ELSE wake_at END, waiting_for = CASE new WHEN 3 THEN waits ELSE waiting_for END, "
    f"result = CASE WHEN new > 3 THEN made ELSE result END, notify = CASE WHEN new > 3 THEN {TO_TELL} ELSE notify END, "
    "expires_at = CASE WHEN new <= 3 OR new IS NULL THEN expires_at WHEN parent_id IS NULL THEN now + keep_s END "
    f"FROM mine, {NOW} AS clock WHERE change AND runs.no = mine.no AND runs.{MINE} AND runs.fence = mine.fence "
    "AND runs.inbox_seq = coalesce(seen, runs.inbox_seq) RETURNING runs.no)"
)
WRITE = (
    f"WITH {ME}, {_mine(f'{ASKED}, {CHANGE}')}, {ADDED}, {TAKEN}, {JOINED}, {CHANGED} "
    "SELECT i, inbox_seq, (SELECT count(*) FROM added), changed.no IS NOT NULL OR NOT change, no FROM mine LEFT JOIN changed USING (no)"
)
CLAIM = (
    f"WITH {ME} UPDATE runs SET status = 2, owner = ?, fence = fence + 1, wake_at = NULL, waiting_for = '', updated_at = now "
    f"FROM me, {NOW} AS clock WHERE run_id = ANY(?) AND {READY} AND (crashes < {SUSPECT_CRASHES} OR ?) "
    f"AND (kind, version) IN (SELECT * FROM unnest(?::text[], ?::text[])) RETURNING {FIELDS}, no"
)
CREATE = (
    f"INSERT INTO runs ({COLUMNS}) SELECT "
    + ", ".join(f"new.{name} + now" if name.strip('"') in TIMES else f"new.{name}" for name in COLUMNS.split(", "))
    + f" FROM {NOW} AS clock, {unnested('runs', COLUMNS)} AS new({COLUMNS}) ON CONFLICT DO NOTHING RETURNING {FIELDS}"
)


class PostgresRuns(ServerRuns):
    """A `RunStore` on PostgreSQL."""

    @property
    def _now(self) -> float | None:
        """None where the server's clock decides."""
        return None if self.clock is SYSTEM else self.clock.time()

    async def create(self, runs: Sequence[NewRun], *, parent: ParentClaim | None = None) -> list[Created]:
        """Create runs, or find them. Raises `InvalidKey` for an id that is empty, too long or no UTF-8."""
        if parent is not None or not runs or any(run.entries or run.parent_id is not None for run in runs):
            return await super().create(runs, parent=parent)
        for run in runs:
            check_id(run.run_id)
        rows = await self._server.statement(
            CREATE, [self._now, *packed("runs", COLUMNS, [row_of(run, 0.0, in_window=False) for run in runs])], topic=RUNS
        )
        fresh = {row[0]: Created("created", to_run(row)) for row in rows}
        answers = [fresh.pop(run.run_id, None) for run in runs]
        others = [run for run, answer in zip(runs, answers, strict=True) if answer is None]
        found = iter(await super().create(others) if others else ())
        return [next(found) if answer is None else answer for answer in answers]

    async def create_within(self, within: object, runs: Sequence[NewRun]) -> list[Created]:
        """Create runs in the caller's own transaction: they are there when it commits, and a sweep brings them to a worker."""
        schema = self.settings.session.get("search_path") if isinstance(self.settings, PostgresSettings) else None
        if schema is None:
            return await super().create_within(within, runs)
        connection = Within(await connection_of(within))
        [(path,)] = await connection.rows("SELECT current_setting('search_path')", ())
        await connection.rows("SELECT set_config('search_path', ?, true)", (schema,))
        created = await super().create_within(within, runs)
        await connection.rows("SELECT set_config('search_path', ?, true)", (path,))
        return created

    async def claim(
        self, worker_id: str, run_ids: Sequence[str], serves: Mapping[str, AbstractSet[str]], *, alone: bool = False
    ) -> list[Claimed | ClaimRefusal]:
        """READY -> RUNNING under the next fence, only for a kind and version in `serves`."""
        served = [(kind, version) for kind, versions in serves.items() for version in versions]
        kinds, versions = [kind for kind, _ in served], [version for _, version in served]
        params = [True, worker_id, worker_id, self._now, sorted(set(run_ids)), alone, kinds, versions]
        rows = await self._server.statement(CLAIM, params, topic=RUNS)
        granted: dict[str, Claimed] = {}
        for *fields, no in rows:
            run = to_run(fields)
            granted[run.run_id] = Claimed(run, run.updated_at)
            if run.fence == 1:  # never claimed before, so nothing is in its journal
                self._know(run.run_id, Known(1, 0, no, run.inbox_seq))
        answers: list[Claimed | ClaimRefusal | None] = [granted.pop(run_id, None) for run_id in run_ids]
        others = [run_id for run_id, answer in zip(run_ids, answers, strict=True) if answer is None]
        refusals = iter(await super().claim(worker_id, others, serves, alone=alone) if others else ())
        return [next(refusals) if answer is None else answer for answer in answers]

    async def purge(self, limit: int) -> int:
        """Delete at most `limit` expired runs, a few in each transaction: their journals may be long."""
        gone = 0
        while gone < limit:
            asked = min(PURGED_AT_ONCE, limit - gone)
            done = await super().purge(asked)
            gone += done
            if done < asked:
                break
        return gone

    async def findings(self, durability: str) -> list[Finding]:
        """What `agentkit doctor` is to say about the settings of the server, for runs of this durability class."""
        settings = self.settings
        assert isinstance(settings, PostgresSettings)
        facts = await self._server.statement(FACTS, (list(ASKED_SETTINGS),), topic=OTHER)
        return advice({row[0]: row[1] for row in facts}, durability, connections=settings.connections)

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        """Write a batch of runs. Raises `WorkerFenced`; a gap is `lost`."""
        added = await self._add(worker_id, batch, sync=sync)
        if added:
            return added
        done = {} if added is not None else await self._write(worker_id, batch, sync=sync)
        others = [write for write in batch if write.run_id not in done]
        if others:
            for write, written in zip(others, await super().write(worker_id, others, sync=sync), strict=True):
                done[write.run_id] = written
        return [done[write.run_id] for write in batch]

    async def _insert(self, worker_id: str, claims: Sequence[Known], batch: Sequence[RunWrite], *, sync: bool) -> list[Written]:
        rows = [(claim, entry) for claim, write in zip(claims, batch, strict=True) for entry in write.entries]
        statement, params = _adding(worker_id, rows, sync=sync)
        added = await self._server.try_statement(statement, params, topic=RUNS, line=LANE)
        if len(added) != len(rows):
            return []
        inboxes: dict[int, int] = {row[0]: row[1] for row in added}
        for claim in claims:
            if inboxes[claim.no] != claim.verdict.inbox_seq:
                claim.verdict = Written("ok", inboxes[claim.no])
        return [claim.verdict for claim in claims]

    async def _write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool) -> dict[str, Written]:
        """Write whatever can be told from the rows as they are."""
        # In the order of their ids, so that no two statements wait for each other's rows.
        batch = sorted(batch, key=_id)
        ids, fences, firsts = [write.run_id for write in batch], [write.fence for write in batch], [_first(write) for write in batch]
        rows = [(i, entry) for i, write in enumerate(batch, 1) for entry in write.entries]
        asked = [ids, integers(fences), integers(firsts), *_changes(batch), worker_id]
        entries = [integers([i for i, _ in rows]), *_packed_entries([entry for _, entry in rows])]
        params = [sync, worker_id, *asked, *entries, *_others(batch), self._now, worker_id]
        found = await self._server.statement(WRITE, params, topic=RUNS, line=LANE)
        done = _verdicts(batch, found)
        for row in found:
            number: int = row[0]
            write = batch[number - 1]
            self._known.pop(write.run_id, None)
            if write.run_id in done and write.release is None and write.entries:
                self._know(write.run_id, Known(write.fence, write.entries[-1].seq, row[4], row[1]))
        return done


def _id(write: RunWrite) -> str:
    return write.run_id


def _verdicts(batch: Sequence[RunWrite], rows: Sequence[Sequence[Any]]) -> dict[str, Written]:
    """Of the runs of which everything was written; whether the others are lost, or were written before, is to be looked into."""
    done: dict[str, Written] = {}
    due = 0
    for row in rows:
        number: int = row[0]
        write = batch[number - 1]
        due += len(write.entries)
        if row[3]:
            done[write.run_id] = Written("ok", row[1])
    # Fewer rows than due: a first copy of this batch landed beside it.
    return done if not rows or rows[0][2] == due else {}


def _adding(worker_id: str, rows: Sequence[tuple[Known, Entry]], *, sync: bool) -> tuple[str, list[Any]]:
    """The statement that adds entries, each behind what is known of its run, and its parameters."""
    if len(rows) == 1:
        [(claim, entry)] = rows
        return ADD_ONE if sync else ADD_ONE_RELAXED, [worker_id, *entry[:9], claim.no, claim.fence, worker_id]
    whose = [integers([claim.no for claim, _ in rows]), integers([claim.fence for claim, _ in rows])]
    return ADD if sync else ADD_RELAXED, [worker_id, *whose, *_packed_entries([entry for _, entry in rows]), worker_id]


def _first(write: RunWrite) -> int:
    """The seq before which the journal must end: 0 where nothing is added, and -1, which fits nowhere, for a gap in the write."""
    entries = write.entries
    if not entries:
        return 0
    return entries[0].seq if follows(entries, entries[0].seq - 1) else -1


def _packed_entries(entries: Sequence[Entry]) -> list[Any]:
    """The nine fields that are written, each of all entries."""
    seq, kind, key, attempt, fp, codec, body, at_ms, took_us, _ = by_column(entries) if entries else [[]] * 10
    return [integers(seq), integers(kind), key, integers(attempt), fp, integers(codec), body, integers(at_ms), integers(took_us)]


def _others(batch: Sequence[RunWrite]) -> list[Any]:
    takes = [(i, *take) for i, write in enumerate(batch, 1) for take in write.takes]
    joins = [(i, *join) for i, write in enumerate(batch, 1) for join in write.joins]
    return [*(by_column(takes) if takes else [[]] * 3), *(by_column(joins) if joins else [[]] * 6)]


def _changes(batch: Sequence[RunWrite]) -> list[Any]:
    change, clear, new, seen, due, waits, put, made = by_column([_change(write) for write in batch])
    return [change, clear, numbers(new), numbers(seen), numbers(due), waits, put, made]


def _change(write: RunWrite) -> tuple[object, ...]:
    release = write.release
    if release is None:
        return write.clear_crashes, write.clear_crashes, None, None, None, "", False, b""
    seen = release.seen if release.status == RunStatus.PARKED else None
    result = release.result if release.status.ended else b""
    return True, write.clear_crashes, int(release.status), seen, release.wake_at, release.waiting_for, release.ticketed, result
