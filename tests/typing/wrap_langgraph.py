"""An existing agent of another framework; only durability, queue and limits around it."""

from typing import Any, Protocol, cast

from pydantic import BaseModel

from agentkit import Agent, CircuitBreaker, Context, Policy, RateLimit, Retry, Runtime, Semaphore, StepContext


class Graph(Protocol):  # what LangGraph's CompiledStateGraph looks like from here
    async def ainvoke(self, input: dict[str, Any], config: dict[str, Any] | None = None) -> dict[str, Any]: ...


class Said(BaseModel):
    content: str


class Echo:
    """A graph for trying this out."""

    async def ainvoke(self, input: dict[str, Any], config: dict[str, Any] | None = None) -> dict[str, Any]:
        ((_, text),) = cast("list[tuple[str, str]]", input["messages"])
        return {"messages": [*input["messages"], Said(content=f"You said: {text}")]}


graph: Graph = Echo()


class Question(BaseModel):
    text: str
    user: str


class Answer(BaseModel):
    text: str


LLM = Policy(
    "openai",
    timeout_s=120,
    retry=Retry(attempts=3),
    breaker=CircuitBreaker(),
    limits=[Semaphore("openai", 20, shared=True), RateLimit("openai", rpm=500, tpm=200_000)],
)


async def call_graph(step: StepContext, question: Question) -> Answer:
    state = await graph.ainvoke({"messages": [("user", question.text)]}, {"configurable": {"thread_id": step.run_id}})
    await step.progress({"messages": len(state["messages"])})
    return Answer(text=str(state["messages"][-1].content))


class Wrapped(Agent[Question, Answer]):
    async def run(self, ctx: Context, question: Question) -> Answer:
        return await ctx.step("graph", call_graph, question, effect="rerun", policy=LLM)


async def outside_any_run(q: Question) -> dict[str, Any]:
    return await LLM.call(graph.ainvoke, {"messages": [("user", q.text)]})


def build(url: str) -> Runtime:
    return Runtime(state=url, agents=[Wrapped])
