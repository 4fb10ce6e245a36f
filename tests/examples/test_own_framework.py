"""Bring your own framework: with the stand-ins, and with LangGraph and Pydantic AI themselves where they are installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from agentkit import Budget, Model, Price, RunError
from agentkit.testing import runtime
from examples.common.offline import offline
from examples.own_framework import graph, typed
from examples.own_framework.__main__ import echo
from examples.own_framework.agents import Answer, ByGraph, ByTyped, Frameworks, Question

GRAPHS = [graph.StandIn(list(graph.NODES.values())), *([graph.compiled()] if find_spec("langgraph") else [])]
TALKERS = [typed.StandIn(), *([typed.PydanticAI()] if find_spec("pydantic_ai") else [])]
SKY = Question(text="Why is the sky blue?")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Both frameworks run on asyncio alone."""
    return "asyncio"


@pytest.mark.parametrize("made", GRAPHS)
async def test_a_graph_runs_in_a_step_and_its_nodes_find_the_runtime_in_its_config(made: graph.Graph) -> None:
    resources = {Frameworks: Frameworks(made, typed.StandIn())}
    async with runtime(agents=[ByGraph], models={"chat": offline(echo)}, resources=resources) as rt:
        handle = await rt.submit(ByGraph, SKY, run_id="r")
        assert await handle.result() == Answer(text="One asks: Why is the sky blue.", by=type(made).__name__)
        told = [event.data async for event in handle.events() if event.type == "progress"]
        assert told == [{"node": "draft"}, {"node": "improve"}]


@pytest.mark.parametrize("made", TALKERS)
async def test_a_typed_agent_asks_the_models_of_the_runtime(made: typed.Talker) -> None:
    model = offline(echo)
    resources = {Frameworks: Frameworks(GRAPHS[0], made)}
    async with runtime(agents=[ByTyped], models={"chat": model}, resources=resources) as rt:
        assert "Why is the sky blue" in (await rt.run(ByTyped, SKY, run_id="r")).text
    assert typed.INSTRUCTIONS in model.prompts[0]


@pytest.mark.parametrize("made", GRAPHS)
async def test_after_a_crash_the_graph_begins_anew_and_an_answer_that_was_kept_does_not(made: graph.Graph) -> None:
    model, resources = offline(echo), {Frameworks: Frameworks(made, typed.StandIn())}
    async with runtime(agents=[ByGraph], models={"chat": model}, resources=resources) as rt:
        await rt.crash(at="graph")
        handle = await rt.submit(ByGraph, SKY, run_id="r")
        await handle.result()
        assert rt.crashed == 1
        assert len(model.requests) == 4
        await rt.run(ByGraph, SKY, run_id="r")
        assert len(model.requests) == 4


@pytest.mark.parametrize("made", GRAPHS)
async def test_what_the_framework_asks_is_on_the_budget_of_the_run(made: graph.Graph) -> None:
    dear = Model(offline(echo), price=Price.model_validate({"input": 10.0, "output": 10.0, "as_of": "2026-10-01"}))
    resources = {Frameworks: Frameworks(made, typed.StandIn())}
    async with runtime(agents=[ByGraph], models={"chat": dear}, resources=resources) as rt:
        with pytest.raises(RunError, match="BudgetExceeded"):
            await rt.run(ByGraph, SKY, run_id="r", budget=Budget(usd=0.000_01))
