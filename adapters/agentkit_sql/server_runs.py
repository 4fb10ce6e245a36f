"""Runs on a server: the commonest batch by far, entries alone of runs whose last entries are known here, in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.clock import SYSTEM
from agentkit.errors import StoreRefused
from agentkit_sql.runs import SqlRuns
from agentkit_sql.runs_write import Known, going_on
from agentkit_sql.server import Server, Undone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock
    from agentkit.ports.records import RunWrite, Written
    from agentkit_sql.port import SqlSettings

REMEMBERED = 20_000  # runs: more than are at work in one process; those that were lost are forgotten together


class ServerRuns(SqlRuns):
    """A `RunStore` on a server."""

    remote = True

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self._known: dict[str, Known] = {}

    @property
    def _server(self) -> Server:
        server = self.database
        assert isinstance(server, Server)
        return server

    async def _insert(self, worker_id: str, claims: Sequence[Known], batch: Sequence[RunWrite], *, sync: bool) -> list[Written]:
        """Write entries that go on from these claims, where they are the worker's. Empty: not all of them were.

        Raises `StoreRefused` where none was written and all is as before, and `Undone` where one of them is there already.
        """
        raise AssertionError("each server says it")

    async def _add(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool) -> list[Written] | None:
        """Write entries alone. None: there is more to it; empty: all of it is to be looked into, run by run."""
        claims = going_on([self._known.get(write.run_id) for write in batch], batch)
        if claims is None:
            return None
        verdicts: list[Written] = []
        try:
            verdicts = await self._insert(worker_id, claims, batch, sync=sync)
        except StoreRefused:
            return None
        except Undone:
            pass
        except BaseException:
            self._forget(batch)  # all may be there, or on its way
            raise
        if not verdicts:
            self._forget(batch)
            return []
        for claim, write in zip(claims, batch, strict=True):
            claim.last = write.entries[-1].seq
        return verdicts

    def _forget(self, batch: Sequence[RunWrite]) -> None:
        for write in batch:
            self._known.pop(write.run_id, None)

    def _know(self, run_id: str, known: Known) -> None:
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[run_id] = known
