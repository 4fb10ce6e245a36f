"""`ctx.extend_budget`: allowing a run more than it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.agents.meta import meta_of
from agentkit.agents.services import services_of
from agentkit.agents.spending import account_of_run
from agentkit.agents.step_context import StepContext
from agentkit.inference.budgets import Budget

if TYPE_CHECKING:
    from agentkit.agents.context import Context


async def extend_budget(ctx: Context, budget: Budget) -> None:
    """Allow more in the account that the run itself was given, else in the nearest above it: one durable step."""
    await ctx.step("extend_budget", _extend, budget)


async def _extend(step: StepContext, by: Budget) -> None:
    ex = step.execution
    given = meta_of(ex).budgets
    if given:
        run_id, limit = list(given.items())[-1]
        await services_of(ex).budgets.extend(account_of_run(run_id, limit), step.idempotency_key, by, now=ex.store_now())
