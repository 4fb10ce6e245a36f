"""What a tenant may have running and waiting, asked when a run is asked for: too much is refused before anything is written.

The store is counted no oftener than `COUNT_EVERY_S`, and so seldom that counting takes a twentieth of the time at most. In between a
process adds what it admits itself. So one process that submits alone never admits too many; several may exceed a quota together by what
they admit between two counts, and a place that became free is given away only after the next.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import anyio

from agentkit.errors import AgentKitError, Overloaded
from agentkit.ports.records import RunQuery, RunStatus
from agentkit.runtime.events import PUBLIC

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from agentkit.agents.tenants import Tenants
    from agentkit.clock import Clock
    from agentkit.ports.runs import RunStore

COUNT_EVERY_S = 1.0  # a run takes longer than that, so a quota changes little meanwhile
SHARE = 20  # times as long as a count took is the pause after it: a tenant with many runs costs the store no more than others
PAGE = 500  # rows of one read


class _Count:
    """Runs of one tenant in one state."""

    __slots__ = ("arriving", "lock", "runs", "stale_at")

    def __init__(self) -> None:
        self.runs, self.stale_at = 0, -1.0
        self.arriving = 0
        """Admitted, and perhaps not yet stored: a count may not see them."""
        self.lock = anyio.Lock()


class Quotas:
    """The quotas of all tenants, as this process sees them."""

    def __init__(self, store: RunStore, tenants: Tenants, clock: Clock) -> None:
        self._store, self._tenants, self._clock = store, tenants, clock
        self._counts: dict[tuple[str, RunStatus], _Count] = {}

    def queueing(self, tenant_id: str, runs: int) -> AbstractAsyncContextManager[None]:
        """Admit so many runs to the queue; the block stores them. Raises `UnknownTenant`, and `Overloaded` beyond `max_queued`."""
        return self._admitted(tenant_id, RunStatus.READY, runs) if self._tenants.bounded else nullcontext()

    def starting(self, tenant_id: str) -> AbstractAsyncContextManager[None]:
        """Admit a run that starts at once; the block stores it. Raises `UnknownTenant`, and `Overloaded` beyond `max_running`."""
        return self._admitted(tenant_id, RunStatus.RUNNING, 1) if self._tenants.bounded else nullcontext()

    async def has_place(self, tenant_id: str, at_work: int) -> bool:
        """Whether a worker where so many of the tenant's runs are at work may take one more. What cannot be found out holds up nobody."""
        try:
            tenant = await self._tenants.find(tenant_id)
        except AgentKitError:
            return True
        return tenant.max_running is None or at_work < tenant.max_running

    @asynccontextmanager
    async def _admitted(self, tenant_id: str, status: RunStatus, runs: int) -> AsyncGenerator[None]:
        tenant = await self._tenants.find(tenant_id)
        most = tenant.max_queued if status == RunStatus.READY else tenant.max_running
        if most is None:
            yield
            return
        count = self._counts.setdefault((tenant_id, status), _Count())
        async with count.lock:
            if self._clock.monotonic() >= count.stale_at:
                await self._recount(count, tenant_id, status, most)
            if count.runs + runs > most:
                raise Overloaded(f"tenant {tenant_id!r} ({PUBLIC[status]} runs)", most, COUNT_EVERY_S)
            count.runs += runs
        count.arriving += runs
        try:
            yield
        finally:
            count.arriving -= runs

    async def _recount(self, count: _Count, tenant_id: str, status: RunStatus, most: int) -> None:
        began, runs, after = self._clock.monotonic(), count.arriving, ""
        while runs <= most:
            page = await self._store.list(RunQuery(tenant=tenant_id, status=frozenset({status}), after=after, limit=PAGE))
            runs += len(page)
            if len(page) < PAGE:
                break
            after = page[-1].run_id
        ended = self._clock.monotonic()
        count.runs, count.stale_at = runs, ended + max(COUNT_EVERY_S, SHARE * (ended - began))
