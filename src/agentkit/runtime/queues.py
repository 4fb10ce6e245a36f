"""`runtime.queue`: what an operator asks of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from agentkit.agents.base import AnyAgent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from agentkit.ports.queue import Depth
    from agentkit.runtime.runtime import Runtime


class DeadTicket(BaseModel, frozen=True, defer_build=True):
    """A run that was given up, with the reason."""

    run_id: str
    agent: str
    version: str
    tenant: str
    reason: str
    attempts: int


class Queues:
    """Depth, dead letters, redrive."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def depth(self) -> dict[str, Depth]:
        """How much waits, per `name@version`: ready, delayed, leased, dead, and the age of the oldest."""
        return await self._runtime.tickets.depth()

    async def dead(self, *, agent: AnyAgent | str | None = None, limit: int = 1000) -> AsyncIterator[DeadTicket]:
        """Tickets that were buried."""
        for letter in await self._runtime.tickets.dead(kind=_name(agent), limit=limit):
            t = letter.ticket
            yield DeadTicket(
                run_id=t.run_id, agent=t.kind, version=t.version, tenant=t.tenant, reason=letter.reason, attempts=letter.deliveries
            )

    async def redrive(self, run_ids: Iterable[str] | None = None, /, *, agent: AnyAgent | str | None = None) -> int:
        """Revive buried runs (default: those of the dead tickets) and queue them; returns how many."""
        name = _name(agent)
        ids = None if run_ids is None else list(run_ids)
        back = set(await self._runtime.tickets.redrive(ids, kind=name)) | set(ids or ())
        if ids is None:
            async for info in self._runtime.runs(agent=name, status="buried"):
                back.add(info.run_id)
        tickets = [t for run_id in sorted(back) if (t := await self._runtime.store.revive(run_id)) is not None]
        await self._runtime.engine.dispatch(tickets)
        return len(tickets)


def _name(agent: AnyAgent | str | None) -> str | None:
    return agent if agent is None or isinstance(agent, str) else agent.name
