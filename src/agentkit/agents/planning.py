"""`PlanningAgent`: a model or code makes a plan, the run carries it out, and makes another one when it failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic_core import to_json

from agentkit.agents.base import Agent, AnyAgent, I_contra, O_co, input_codec, output_codec
from agentkit.errors import PlanFailed, PlanInvalid, StepError
from agentkit.plan.check import faults_of
from agentkit.plan.fit import of_arguments, of_result, shown
from agentkit.plan.model import Plan, PlanResult
from agentkit.plan.uses import Use, uses_of
from agentkit.ports.messages import Message

if TYPE_CHECKING:
    from agentkit.agents.context import Context
    from agentkit.agents.tool import AnyTool

SHOWN_CHARS = 2_000  # of one result: enough to plan by, and a plan has many

HOW = """\
Answer with a plan: steps, each one call of something below. A step starts as soon as the steps that it refers to, and those named in its \
`after`, have ended; what does not depend on each other runs side by side. Wherever an argument needs the result of another step write \
{"ref": "id"}, or {"ref": "id.field"} for a part of it. `when` skips a step unless it holds. Nothing is known of results before they are \
there: do not make them up.

What steps may use:
"""


class PlanningAgent(Agent[I_contra, O_co]):
    """Makes a plan, carries it out, and turns what came of it into its result.

    By itself it asks `model` for the plan. Override `plan` to make it in code, for which it needs no model. A plan that failed was taken
    back as far as its steps say how; then another one is made, at most `max_replans` times. All of it is journalled: a run that goes on
    elsewhere makes no plan anew and no step twice.

    Raises `PlanFailed` when the last plan failed as well.
    """

    model: ClassVar[str] = "default"
    instructions: ClassVar[str] = ""
    tools: ClassVar[Sequence[AnyTool]] = ()
    agents: ClassVar[Sequence[AnyAgent]] = ()
    max_parallel: ClassVar[int] = 16
    """Steps of a plan at a time."""
    max_replans: ClassVar[int] = 2
    """Further plans after the first; and how often a model is told what is wrong with a plan before any of it ran."""

    async def plan(self, ctx: Context, input: I_contra, failed: PlanResult | None, /) -> Plan:
        """The plan to carry out. By default the model's.

        Args:
            failed: what became of the plan before this one; None at first.

        Raises:
            PlanInvalid: the model's plans had faults to the last.
            StepError: the model could not be asked.
        """
        asked = [*self._asked(input), *([Message(role="user", content=_told(failed))] if failed else [])]
        faults: list[str] = []
        for _ in range(self.max_replans + 1):
            written, faults = await self._drafted(ctx, asked)
            if isinstance(written, Plan):
                return written
            said = Message(role="assistant", content=written)
            asked += [said, Message(role="user", content=f"{PlanInvalid(faults)}\nAnswer with a plan that has none of these faults.")]
        raise PlanInvalid(faults)

    async def finish(self, ctx: Context, input: I_contra, result: PlanResult, /) -> O_co:
        """The run's result. By default that of the plan's last step, as it is written."""
        last = result.plan.steps[-1].id if result.plan.steps else "the last"
        value: O_co = output_codec(type(self)).decode(to_json(result.get(last)), f"result of {self.name!r}")
        return value

    async def run(self, ctx: Context, input: I_contra, /) -> O_co:
        """Plan, carry out, plan anew."""
        result = await self._carry_out(ctx, input, None)
        for _ in range(self.max_replans):
            if not result.failed:
                break
            result = await self._carry_out(ctx, input, result)
        if result.failed:
            raise PlanFailed(self.max_replans + 1, result.failed, result.undo_failed, ctx.run_id)
        return await self.finish(ctx, input, result)

    async def _carry_out(self, ctx: Context, input: I_contra, failed: PlanResult | None) -> PlanResult:
        plan = await self.plan(ctx, input, failed)
        return await ctx.execute(plan, tools=self.tools, agents=self.agents, max_parallel=self.max_parallel)

    async def _drafted(self, ctx: Context, asked: Sequence[Message]) -> tuple[Plan | str, list[str]]:
        """A plan without faults; or what the model wrote, and its faults."""
        form = Plan.schema_for(tools=self.tools, agents=self.agents)
        try:
            plan = (await ctx.generate(asked, output=form, model=self.model)).output
        except StepError as exc:
            if exc.kind != "OutputInvalid":
                raise
            return "(no plan)", [exc.message]
        faults = faults_of(plan.steps, uses_of(self.tools, self.agents))
        return (plan.model_dump_json(exclude_defaults=True), faults) if faults else (plan, [])

    def _asked(self, input: I_contra) -> list[Message]:
        system = "\n\n".join(filter(None, [self.instructions, HOW + _uses(uses_of(self.tools, self.agents).values())]))
        said = input if isinstance(input, str) else input_codec(type(self)).encode(input, f"input of {self.name!r}").decode()
        return [Message(role="system", content=system), Message(role="user", content=said)]


def _uses(uses: Iterable[Use]) -> str:
    return "\n".join(
        f"- {use.name} takes {shown(of_arguments(use.arguments))}, gives {shown(of_result(use.returns))}: {use.description}" for use in uses
    )


def _told(result: PlanResult) -> str:
    """What a model is told of a plan that failed."""
    lines = [f"Your plan failed: {result.plan.model_dump_json(exclude_defaults=True)}"]
    lines += [f"- step {step!r} failed: {error.kind}: {error.message}" for step, error in result.failed.items()]
    for step in result.done:
        if step in result.undone:
            lines.append(f"- step {step!r} was done and taken back")
        else:
            lines.append(f"- step {step!r} was done, its result: {to_json(result.get(step)).decode()[:SHOWN_CHARS]}")
    lines += [f"- step {step!r} could not be taken back: {error.kind}: {error.message}" for step, error in result.undo_failed.items()]
    lines.append("Answer with another plan for what is left to do. It cannot refer to steps of this one: write out what you need of them.")
    return "\n".join(lines)
