"""The slow second look at the lists of hints: it finds what only a double fault, or a failover that lost part of them, can leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.ports.records import RunStatus
from agentkit_redis.connection import command
from agentkit_redis.runs_base import BRIEF, DEAD, DUE, EXPIRING, LIVE, PUT, READY_HINTS, UNTOLD, RunsBase, add, ensure, rem, texts
from agentkit_redis.runs_create import worker_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit_redis.connection import Client
    from agentkit_redis.rows import Row
    from agentkit_redis.runs_base import Hint

PAGE = 100  # runs of one look: a millisecond of the server; all of 10,000 that live are seen within a hundred sweeps


class Scrubbing(RunsBase):
    """One page of the runs that live with each sweep, round and round."""

    _scrubbed = ""
    """The last run of the page before."""

    async def scrub(self, client: Client) -> None:
        """See to it that the next few living runs are on the lists that they belong on."""
        after = f"({self._scrubbed}" if self._scrubbed else "-"
        page = texts(await client.call(command("ZRANGEBYLEX", self.list_key(LIVE), after, "+", "LIMIT", 0, PAGE)))
        self._scrubbed = page[-1] if len(page) == PAGE else ""
        rows = [row for row in await self.look(client, page, BRIEF) if row is not None]
        self.forget(*(hint for row in rows for hint in belongs(row)))
        await self._owned(client, [row for row in rows if row.run.status == RunStatus.RUNNING])

    async def _owned(self, client: Client, rows: Sequence[Row]) -> None:
        """Runs that are owned are among their owner's claims; an owner that the store has forgotten is dead."""
        owners = sorted({row.run.owner for row in rows if row.run.owner is not None})
        [known] = await client.phases([command("EXISTS", self.key(f"w:{owner}")) for owner in owners])
        claims = [command("SADD", self.worker_keys(row.run.owner or "")[1], f"{row.run.fence}:{row.run.run_id}") for row in rows]
        forgotten = [owner for owner, there in zip(owners, known, strict=True) if not there]
        buried = [worker_script(self.worker_keys(owner), "retire") for owner in forgotten]
        await self.steps(client, [*claims, *buried], before=[add(DEAD, owner) for owner in forgotten])


def belongs(row: Row) -> list[Hint]:
    """On which lists a run is to be found."""
    run = row.run
    if run.status.ended:
        return [ensure(EXPIRING, run.run_id), ensure(UNTOLD, run.run_id) if run.notify else rem(LIVE, run.run_id)]
    if run.status == RunStatus.PARKED and run.wake_at is not None:
        return [ensure(DUE, f"{run.fence}:{run.run_id}", run.wake_at)]
    if run.status == RunStatus.READY and row.ticketed_at is not None:
        return [ensure(PUT, run.run_id, row.ticketed_at)]
    if run.status == RunStatus.READY:
        return [ensure(READY_HINTS, row.hint + run.run_id)]
    return []
