"""`StepContext`: what a step, a tool or a probe may ask for as its first parameter."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from agentkit.agents.meta import Principal, meta_of
from agentkit.agents.services import services_of, tenant_of
from agentkit.durable.codec import PLAIN
from agentkit.errors import Misuse
from agentkit.later import Later
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    from agentkit.agents import spending
    from agentkit.agents.session import Session
    from agentkit.clock import Clock
    from agentkit.durable.execution import Execution
    from agentkit.inference.models import Models
else:
    spending = Later("agentkit.agents.spending")

T = TypeVar("T")


class StepContext:
    """What a step or a probe may ask for as its first parameter, if it is annotated so."""

    def __init__(self, execution: Execution, key: str = "", attempt: int = 1) -> None:
        self._execution, self._key, self._attempt = execution, key, attempt

    @property
    def execution(self) -> Execution:
        """The activation this context belongs to."""
        return self._execution

    @property
    def run_id(self) -> str:
        return self._execution.run.run_id

    @property
    def tenant(self) -> str:
        return self._execution.run.tenant

    @property
    def principal(self) -> Principal:
        """On whose behalf the run acts; nobody's, without permissions, where it was started without one."""
        return meta_of(self._execution).principal

    @cached_property
    def models(self) -> Models:
        """The models of the runtime, under the names of the run's tenant. What they cost is on the run's account."""
        ex, services = self._execution, services_of(self._execution)
        tenant = services.tenants.label(ex.run.tenant)
        return services.models.seen_by(aliases=tenant_of(ex).models, meter=spending.StepMeter(self), tenant=tenant)

    @property
    def session(self) -> Session[Any] | None:
        """The session that the run belongs to. What is done here with it is done again when the step is."""
        return services_of(self._execution).sessions.of(self._execution)

    @property
    def attempt(self) -> int:
        """1, and one more for each retry of the step's policy and each earlier start that a crash or an operator ended."""
        return self._attempt

    @property
    def idempotency_key(self) -> str:
        """Run and step: the same in every attempt, so that a target can tell a repetition."""
        return f"{self.run_id}:{self._key}"

    @property
    def fence(self) -> int:
        """Rises with each owner of the run: a target that keeps the highest can refuse a frozen one that thawed."""
        return self._execution.claim.fence

    @property
    def remaining_s(self) -> float:
        """Seconds until the run's deadline; infinite without one."""
        deadline = self._execution.run.deadline
        return float("inf") if deadline is None else max(0.0, deadline - self._execution.store_now())

    def get(self, kind: type[T], /) -> T:
        """The app's own resource of that type, from `lifespan`."""
        found = self._execution.host.resources.get(kind)
        if not isinstance(found, kind):
            known = ", ".join(sorted(k.__qualname__ for k in self._execution.host.resources)) or "none"
            raise Misuse(f"no resource of type {kind.__qualname__} (lifespan gave: {known}): yield it from Runtime(lifespan=…)")
        return found

    async def progress(self, data: BaseModel | Any, /) -> None:
        """Tell whoever follows the run. The event is shown once it is durable; a body that runs again tells again."""
        self.tell(EntryKind.PROGRESS, to_jsonable_python(data))

    def tell(self, kind: EntryKind, what: object) -> None:
        """Journal something that is only told, and that no replay reads."""
        self._execution.journal.append(kind, self._key, PLAIN.encode(what, kind.name.lower()), attempt=self._attempt)

    async def room(self) -> None:
        """Wait while the store is behind with what this process told it."""
        if self._execution.host.lane.full:
            await self._execution.host.lane.room()

    @property
    def clock(self) -> Clock:
        """The clock of the runtime: in tests it stands still until they move it."""
        return self._execution.host.clock
