"""Runs on MariaDB and MySQL: what a flush need not ask the server again."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from agentkit.clock import SYSTEM
from agentkit.errors import StoreBusy, StoreUnavailable
from agentkit.ports.records import Claimed
from agentkit_sql.dialect import ROWS, Statement
from agentkit_sql.mariadb import Often
from agentkit_sql.mariadb_advice import ASKED, advice
from agentkit_sql.news import RUNS
from agentkit_sql.port import LANE
from agentkit_sql.rows import ENTRY, TO_TELL, select_runs
from agentkit_sql.runs_write import Known, WriteScripts
from agentkit_sql.server import one
from agentkit_sql.server_runs import ServerRuns
from agentkit_sql.within import Within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock
    from agentkit.ports.records import ClaimRefusal, Created, Finding, NewRun, ParentClaim, RunStatus, RunWrite, Written
    from agentkit_sql.dialect import Call, Dialect, Params, Script, Work
    from agentkit_sql.port import SqlSettings
    from agentkit_sql.runs_write import Ended

KEY_TYPE = 253  # of a column of short bytes, in the servers' protocol; long ones are values
AT_ONCE = 64  # entries of one statement, as many as a run may be ahead; more are better off as the rows of a packet, in a transaction
ENDED_BYTES = 16_384  # of results in one statement: as text it travels with the COMMIT
AT_ONCE_BYTES = 262_144  # of their values: far below what any server reads in one packet


@lru_cache
def adding(entries: int) -> Often:
    """The statement that writes so many entries, each with the number of its run, if all those runs are as they were.

    The first entry's run is NULL, which no column takes, unless as many runs as are asked for are the living worker's, and their fences
    and inbox_seqs come to the same sums: neither ever goes back, so then each of them is as it was. The worker's row is share-locked
    against a take-over, which marks it dead first. Beside a join with the runs this costs half: nothing is copied into a table in
    between. And news in an inbox is a reason to look, so nobody need ask for it each time.
    """
    first = (
        "(SELECT IF(count(*) = ? AND sum(fence) = ? AND sum(inbox_seq) = ?, ?, NULL) "
        "FROM (SELECT 1 FROM workers WHERE worker_id = ? AND dead = 0 LOCK IN SHARE MODE) AS me "
        f"CROSS JOIN runs WHERE no IN ({', '.join('?' * entries)}) AND owner = ?)"
    )
    rows = [f"({run_no}, {', '.join('?' * 10)})" for run_no in (first, *"?" * (entries - 1))]
    return Often(f"INSERT INTO journal ({ENTRY}) VALUES {', '.join(rows)}")


@lru_cache
def ending(runs: int) -> Statement:
    """The statement that ends so many runs, each with its result: at less than half the price of so many statements."""
    return Statement(
        f"UPDATE runs SET status = ?, owner = NULL, ticketed_at = NULL, result = CASE no {'WHEN ? THEN ? ' * runs}END, updated_at = ?, "
        f"notify = {TO_TELL}, expires_at = CASE WHEN parent_id IS NULL THEN ? + keep_s END "
        f"WHERE (no, fence) IN ({', '.join(['(?, ?)'] * runs)}) AND owner = ?"
    )


def fits(batch: Sequence[RunWrite]) -> bool:
    """Whether a batch is small enough for one such statement."""
    sizes = [len(entry.body) for write in batch for entry in write.entries]
    return len(sizes) <= AT_ONCE and sum(sizes) <= AT_ONCE_BYTES


class MariadbWriteScripts(WriteScripts):
    """To look up the end of every journal would take four times as long as all else that a flush reads."""

    def __init__(self, dialect: Dialect, known: Mapping[str, Known]) -> None:
        super().__init__(dialect)
        self._known = known
        self.numbers: dict[str, int] = {}
        """Of the runs at hand, where they are the worker's."""
        self._wanted = Statement(select_runs(f"{dialect.among('run_id')} ORDER BY run_id{dialect.exclusive}", "no"))
        self._owned = Statement(
            "SELECT run_id, fence, inbox_seq, no "
            f"FROM (SELECT worker_id FROM workers WHERE worker_id = ? AND dead = 0{dialect.share}) AS me "
            f"CROSS JOIN {dialect.each('runs', 'run_id')} WHERE owner = me.worker_id"
        )
        self._ends = Statement(f"SELECT run_no, max(seq) FROM journal WHERE {dialect.among('run_no')} GROUP BY run_no")

    def _find(self, listed: Any) -> Script[Sequence[Sequence[Any]]]:
        rows: Sequence[Sequence[Any]] = yield self._wanted(listed)
        self.numbers |= {row[0]: row[-1] for row in rows}
        return [row[:-1] for row in rows]

    def _held(self, worker_id: str, run_ids: Sequence[str]) -> Script[dict[str, Sequence[Any]]]:
        owned: Sequence[Sequence[Any]] = yield self._owned(worker_id, self._dialect.listed(run_ids))
        self.numbers |= {run_id: no for run_id, _, _, no in owned}
        claims = [(no, self._known.get(run_id), fence) for run_id, fence, _, no in owned]
        ends: dict[int, int | None] = {no: known.last for no, known, fence in claims if known is not None and known.fence == fence}
        unknown = [no for no, _, _ in claims if no not in ends]
        if unknown:
            ends |= dict((yield self._ends(self._dialect.listed(unknown))))
        return {run_id: (run_id, fence, inbox_seq, ends.get(no), no) for run_id, fence, inbox_seq, no in owned}

    def _end_all(self, status: RunStatus, ended: Sequence[Ended], now: float) -> Script[None]:
        if not 1 < len(ended) <= AT_ONCE or sum(len(release.result) for _, release, _ in ended) > ENDED_BYTES:
            yield from super()._end_all(status, ended, now)
            return
        results: list[Any] = []
        claims: list[Any] = []
        for run_id, release, (_, _, fence) in ended:
            no = self.numbers[run_id]
            results += (no, release.result)
            claims += (no, fence)
        owner = ended[0][2][1]
        yield ending(len(ended)).many([(int(status), *results, now, now, *claims, owner)])


