"""The agents around the frameworks: each run is durable, queued, bounded and observed; what happens inside the step is the framework's."""

from __future__ import annotations

from pydantic import BaseModel

from agentkit import Agent, CircuitBreaker, Context, Policy, Semaphore, StepContext
from examples.own_framework.graph import Graph
from examples.own_framework.typed import Talker

FRAMEWORK = Policy("framework", timeout_s=120, breaker=CircuitBreaker(), limits=[Semaphore("framework", 20)])
"""The models have policies of their own; this one bounds the whole call, and does not repeat it: it may have asked models twice already."""


class Question(BaseModel):
    """What somebody wants to know."""

    text: str


class Answer(BaseModel):
    """What the framework says."""

    text: str
    by: str


class Frameworks:
    """The graph and the agent, made once per process: a resource as any other."""

    def __init__(self, graph: Graph, talker: Talker) -> None:
        self.graph, self.talker = graph, talker


class ByGraph(Agent[Question, Answer]):
    """Asks the graph, in one step: after a crash the graph begins anew, under the same idempotency key."""

    async def run(self, ctx: Context, question: Question) -> Answer:
        return await ctx.step("graph", call_graph, question, policy=FRAMEWORK)


class ByTyped(Agent[Question, Answer]):
    """Asks the Pydantic AI agent, in one step."""

    async def run(self, ctx: Context, question: Question) -> Answer:
        return await ctx.step("typed", call_typed, question, policy=FRAMEWORK)


async def call_graph(step: StepContext, question: Question) -> Answer:
    """The step travels in the graph's config, where nodes find models, resources and progress."""
    graph = step.get(Frameworks).graph
    state = await graph.ainvoke({"question": question.text}, {"configurable": {"step": step, "thread_id": step.run_id}})
    return Answer(text=str(state["answer"]), by=type(graph).__name__)


async def call_typed(step: StepContext, question: Question) -> Answer:
    """The step is the agent's `deps`."""
    talker = step.get(Frameworks).talker
    return Answer(text=await talker.answer(question.text, step), by=type(talker).__name__)
