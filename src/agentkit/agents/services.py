"""What a runtime gives to the verbs of agents beside its stores, and how they find it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agentkit.agents.tenants import Tenant, Tenants

if TYPE_CHECKING:
    from agentkit.agents.session import Sessions
    from agentkit.durable.execution import Execution
    from agentkit.inference.budgets import Budgets
    from agentkit.inference.models import Models
    from agentkit.ports.values import ValueStore
    from agentkit.resilience.state import PolicyState


class Services(NamedTuple):
    """One of each for a runtime.

    Args:
        models: with the runtime's limits; under a run's own names, see `StepContext.models`.
        policies: the state behind the names of policies.
    """

    models: Models
    tenants: Tenants
    budgets: Budgets
    values: ValueStore
    policies: PolicyState
    sessions: Sessions


def services_of(ex: Execution) -> Services:
    """Of the runtime that a run is at work in."""
    found: Services = ex.host.services
    return found


def tenant_of(ex: Execution) -> Tenant:
    """Whose run it is, as it was when the activation began."""
    if ex.tenant is None:
        ex.tenant = Tenant(id=ex.run.tenant)
    found: Tenant = ex.tenant
    return found
