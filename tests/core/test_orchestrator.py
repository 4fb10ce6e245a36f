"""`Orchestrator`: specialists work side by side as runs of their own, and their results are joined as far as they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agentkit import Agent, Child, Context, Need, Outcomes, RunError, Signal
from agentkit.agents.orchestrator import Orchestrator
from agentkit.testing import runtime


class Specialist(Agent[str, str]):
    go = Signal(str)

    async def run(self, ctx: Context, question: str, /) -> str:
        if question == "wait":
            return await ctx.wait_for(self.go)
        if question == f"not {self.name}":
            raise LookupError(f"{self.name} does not know")
        return f"{self.name} says {question}"


class Law(Specialist):
    pass


class Tax(Specialist):
    pass


class Research(Orchestrator[str, str]):
    """Every specialist is asked the same."""

    specialists = (Law, Tax)

    async def join(self, ctx: Context, question: str, outcomes: Outcomes[Any], /) -> str:
        return ", ".join(outcomes.good.values()) + "".join(f", but {key}: {error.kind}" for key, error in outcomes.bad.items())


class Lenient(Research):
    need = Need.at_least(1, within_s=60)


class Assigned(Research):
    async def assign(self, ctx: Context, question: str, /) -> Mapping[str, Child[Any]]:
        return {"first": Law.of(question), "second": Law.of(question.upper())}


class Unfinished(Orchestrator[str, str]):
    specialists = (Law,)


async def test_each_specialist_is_asked_and_their_answers_are_joined() -> None:
    async with runtime(agents=[Research]) as rt:
        assert await rt.run(Research, "why?", run_id="r") == "law says why?, tax says why?"
        assert (await rt.handle("r/join#1/law").info()).status == "done"


async def test_assignments_have_keys_of_their_own() -> None:
    async with runtime(agents=[Assigned]) as rt:
        assert await rt.run(Assigned, "why?") == "law says why?, law says WHY?"


async def test_with_need_for_all_one_failure_fails_the_run() -> None:
    async with runtime(agents=[Research]) as rt:
        with pytest.raises(RunError, match="law does not know"):
            await rt.run(Research, "not law")


async def test_with_less_need_the_failed_are_told_to_join() -> None:
    async with runtime(agents=[Lenient]) as rt:
        assert await rt.run(Lenient, "not law") == "tax says not law, but law: LookupError"


async def test_while_specialists_work_the_orchestrator_holds_no_slot() -> None:
    async with runtime(agents=[Research]) as rt:
        handle = await rt.submit(Research, "wait", run_id="r")
        await rt.settle()
        assert (await handle.info()).status == "waiting"
        assert not rt.engine.active
        for name, agent in (("law", Law), ("tax", Tax)):
            await rt.handle(f"r/join#1/{name}", agent).signal(Specialist.go, name)
        await rt.settle()
        assert await handle.result() == "law, tax"


async def test_a_class_without_join_says_so() -> None:
    async with runtime(agents=[Unfinished]) as rt:
        with pytest.raises(RunError, match="Unfinished must define"):
            await rt.run(Unfinished, "why?")
