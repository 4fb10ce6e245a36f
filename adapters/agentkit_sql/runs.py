"""The run store on SQL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidSetting
from agentkit.ports.records import Entry
from agentkit_sql.database import Database, SqliteSettings
from agentkit_sql.dialect import Statement
from agentkit_sql.joins import JoinScripts
from agentkit_sql.news import RUNS
from agentkit_sql.port import BEAT, LANE, SqlPort
from agentkit_sql.rows import NO, Changes, select_runs, to_run
from agentkit_sql.runs_create import CreateScripts
from agentkit_sql.runs_sweep import SweepScripts
from agentkit_sql.runs_write import WriteScripts
from agentkit_sql.schema import NEWEST
from agentkit_sql.server import drive
from agentkit_sql.sqlite_runs import SqliteWriteScripts
from agentkit_sql.within import RULE, Within, connection_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock
    from agentkit.ports.queue import Ticket
    from agentkit.ports.records import (
        Beat,
        Claimed,
        ClaimRefusal,
        Created,
        Message,
        NewRun,
        ParentClaim,
        Run,
        RunQuery,
        RunWrite,
        Signalled,
        Swept,
        WorkerRow,
        Written,
    )
    from agentkit_sql.dialect import Dialect, Script, Work
    from agentkit_sql.port import SqlSettings


class SqlRuns(SqlPort):
    """A `RunStore` in a SQL database."""

    durable = True
    remote = False
    schema_version = NEWEST
    """Of the tables, once it is open."""
    _within = Within

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self.min_lease_s = settings.min_lease_s
        dialect = settings.dialect(clock)
        changes = Changes(dialect)
        self._creating, self._writing = CreateScripts(dialect), WriteScripts(dialect)
        self._joins, self._sweeping = JoinScripts(dialect, changes), SweepScripts(dialect, changes)
        self._reading = ReadScripts(dialect)

    async def register(self, worker_id: str, kinds: str, host: str) -> None:
        """Enter a worker. Raises `WorkerFenced` when that id was declared dead."""
        await self.database.write(lambda: self._sweeping.register(worker_id, kinds, host), sync=False)

    async def beat(self, worker_id: str) -> Beat | None:
        """Say "alive". None: this worker was declared dead, for good."""
        return await self.database.write(lambda: self._sweeping.beat(worker_id), sync=False, line=BEAT)

    async def retire(self, worker_id: str) -> None:
        """Declare oneself dead."""
        await self.database.write(lambda: self._sweeping.retire(worker_id), sync=False)

    async def create(self, runs: Sequence[NewRun], *, parent: ParentClaim | None = None) -> list[Created]:
        """Create runs, or find them. Raises `InvalidKey` for an id that is empty, too long or no UTF-8."""
        return await self.database.write(self._to_create(runs, parent), sync=True, topic=RUNS)

    def _to_create(self, runs: Sequence[NewRun], parent: ParentClaim | None) -> Work[list[Created]]:
        return lambda: self._creating.create(runs, parent)

    async def create_within(self, within: object, runs: Sequence[NewRun]) -> list[Created]:
        """Create runs in the caller's own transaction: they are there when it commits, and a sweep brings them to a worker.

        Args:
            within: an `AsyncConnection` or an `AsyncSession` of SQLAlchemy.
            runs: what to create.

        Raises:
            InvalidSetting: something else, or another database. What SQLAlchemy raises is the caller's, as the transaction is.
        """
        connection = await connection_of(within)
        if not await anyio.to_thread.run_sync(self.settings.names, connection.engine.url):  # for a file the disk is asked
            raise InvalidSetting("within", connection.engine.url.render_as_string(), f"{RULE} ({self.settings.store})")
        return await drive(self._within(connection), self._creating.create(runs, None))

    async def claim(
        self, worker_id: str, run_ids: Sequence[str], serves: Mapping[str, AbstractSet[str]], *, alone: bool = False
    ) -> list[Claimed | ClaimRefusal]:
        """READY -> RUNNING under the next fence, only for a kind and version in `serves`."""
        # A server that is killed must not forget a claim whose owner lives: it would give its number again. A file forgets one only when
        # the power goes, and then nobody is left who holds it.
        work = partial(self._writing.claim, worker_id, run_ids, serves, alone=alone)
        return await self.database.write(work, sync=self.remote, topic=RUNS)

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        """Write a batch of runs in one transaction. Raises `WorkerFenced`; `StoreRefused` for a gap."""
        return await self.database.write(lambda: self._writing.write(worker_id, batch), sync=sync, topic=RUNS, line=LANE)

    async def load(self, run_id: str, *, after: int = 0) -> list[Entry]:
        """The journal in order of seq, from the newest SNAPSHOT (or from `after`, exclusive, if it is set)."""
        return await self.database.read(lambda: self._reading.load(run_id, after))

    async def inbox(self, run_id: str) -> list[Message]:
        """All messages in order of arrival, the taken ones too."""
        return await self.database.read(lambda: self._joins.inbox(run_id))

    async def signal(self, run_id: str, message_id: str, topic: str, body: bytes) -> Signalled:
        """Put a message in the inbox and wake a parked run. Topic `cancel` ends a run that never started."""
        return await self.database.write(lambda: self._joins.signal(run_id, message_id, topic, body), sync=True, topic=RUNS)

    async def cancel_children(self, run_id: str, join_key: str | None, body: bytes) -> list[Ticket]:
        """Cancel the live children of a run. Those that never started end at once and are counted in their join at once."""
        return await self.database.write(lambda: self._joins.cancel_children(run_id, join_key, body), sync=True, topic=RUNS)

    async def tell(self, child_ids: Sequence[str]) -> list[Ticket]:
        """Count ended children in their parents' joins, once each."""
        return await self.database.write(lambda: self._joins.tell(child_ids), sync=False, topic=RUNS)

    async def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Swept:
        """One bounded round of recovery, in one transaction."""
        work = partial(self._sweeping.sweep, reap, max_crashes=max_crashes, lost_after_s=lost_after_s, limit=limit)
        swept = await self.database.write(work, sync=False)
        if swept.taken_over:
            self.database.note(RUNS)
        return swept

    async def ticketed(self, tickets: Sequence[Ticket]) -> None:
        """Note that these tickets were put."""
        await self.database.write(lambda: self._sweeping.ticketed(tickets), sync=False)

    async def bury(self, run_id: str, reason: bytes) -> bool:
        """READY or PARKED -> BURIED."""
        return await self.database.write(lambda: self._sweeping.bury(run_id, reason), sync=True, topic=RUNS)

    async def revive(self, run_id: str) -> Ticket | None:
        """BURIED -> READY with its crashes forgotten."""
        return await self.database.write(lambda: self._sweeping.revive(run_id), sync=True, topic=RUNS)

    async def workers(self) -> list[WorkerRow]:
        """The workers that nobody declared dead."""
        return await self.database.read(self._sweeping.workers)

    async def get(self, run_ids: Sequence[str]) -> list[Run | None]:
        """The runs, in the order asked."""
        return await self.database.read(lambda: self._reading.get(run_ids))

    async def list(self, query: RunQuery) -> list[Run]:
        """A page of runs."""
        return await self.database.read(lambda: self._reading.list(query))

    async def purge(self, limit: int) -> int:
        """Delete at most `limit` expired runs, each root after its descendants, none while a descendant lives."""
        return await self.database.write(lambda: self._sweeping.purge(limit), sync=False)

    async def changed(self, seen: int, timeout_s: float) -> int:
        """Wait until something may have changed since the token `seen` or the time is up; return the new token."""
        return await self.database.changed(RUNS, seen, timeout_s)


