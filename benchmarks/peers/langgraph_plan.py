"""LangGraph: a graph of one node that loops, with its SQLite saver, each checkpoint awaited."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any, TypedDict

import plan
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    work: dict[str, Any]


async def advance(state: State) -> State:
    return {"work": plan.advanced(state["work"])}


async def main() -> None:
    plans, at_once, folder = plan.asked()
    graph = StateGraph(State)
    graph.add_node("advance", advance)
    graph.add_edge(START, "advance")
    graph.add_conditional_edges("advance", lambda state: END if state["work"]["n"] >= plan.STEPS else "advance")
    async with AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db")) as saver:
        await saver.conn.execute("PRAGMA synchronous = FULL")
        program = graph.compile(checkpointer=saver)

        async def run(name: str) -> int:
            config: Any = {"configurable": {"thread_id": name}, "recursion_limit": 100}
            ended = await program.ainvoke({"work": plan.first_state()}, config, durability="sync")
            return int(ended["work"]["n"])

        await plan.measure(f"LangGraph {version('langgraph')}", plans, at_once, run)


asyncio.run(main())
