"""Writing the journals of runs in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit_sql.runs_write import Known, WriteScripts, going_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.ports.records import RunWrite, Written
    from agentkit_sql.dialect import Dialect, Script


class SqliteWriteScripts(WriteScripts):
    """Looking up the runs of a flush takes a fifth of the thread's time, and mostly nobody has written since the last one."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        self._add = dialect.bulk("journal", 'run_no, fence, seq, kind, "key", attempt, fp, codec, body, at_ms, took_us')
        self._seen: dict[str, Sequence[Any]] = {}

    def flush(self, worker_id: str, batch: Sequence[RunWrite], known: dict[tuple[str, str], Known]) -> Script[list[Written]]:
        """`write`, by what is known where all of it is."""
        claims = going_on((known.get((worker_id, write.run_id)) for write in batch), batch)
        if claims is None:
            return (yield from self._look(worker_id, batch, known))
        yield self._add.many(
            [(claim.no, claim.fence, *entry[:9]) for claim, write in zip(claims, batch, strict=True) for entry in write.entries]
        )
        for claim, write in zip(claims, batch, strict=True):
            claim.last = write.entries[-1].seq
        return [claim.verdict for claim in claims]

    def _look(self, worker_id: str, batch: Sequence[RunWrite], known: dict[tuple[str, str], Known]) -> Script[list[Written]]:
        verdicts = yield from self.write(worker_id, batch)
        for write, (verdict, inbox_seq) in zip(batch, verdicts, strict=True):
            claim = worker_id, write.run_id
            known.pop(claim, None)
            if verdict == "ok" and write.release is None and (seen := self._seen.get(write.run_id)) is not None:
                last = write.entries[-1].seq if write.entries else seen[3] or 0
                known[claim] = Known(write.fence, max(last, seen[3] or 0), seen[4], inbox_seq)
        return verdicts

    def _held(self, worker_id: str, run_ids: Sequence[str]) -> Script[dict[str, Sequence[Any]]]:
        self._seen = yield from super()._held(worker_id, run_ids)
        return self._seen
