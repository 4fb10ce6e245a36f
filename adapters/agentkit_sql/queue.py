"""The queue on SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.clock import SYSTEM
from agentkit_sql.database import SqliteSettings
from agentkit_sql.news import QUEUE
from agentkit_sql.port import SqlPort
from agentkit_sql.queue_scripts import QueueScripts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock
    from agentkit.ports.queue import DeadTicket, Depth, Lease, Ticket
    from agentkit_sql.port import SqlSettings

LOOK_AGAIN_S = 0.25  # while waiting: the store's clock, which a test may move, decides what is due


class SqlQueue(SqlPort):
    """A `Queue` in a SQL database. Nothing waits for the disk: a ticket lost in a power cut is found by the run store's sweep."""

    supports_keys = True
    supports_delay = True
    holds_leases = True
    look_again_s = LOOK_AGAIN_S

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self._scripts = QueueScripts(settings.dialect(clock), settings.max_depth)

    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        """Put tickets; those whose id is still undelivered are dropped. Raises `QueueFull`: nothing of the call was written."""
        if tickets:
            await self.database.write(lambda: self._scripts.put(tickets, delay_s), sync=False, topic=QUEUE)

    async def lease(self, n: int, *, wait_s: float, lease_s: float, kinds: AbstractSet[str]) -> list[Lease]:
        """Up to `n` tickets whose `served_by` is in `kinds`; waits up to `wait_s` for the first. Empty when none came."""
        give_up = self.clock.monotonic() + wait_s
        while True:
            seen = self.database.token(QUEUE)
            leases, next_s = await self.database.write(lambda: self._scripts.lease(n, lease_s, kinds), sync=False)
            left = give_up - self.clock.monotonic()
            if leases or left <= 0 or n < 1:
                return leases
            await self.database.changed(
                QUEUE, seen, min(left, self.look_again_s if next_s is None else max(next_s, 0.001), self.look_again_s)
            )

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> list[bool]:
        """Keep leases for `lease_s` from now. False: another has it, or nobody."""
        return await self.database.write(lambda: self._scripts.renew(leases, lease_s), sync=False)

    async def finish(self, leases: Sequence[Lease]) -> list[bool]:
        """Take delivered tickets out of the queue. False: another has it, or nobody."""
        return await self.database.write(
            lambda: self._scripts.finish(leases), sync=False, topic=QUEUE if any(one.ticket.key for one in leases) else ""
        )

    async def give_back(self, leases: Sequence[Lease], *, delay_s: float = 0.0) -> list[bool]:
        """Make them ready again as they were: the delivery does not count, the place in the line is kept."""
        return await self.database.write(lambda: self._scripts.give_back(leases, delay_s), sync=False, topic=QUEUE)

    async def retry(self, leases: Sequence[Lease], delay_s: float) -> list[bool]:
        """Put them at the end of their lines, after a delay; the delivery does not count."""
        return await self.database.write(lambda: self._scripts.retry(leases, delay_s), sync=False, topic=QUEUE)

    async def bury(self, leases: Sequence[Lease], reason: str) -> list[bool]:
        """Move them to the dead letters."""
        return await self.database.write(lambda: self._scripts.bury(leases, reason), sync=False, topic=QUEUE)

    async def depth(self) -> dict[str, Depth]:
        """How much waits, for each `name@version`."""
        return await self.database.read(self._scripts.depth)

    async def dead(self, *, kind: str | None = None, limit: int = 100) -> list[DeadTicket]:
        """The dead letters of an agent (`name` or `name@version`; None: all), the longest dead first."""
        return await self.database.read(lambda: self._scripts.dead(kind, limit))

    async def redrive(self, run_ids: Sequence[str] | None = None, *, kind: str | None = None) -> list[str]:
        """Put dead letters back as new; returns their run ids."""
        return await self.database.write(lambda: self._scripts.redrive(run_ids, kind), sync=False, topic=QUEUE)

    async def cancel(self, run_ids: Sequence[str]) -> int:
        """Drop undelivered tickets of these runs; returns how many."""
        return await self.database.write(lambda: self._scripts.cancel(run_ids), sync=False, topic=QUEUE)


def from_url(url: str, *, clock: Clock = SYSTEM) -> SqlQueue:
    """The queue in the file that a `sqlite://` URL names; `?max_depth=` bounds it. Raises `InvalidSetting`."""
    return SqlQueue(SqliteSettings.from_url(url), clock)
