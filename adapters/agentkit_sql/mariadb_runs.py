"""Runs on MariaDB and MySQL: what a flush need not ask the server again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.clock import SYSTEM
from agentkit_sql.dialect import ROWS, Statement
from agentkit_sql.mariadb_advice import ASKED, advice
from agentkit_sql.runs import SqlRuns
from agentkit_sql.runs_write import WriteScripts
from agentkit_sql.within import Within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock
    from agentkit.ports.records import Finding, RunWrite, Written
    from agentkit_sql.dialect import Call, Dialect, Params, Script
    from agentkit_sql.port import SqlSettings

KEY_TYPE = 253  # of a column of short bytes, in the servers' protocol; long ones are values
REMEMBERED = 20_000  # runs: more than are at work in one process; those that were lost are forgotten together


class MariadbWriteScripts(WriteScripts):
    """To look up the end of every journal would take four times as long as all else that a flush reads."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        self.last: dict[str, tuple[int, int]] = {}
        """Of each run written here: the fence, and the last seq that is known to be there. Under one fence one worker writes."""
        self._owned = Statement(
            "SELECT run_id, fence, inbox_seq, no "
            f"FROM (SELECT worker_id FROM workers WHERE worker_id = ? AND dead = 0{dialect.share}) AS me "
            f"CROSS JOIN {dialect.each('runs', 'run_id')} WHERE owner = me.worker_id"
        )
        self._ends = Statement(f"SELECT run_no, max(seq) FROM journal WHERE {dialect.among('run_no')} GROUP BY run_no")

    def _held(self, worker_id: str, run_ids: Sequence[str]) -> Script[dict[str, Sequence[Any]]]:
        owned: Sequence[Sequence[Any]] = yield self._owned(worker_id, self._dialect.listed(run_ids))
        known = {no: self.last[run_id][1] for run_id, fence, _, no in owned if self.last.get(run_id, (0,))[0] == fence}
        unknown = [row[3] for row in owned if row[3] not in known]
        if unknown:
            known |= dict((yield self._ends(self._dialect.listed(unknown))))
        return {run_id: (run_id, fence, inbox_seq, known.get(no), no) for run_id, fence, inbox_seq, no in owned}


class MariadbWithin(Within):
    """A connection of SQLAlchemy has not the settings of ours: names are quoted another way, and keys come as the bytes that they are."""

    def _sql(self, sql: str) -> str:
        return super()._sql(sql.replace('"', "`"))

    async def rows(self, sql: str, params: Params) -> Sequence[Sequence[Any]]:
        result = await self._connection.exec_driver_sql(self._sql(sql), tuple(params))
        keys = [column[1] == KEY_TYPE for column in result.context.cursor.description]
        return [[one.decode() if key and isinstance(one, bytes) else one for one, key in zip(row, keys, strict=True)] for row in result]


class MariadbRuns(SqlRuns):
    """A `RunStore` on MariaDB or MySQL."""

    _within = MariadbWithin

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self._writing = scripts = MariadbWriteScripts(settings.dialect(clock))
        self._last = scripts.last

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        """Write a batch of runs in one transaction. Raises `WorkerFenced`; a gap is `lost`."""
        last = self._last
        try:
            written = await super().write(worker_id, batch, sync=sync)
        except BaseException:
            for write in batch:
                last.pop(write.run_id, None)  # whether it landed is not known
            raise
        for write, one in zip(batch, written, strict=True):
            if write.release is not None or one.verdict != "ok":
                last.pop(write.run_id, None)
            elif write.entries:
                last[write.run_id] = write.fence, write.entries[-1].seq
        if len(last) > REMEMBERED:
            last.clear()
        return written

    async def findings(self, durability: str) -> list[Finding]:
        """What `agentkit doctor` is to say about the settings of the server, for runs of this durability class."""

        def asked() -> Script[list[Finding]]:
            call: Call = "SHOW GLOBAL VARIABLES WHERE variable_name IN ?", (ASKED,), ROWS
            return advice(dict((yield call)), durability)

        return await self.database.read(asked)
