"""`ctx.execute`: a plan as durable steps of a run. Each step has a scope of its own, so the order in which they end cannot matter.

plan#1/checked#1            the plan as it was when it passed its check: a replay carries out this one
plan#1/euro/when:euro#1     whether the condition held
plan#1/hotel/hotel#1        the call of the tool, or the child run (#2: the agent's second attempt)
plan#1/concluded#1          what had ended when the plan was given up; from here a replay takes back the same in the same order
plan#1/hotel/undo:hotel#1
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue
from pydantic_core import to_json

from agentkit.agents.base import AnyAgent, input_codec
from agentkit.agents.tool import AnyTool
from agentkit.durable.approval import Halt, current_halt
from agentkit.durable.execution import time_limits
from agentkit.errors import JournalMismatch, RunError
from agentkit.plan.executor import Conclusion, Past, execute, holds
from agentkit.plan.model import Plan, PlanResult
from agentkit.plan.steps import PlanStep, When
from agentkit.plan.uses import INPUT
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Retry

if TYPE_CHECKING:
    from agentkit.agents.context import Context
    from agentkit.durable.journal import Journal, Record


async def execute_plan(
    ctx: Context, key: str, plan: Plan, tools: Sequence[AnyTool], agents: Sequence[AnyAgent], *, max_parallel: int
) -> PlanResult:
    """Check the plan, keep it, carry it out."""
    path, journal = f"{key}/", ctx.execution.journal
    left = journal.under(path)
    if f"{path}checked#1" not in left:
        plan.check(tools=tools, agents=agents)
    kept: Plan = await ctx.branch_at(path).step("checked", _constant(Plan(steps=plan.steps)), returns=Plan)
    hands = _Hands(ctx, path, tools, agents)
    hands.expect(kept)
    hands.past = _past(journal, path, left)
    return PlanResult(kept, await execute(kept.steps, hands, max_parallel))


def _past(journal: Journal, path: str, left: Mapping[str, Record]) -> Past:
    """What earlier activations left of the plan at `path`.

    A step that failed without an outcome in the journal, like a child that could not be made, is concluded all the same: it is forgotten,
    for asked again it might start now.
    """
    begun = {step for name in left for step, slash, _ in [name[len(path) :].partition("/")] if slash}
    concluded = left.get(f"{path}concluded#1")
    if concluded is None or concluded.outcome is None:
        return Past(frozenset(begun))
    conclusion = Conclusion.model_validate_json(concluded.outcome.body)
    unsettled = {name[len(path) :].partition("/")[0] for name, record in left.items() if record.outcome is None}
    for step in unsettled.intersection(conclusion.failed):
        journal.forget(f"{path}{step}/")
        begun.discard(step)
    return Past(frozenset(begun), conclusion)


def _constant(value: Any) -> Callable[[], Awaitable[Any]]:
    """The body of a step that only keeps what was known when it ran first."""

    async def body() -> Any:
        return value

    return body


class _Hands:
    """`Hands` that act through the verbs of a run."""

    past = Past()

    def __init__(self, ctx: Context, path: str, tools: Sequence[AnyTool], agents: Sequence[AnyAgent]) -> None:
        self._ctx, self._path = ctx, path
        self._tools = {tool.name: tool for tool in tools}
        self._agents = {agent.name: agent for agent in agents}
        self._halt = Halt()

    def expect(self, plan: Plan) -> None:
        """Raises `JournalMismatch` when the code no longer has what a plan of its journal uses."""
        for step in plan.steps:
            for name in (step.use, step.undo or step.use):
                if name not in self._tools and name not in self._agents:
                    raise JournalMismatch(
                        self._ctx.run_id, f"{self._path}{step.id}", f"a plan that uses {name!r}", "without such a tool or agent"
                    )

    @property
    def cut_by_time(self) -> bool:
        ex = self._ctx.execution
        return ex.leaving is None and not ex.draining and any(limit.struck for limit in time_limits.get())

    async def holds(self, step: PlanStep, when: When, value: JsonValue) -> bool:
        async def told() -> bool:
            return holds(when, value)

        return await self._scope(step).step(f"when:{step.id}", told)

    async def perform(self, step: PlanStep, arguments: Mapping[str, JsonValue]) -> object:
        if (agent := self._agents.get(step.use)) is not None:
            return await self._run(step, agent, arguments[INPUT])
        tool = self._tools[step.use]
        token = current_halt.set(self._halt)
        try:
            return await tool.perform(self._scope(step), tool.parse(arguments), name=step.id, policy=self._attempts(tool, step))
        finally:
            current_halt.reset(token)

    def halt(self) -> None:
        self._halt.strike()

    def can_take_back(self, step: PlanStep) -> bool:
        tool = self._tools.get(step.use)
        return step.undo is not None or (tool is not None and tool.effect is not None and tool.has_undo)

    async def take_back(self, step: PlanStep, arguments: Mapping[str, JsonValue], result: object) -> None:
        scope, name = self._scope(step), f"undo:{step.id}"
        if step.undo is None:
            tool = self._tools[step.use]
            await tool.take_back(scope, tool.parse(arguments), result, name=name)
            return
        tool = self._tools[step.undo]
        known = {**arguments, "result": result}
        await tool.perform(scope, tool.parse({given: known[given] for given in tool.arguments.model_fields if given in known}), name=name)

    async def conclude(self, conclusion: Conclusion) -> Conclusion:
        kept: Conclusion = await self._ctx.branch_at(self._path).step("concluded", _constant(conclusion), returns=Conclusion)
        return kept

    @asynccontextmanager
    async def unhindered(self) -> AsyncGenerator[None]:
        token = time_limits.set(())
        try:
            async with self._ctx.shield():
                yield
        finally:
            time_limits.reset(token)

    def _scope(self, step: PlanStep) -> Context:
        return self._ctx.branch_at(f"{self._path}{step.id}/")

    async def _run(self, step: PlanStep, agent: AnyAgent, given: JsonValue) -> object:
        """A child run; when it fails, another one, as often as the plan says."""
        scope, value = self._scope(step), input_codec(agent).decode(to_json(given), f"input of {agent.name!r}")
        for _ in range(step.attempts - 1):
            try:
                return await scope.run(step.id, agent, value)
            except RunError:
                continue
        return await scope.run(step.id, agent, value)

    def _attempts(self, tool: AnyTool, step: PlanStep) -> Policy | None:
        """The tool's own policy, with as many attempts of any error as the plan says: within one step, so with one idempotency key."""
        if step.attempts == 1:
            return None
        own = tool.policy or self._ctx.policy or Policy()
        retry = replace(own.retry or Retry(), attempts=step.attempts, on=(Exception,))
        return Policy(own.name, timeout_s=own.timeout_s, retry=retry, breaker=own.breaker, limits=own.limits, hedge=own.hedge)