class MariadbWithin(Within):
    """A connection of SQLAlchemy has not the settings of ours: names are quoted another way, and keys come as the bytes that they are."""

    def _sql(self, sql: str) -> str:
        return super()._sql(sql.replace('"', "`"))

    async def rows(self, sql: str, params: Params) -> Sequence[Sequence[Any]]:
        result = await self._connection.exec_driver_sql(self._sql(sql), tuple(params))
        keys = [column[1] == KEY_TYPE for column in result.context.cursor.description]
        return [[one.decode() if key and isinstance(one, bytes) else one for one, key in zip(row, keys, strict=True)] for row in result]


class MariadbRuns(ServerRuns):
    """A `RunStore` on MariaDB or MySQL."""

    _within = MariadbWithin
    _at_once = False

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self._writing = self._scripts = MariadbWriteScripts(settings.dialect(clock), self._known)

    async def open(self) -> None:
        await super().open()
        [(version,)] = await self._server.read(lambda: one("SELECT version()", ()))
        self._at_once = "MariaDB" in version  # on MySQL nobody has tried that statement

    def _to_create(self, runs: Sequence[NewRun], parent: ParentClaim | None) -> Work[list[Created]]:
        blind = iter((True,))  # nearly all ids are new; where one was taken this is undone, and then it looks first
        return lambda: self._creating.create(runs, parent, look=not next(blind, False))

    async def claim(
        self, worker_id: str, run_ids: Sequence[str], serves: Mapping[str, AbstractSet[str]], *, alone: bool = False
    ) -> list[Claimed | ClaimRefusal]:
        """READY -> RUNNING under the next fence, only for a kind and version in `serves`."""
        try:
            answers = await super().claim(worker_id, run_ids, serves, alone=alone)
        finally:
            numbers = [self._scripts.numbers.pop(run_id, None) for run_id in run_ids]
        for answer, no in zip(answers, numbers, strict=True):
            if isinstance(answer, Claimed) and answer.run.fence == 1 and no is not None:  # never claimed before: its journal is empty
                self._know(answer.run.run_id, Known(1, 0, no, answer.run.inbox_seq))
        return answers

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        """Write a batch of runs. Raises `WorkerFenced`; a gap is `lost`."""
        try:
            done = await self._add(worker_id, batch, sync=sync) if self._at_once and fits(batch) else None
        except StoreBusy:
            raise
        except StoreUnavailable as lost:  # a connection that had died while it was idle, most likely: the very same batch again
            try:
                return await self._write(worker_id, batch, sync=sync)
            except StoreBusy as busy:
                raise lost from busy  # whether the first one landed is not known
        return done or await self._write(worker_id, batch, sync=sync)

    async def _write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool) -> list[Written]:
        """In a transaction, with a look at what is there."""
        try:
            written = await super().write(worker_id, batch, sync=sync)
        finally:
            self._forget(batch)  # whether it landed may not be known
            numbers = [self._scripts.numbers.pop(write.run_id, None) for write in batch]
        for write, told, no in zip(batch, written, numbers, strict=True):
            if no is not None and write.entries and write.release is None and told.verdict == "ok":
                self._know(write.run_id, Known(write.fence, write.entries[-1].seq, no, told.inbox_seq))
        return written

    async def _insert(self, worker_id: str, claims: Sequence[Known], batch: Sequence[RunWrite], *, sync: bool) -> list[Written]:
        numbers: list[int] = []
        fields: list[Any] = []
        fences = news = 0
        for claim, write in zip(claims, batch, strict=True):
            no, fence = claim.no, claim.fence
            fences += fence
            news += claim.verdict.inbox_seq
            for entry in write.entries:
                numbers.append(no)
                fields += (no, entry[0], fence, *entry[1:9])
        params = (len(claims), fences, news, fields[0], worker_id, *numbers, worker_id, *fields[1:])
        await self._server.try_statement(adding(len(numbers)), params, topic=RUNS, line=LANE)
        return [claim.verdict for claim in claims]

    async def findings(self, durability: str) -> list[Finding]:
        """What `agentkit doctor` is to say about the settings of the server, for runs of this durability class."""

        def asked() -> Script[list[Finding]]:
            call: Call = "SHOW GLOBAL VARIABLES WHERE variable_name IN ?", (ASKED,), ROWS
            return advice(dict((yield call)), durability)

        return await self.database.read(asked)