class ReadScripts:
    """The scripts that change nothing."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._get = Statement(select_runs(dialect.among("run_id")))
        entries = f'SELECT seq, kind, "key", attempt, fp, codec, body, at_ms, took_us, fence FROM journal WHERE run_no = {NO}'
        self._after = Statement(f"{entries} AND seq > ? ORDER BY seq")
        self._newest = Statement(
            # From the end backwards: where no index tells of snapshots, only what is then read anyway is looked at.
            f"{entries} AND seq >= coalesce((SELECT seq FROM journal WHERE run_no = {NO} AND kind = 9 ORDER BY seq DESC LIMIT 1), 0) "
            "ORDER BY seq"
        )

    def load(self, run_id: str, after: int) -> Script[list[Entry]]:
        rows = (yield self._after(run_id, after)) if after else (yield self._newest(run_id, run_id))
        return [Entry._make(row) for row in rows]

    def get(self, run_ids: Sequence[str]) -> Script[list[Run | None]]:
        found = {row[0]: to_run(row) for row in (yield self._get(self._dialect.listed(run_ids)))}
        return [found.get(run_id) for run_id in run_ids]

    def list(self, query: RunQuery) -> Script[list[Run]]:
        now = 0.0 if query.idle_s is None else (yield from self._dialect.now())
        by_idx = query.parent_id is not None and query.parent_key is not None
        conditions: dict[str, object] = {
            "kind = ?": query.kind,
            "version = ?": query.version,
            "tenant = ?": query.tenant,
            self._dialect.among("status"): None if query.status is None else self._dialect.listed(map(int, query.status)),
            "parent_id = ?": query.parent_id,
            "parent_key = ?": query.parent_key,
            "updated_at <= ?": None if query.idle_s is None else now - query.idle_s,
            "run_id > ?": None if by_idx or not query.after else query.after,
            "idx > ?": query.after_idx if by_idx else None,
        }
        asked = {condition: value for condition, value in conditions.items() if value is not None}
        where = " AND ".join(asked) or "1 = 1"
        rows = yield Statement(f"{select_runs(where)} ORDER BY {'idx, run_id' if by_idx else 'run_id'} LIMIT ?")(
            *asked.values(), query.limit
        )
        return [to_run(row) for row in rows]


class SqliteRuns(SqlRuns):
    """A `RunStore` in a SQLite file."""

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self._scripts = SqliteWriteScripts(settings.dialect(clock))

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        """Write a batch of runs in one transaction. Raises `WorkerFenced`; `StoreRefused` for a gap."""
        database = self.database
        assert isinstance(database, Database)
        known = database.known
        return await database.write(lambda: self._scripts.flush(worker_id, batch, known), sync=sync, topic=RUNS, line=LANE)


def from_url(url: str, *, clock: Clock = SYSTEM) -> SqliteRuns:
    """The run store in the file that a `sqlite://` URL names. Raises `InvalidSetting`."""
    return SqliteRuns(SqliteSettings.from_url(url), clock)
