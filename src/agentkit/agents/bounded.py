"""Policies on steps: the attempts of a policy are made inside the step, so they have one key, one journal entry and one retry budget."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from agentkit.durable.steps import Call, invoke
from agentkit.resilience.deadline import announced

if TYPE_CHECKING:
    from agentkit.durable.execution import Execution
    from agentkit.resilience.policy import Policy

INTENT_S = 5.0  # an effect's deadline runs from when its intent is sent, the policy's from when it is durable: a slow commit lies between


def under(ex: Execution, policy: Policy, call: Call) -> Call:
    """The call with each attempt of the policy as one run of its body. `StepContext.attempt` counts on with them.

    For an effect the intent says until when the body may be at work: the policy's whole time, where it has one.
    """
    limit_s = call.timeout_s
    if limit_s is None and (call.effect is not None or ex.strict):
        limit_s = ex.host.limits.effect_timeout_s if policy.timeout_s is None else policy.timeout_s + INTENT_S

    async def attempts(first: int, *args: Any) -> Any:
        attempt = first - 1

        async def once() -> Any:
            nonlocal attempt
            attempt += 1
            return await invoke(ex, call, args if call.with_context is None else (call.with_context(call, attempt), *args))

        with nullcontext() if limit_s is None else announced(limit_s, ex.host.clock):
            return await policy.call(once)

    return Call(
        call.key,
        call.name,
        attempts,
        call.args,
        codec=call.codec,
        is_async=True,
        fp=call.fp,
        with_context=_attempt,
        effect=call.effect,
        probe=call.probe,
        timeout_s=limit_s,
        gate=call.gate,
    )


def _attempt(call: Call, attempt: int) -> int:
    return attempt
