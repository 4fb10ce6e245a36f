"""A backend that is down is not sent the same work many times over, however many layers between a run and its server try again."""

from __future__ import annotations

import pytest

from agentkit.agents.base import Agent
from agentkit.agents.context import Context
from agentkit.agents.step_context import StepContext
from agentkit.agents.tenants import Tenant
from agentkit.errors import StepError, Unreachable
from agentkit.inference.places import Model, Place
from agentkit.inmemory.inference import ScriptedInference, from_endpoint
from agentkit.ports.inference import Endpoint
from agentkit.ports.messages import Answer, Request
from agentkit.resilience.circuit_breaker import CircuitBreaker
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Retry
from agentkit.testing import runtime

AGAIN = Retry(attempts=3, wait_s=0)  # 3 of the step x 3 of the model x 3 of the endpoint: 27 attempts of each call, if they multiplied
SAVED = 100  # calls, until what the budgets had saved up is used
CALLS = 400


class Dead(ScriptedInference):
    """A server that nobody reaches."""

    sent = 0

    async def generate(self, request: Request) -> Answer:
        self.sent += 1
        raise Unreachable("eu", "connection refused")


async def ask(step: StepContext, n: int) -> str:
    return (await step.models.generate("chat", f"question {n}")).output


class Asks(Agent[int, int]):
    """Asks so often, and says how often in vain."""

    async def run(self, ctx: Context, n: int, /) -> int:
        failed = 0
        for i in range(n):
            try:
                await ctx.step("ask", ask, i, policy=Policy("step", retry=AGAIN))
            except StepError:
                failed += 1
        return failed


@pytest.mark.parametrize(("with_fallback", "with_breaker"), [(False, False), (True, False), (False, True), (True, True)])
async def test_step_alias_model_and_endpoint_together_make_at_most_one_attempt_in_five_in_vain(
    with_fallback: bool, with_breaker: bool
) -> None:
    dead = Dead()
    endpoint = Policy("endpoint", retry=AGAIN, breaker=CircuitBreaker() if with_breaker else None)
    models = {
        "chat-eu": Model(
            Place(engine=dead, policy=endpoint), policy=Policy("model", retry=AGAIN), fallback=["spare"] if with_fallback else []
        ),
        "spare": from_endpoint(Endpoint(name="spare", url="memory://")),
    }
    tenants = {"acme": Tenant(id="acme", models={"chat": "chat-eu"})}
    async with runtime(agents=[Asks], models=models, tenants=tenants) as rt:
        await rt.run(Asks, SAVED, tenant="acme")
        before = dead.sent
        failed = await rt.run(Asks, CALLS, tenant="acme")
    assert failed == (0 if with_fallback else CALLS)
    assert (dead.sent - before) / CALLS <= 1.2
    if not with_breaker:
        assert dead.sent - before >= CALLS  # each call was tried
    else:
        assert dead.sent < CALLS / 10  # few were sent at all
