"""Tenants: what each may use, looked up where the app keeps it and remembered for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from agentkit.errors import AgentKitError, StoreUnavailable, UnknownTenant
from agentkit.inference.budgets import Budget

if TYPE_CHECKING:
    from agentkit.clock import Clock
    from agentkit.ports.queue import Ticket

KEEP_S = 30.0  # so late a changed quota is noticed; looking it up for each run would be a query each
MOST = 10_000  # tenants remembered: some megabytes
MOST_WEIGHT = 1000  # a tenant of weight 1 beside it gets one turn in a thousand; and queues count turns exactly enough, however many


class Tenant(BaseModel):
    """One tenant's share.

    Args:
        weight: the turns that its queued runs get, of each priority, for one turn of a tenant of weight 1, while both have runs waiting;
            up to 1,000. It is that of the time when a run is queued. Not on SQS, which shares evenly by itself.
        max_running: runs at work at a time: each worker process takes no more of the queue, and `Runtime.run` starts no more in all, as
            far as `runtime.quotas` counts. A run that waits (for a signal, a timer, its children) is not at work.
        max_queued: runs that wait for a worker; `submit` refuses more. See `runtime.quotas` for how exact it is.
        budget_per_day: what its runs may spend in a day (UTC), together.
        budget_per_session: what one session may spend, as long as it is kept.
        models: which model stands for which in its runs: `{"chat": "chat-eu"}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    id: str
    weight: int = Field(default=1, ge=1, le=MOST_WEIGHT)
    max_running: int | None = Field(default=None, ge=0)
    max_queued: int | None = Field(default=None, ge=0)
    budget_per_day: Budget | None = None
    budget_per_session: Budget | None = None
    models: dict[str, str] = Field(default_factory=dict[str, str])


TenantSource: TypeAlias = Mapping[str, Tenant] | Callable[[str], Awaitable[Tenant]]


class Tenants:
    """The tenants of a runtime.

    Args:
        source: a mapping, which is looked at each time; an async function, whose answers are remembered for half a minute; or None, where
            every tenant is allowed everything.
    """

    def __init__(self, source: TenantSource | None, clock: Clock) -> None:
        self._source, self._clock = source, clock
        self._found: dict[str, tuple[float, Tenant]] = {}

    @property
    def bounded(self) -> bool:
        """Whether anybody may have a quota."""
        return self._source is not None

    def label(self, id: str) -> str:
        """The tenant as metrics name it: by its id where a mapping lists it, for those are few, and else not at all."""
        return "" if self._source is None or callable(self._source) or id not in self._source else id

    async def find(self, id: str) -> Tenant:
        """The tenant of that id. Runs without a tenant (`""`) are nobody's: only a function may have something to say of them.

        Raises:
            UnknownTenant: the mapping has no such tenant.
        """
        if self._source is None:
            return Tenant(id=id)
        if not callable(self._source):
            return self._listed(self._source, id)
        now = self._clock.monotonic()
        found = self._found.get(id)
        if found is None or found[0] <= now:
            if len(self._found) >= MOST:
                self._found.clear()
            found = self._found[id] = now + KEEP_S, await self._asked(self._source, id)
        return found[1]

    async def weighed(self, tickets: Sequence[Ticket]) -> Sequence[Ticket]:
        """The tickets with their tenants' weights. A tenant that cannot be found counts 1: its runs are stored, and wait for nothing."""
        if self._source is None:
            return tickets
        weights: dict[str, int] = {}
        for tenant in dict.fromkeys(ticket.tenant for ticket in tickets):
            try:
                weights[tenant] = (await self.find(tenant)).weight
            except UnknownTenant:
                continue
            except AgentKitError:
                break  # the app's table does not answer: asked for each of many tenants in turn it would hold up them all
        return [ticket._replace(weight=weights.get(ticket.tenant, 1)) for ticket in tickets]

    async def _asked(self, source: Callable[[str], Awaitable[Tenant]], id: str) -> Tenant:
        try:
            return await source(id)
        except AgentKitError:
            raise
        except Exception as exc:
            raise StoreUnavailable("tenants", f"tenant {id!r} could not be looked up: {exc}") from exc

    def _listed(self, tenants: Mapping[str, Tenant], id: str) -> Tenant:
        tenant = tenants.get(id)
        if tenant is None and id:
            raise UnknownTenant(id, tenants)
        return tenant or Tenant(id=id)
