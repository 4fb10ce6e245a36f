"""A LangGraph graph of two nodes, which write an answer and improve it. Where langgraph is missing, a stand-in walks the same nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, TypeAlias, TypedDict

from agentkit import StepContext

RunnableConfig: TypeAlias = Mapping[str, Any]
"""LangGraph's name for what travels beside the state: it gives nodes what is annotated so."""


class State(TypedDict, total=False):
    """What the nodes know."""

    question: str
    draft: str
    answer: str


class Graph(Protocol):
    """What the agent needs of a compiled graph."""

    async def ainvoke(self, input: Any, config: Any = None, /) -> Any: ...


async def draft(state: State, config: RunnableConfig) -> State:
    """Write an answer. The model is one of the runtime's: under its policy, on the run's budget, at the tenant's name for it."""
    step: StepContext = config["configurable"]["step"]
    await step.progress({"node": "draft"})
    return {"draft": (await step.models.generate("chat", f"Answer: {state.get('question', '')}")).output}


async def improve(state: State, config: RunnableConfig) -> State:
    """Make it shorter."""
    step: StepContext = config["configurable"]["step"]
    await step.progress({"node": "improve"})
    return {"answer": (await step.models.generate("chat", f"Shorten: {state.get('draft', '')}")).output}


NODES: Mapping[str, Callable[[State, RunnableConfig], Awaitable[State]]] = {"draft": draft, "improve": improve}


def build() -> Graph:
    """The graph: LangGraph's where it is installed."""
    return compiled() if find_spec("langgraph") else StandIn(list(NODES.values()))


def compiled() -> Graph:
    """By LangGraph."""
    langgraph: Any = import_module("langgraph.graph")  # by its name: the type checkers of this repository need not have it
    graph = langgraph.StateGraph(State)
    for name, node in NODES.items():
        graph.add_node(name, node)
    graph.add_edge(langgraph.START, "draft")
    graph.add_edge("draft", "improve")
    graph.add_edge("improve", langgraph.END)
    made: Graph = graph.compile()
    return made


class StandIn:
    """Walks the nodes in order, as the graph does."""

    def __init__(self, nodes: Sequence[Callable[[State, RunnableConfig], Awaitable[State]]]) -> None:
        self._nodes = nodes

    async def ainvoke(self, input: State, config: RunnableConfig | None = None, /) -> State:
        """The state after the last node."""
        state = input.copy()
        for node in self._nodes:
            state.update(await node(state, config or {}))
        return state
