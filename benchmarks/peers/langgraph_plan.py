"""LangGraph: a graph of one node that loops, with its SQLite or PostgreSQL saver, each checkpoint awaited."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, TypedDict

import plan
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool


class State(TypedDict):
    work: dict[str, Any]


async def advance(state: State) -> State:
    return {"work": plan.advanced(state["work"])}


@asynccontextmanager
async def sqlite(url: str) -> AsyncGenerator[Any]:
    async with AsyncSqliteSaver.from_conn_string(url.removeprefix("sqlite:///")) as saver:
        await saver.conn.execute("PRAGMA synchronous = FULL")
        yield saver


@asynccontextmanager
async def postgresql(url: str) -> AsyncGenerator[Any]:
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(url, min_size=plan.CONNECTIONS, max_size=plan.CONNECTIONS, kwargs=settings) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        yield saver


async def main() -> None:
    url, plans, at_once = plan.asked()
    graph = StateGraph(State)
    graph.add_node("advance", advance)
    graph.add_edge(START, "advance")
    graph.add_conditional_edges("advance", lambda state: END if state["work"]["n"] >= plan.STEPS else "advance")
    async with sqlite(url) if url.startswith("sqlite") else postgresql(url) as saver:
        program = graph.compile(checkpointer=saver)

        async def run(name: str) -> int:
            config: Any = {"configurable": {"thread_id": name}, "recursion_limit": 100}
            ended = await program.ainvoke({"work": plan.first_state()}, config, durability="sync")
            return int(ended["work"]["n"])

        await plan.measure(f"LangGraph {version('langgraph')}", plans, at_once, run)


asyncio.run(main())
