"""How a session's messages become runs: a place in the line, then the run. A crash in between is found by whoever stands behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit import telemetry
from agentkit.agents.session import Sessions
from agentkit.errors import InvalidInput, InvalidKey, Overloaded, QueueFull, RunConflict, RunNotFound, UnknownAgent, UnknownTenant
from agentkit.runtime import submission

if TYPE_CHECKING:
    from agentkit.agents.session import Session
    from agentkit.inference.budgets import Budget
    from agentkit.ports.messages import UserMessage
    from agentkit.runtime.handle import RunHandle
    from agentkit.runtime.runtime import Runtime
    from agentkit.runtime.submission import Priority

NOTHING_STORED = (InvalidInput, InvalidKey, Overloaded, RunConflict, UnknownAgent, UnknownTenant)


def sessions_of(runtime: Runtime) -> Sessions:
    """The sessions of a runtime, which it need not have entered yet."""

    async def send(
        session: Session[Any], run_id: str, message: str | UserMessage, priority: Priority, budget: Budget | None
    ) -> RunHandle[Any]:
        asked = submission.Asked(tenant=session.tenant, principal=session.principal, budget=budget, priority=priority, session=session.name)
        (known,) = await runtime.engine.store.get([run_id])
        if known is None:
            in_line = await session.turns.enter(run_id)
            telemetry.SESSION_LINE.record(in_line, {telemetry.AGENT: session.agent.name})
        try:
            return (await submission.submit(runtime, session.agent, {run_id: message}, asked))[0]
        except QueueFull:
            raise
        except NOTHING_STORED:
            await session.turns.end(run_id)
            raise

    async def cancel(run_id: str) -> None:
        try:
            await runtime.handle(run_id).cancel("its session was deleted")
        except RunNotFound:
            return  # its sender has a place for it, and no run yet: without the place it is a new session's first

    return Sessions(runtime.values, runtime.registry.find, send, cancel)
