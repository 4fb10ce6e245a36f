"""A run that goes on for long: whether it slows down, and how many bytes it leaves."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio

from agentkit import Agent, Context, Runtime
from benchmarks.figures import Bar, Bench, Figure

Message = dict[str, Any]
WINDOW = 50
TEXT = "What the model said, in the usual length of such a message. " * 16

marks: dict[str, list[float]] = {}


async def reply(turn: int) -> Message:
    return {"role": "assistant", "turn": turn, "text": TEXT}


async def reply_to(history: list[Message]) -> Message:
    return {"role": "assistant", "turn": len(history), "text": TEXT}


class Growing(Agent[int, int]):
    """Each step adds a message of about 1 KB."""

    async def run(self, ctx: Context, input: int) -> int:
        history: list[Message] = []
        times = marks.setdefault(ctx.run_id, [time.perf_counter()])
        for turn in range(input):
            history.append(await ctx.step("reply", reply, turn))
            await ctx.durable()
            times.append(time.perf_counter())
        return len(history)


class Rereading(Agent[int, int]):
    """The same, but each step gets the whole history, which is its identity too."""

    async def run(self, ctx: Context, input: int) -> int:
        history: list[Message] = []
        times = marks.setdefault(ctx.run_id, [time.perf_counter()])
        for _ in range(input):
            history.append(await ctx.step("reply", reply_to, list(history)))
            await ctx.durable()
            times.append(time.perf_counter())
        return len(history)


def pages_bytes(path: Path) -> int:
    """Bytes of the whole file, with what is still in its log."""
    with closing(sqlite3.connect(path)) as connection:
        (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        return int(pages) * int(size)


def result_bytes(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT coalesce(sum(length(body)), 0) FROM journal WHERE kind = 1").fetchone()[0])


class GrowingRow:
    """300 steps of one run."""

    name = "history"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        steps, path = bench.size(300, 2 * WINDOW), bench.file("history")

        async def kept_pace(agent: type[Agent[int, int]]) -> float:
            run_id = f"{agent.name}-{len(marks)}"
            await runtime.run(agent, steps, run_id=run_id)
            times = marks[run_id]
            return (times[WINDOW] - times[0]) / (times[-1] - times[-1 - WINDOW])

        async with Runtime(state=f"sqlite:///{path}", agents=[Growing, Rereading], values="memory://", limits="memory://") as runtime:
            empty = pages_bytes(path)
            samples = await bench.alternate({"index": lambda: kept_pace(Growing)})
            grown, results = pages_bytes(path) - empty, result_bytes(path)
            whole = await bench.alternate({"history": lambda: kept_pace(Rereading)})
        return [
            Figure(f"rate of the last {WINDOW} of {steps} steps / of the first {WINDOW}", samples.median("index"), "x", Bar(0.9)),
            Figure(
                "bytes of the database / bytes of the results",
                grown / results,
                "x",
                Bar(1.5, at_least=False),
                {"results MB": results / 1e6},
            ),
            Figure("the first, where each step gets the whole history as an argument", whole.median("history"), "x"),
        ]
