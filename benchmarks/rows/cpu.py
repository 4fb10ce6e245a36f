"""What a step costs beside the store: processor time of the whole process, with a store that answers at once and keeps nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio
from anyio.lowlevel import checkpoint

from agentkit import Runtime
from agentkit.agents.base import AnyAgent
from agentkit.inmemory.runs import InMemoryRuns
from agentkit.ports.records import RunWrite, Written
from benchmarks.figures import Bar, Bench, Figure
from benchmarks.work import AT_ONCE, LockStep, RunAhead, bare, side_by_side

STEPS = 100  # of a run: what its start and end cost shows in the rows of whole runs


class NullRuns(InMemoryRuns):
    """Forgets journals; runs still begin and end."""

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        await checkpoint()
        leaving = [one._replace(entries=()) for one in batch if one.release is not None]
        verdicts = iter(await super().write(worker_id, leaving, sync=sync) if leaving else ())
        return [next(verdicts) if one.release is not None else Written("ok", 0) for one in batch]


class CpuRow:
    """Processor time of a step, less that of the same step without the library."""

    name = "cpu"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        runs = bench.size(50, 10)

        async def spent(agent: AnyAgent | None) -> float:
            began = time.process_time()

            async def one(number: int) -> None:
                await (bare(STEPS) if agent is None else runtime.run(agent, STEPS))

            await side_by_side(runs, AT_ONCE, one)
            return (time.process_time() - began) * 1e6 / (runs * STEPS)

        runtime = Runtime(
            state=NullRuns(), queue="memory://", values="memory://", limits="memory://", agents=[LockStep, RunAhead], concurrency=AT_ONCE
        )
        async with runtime:
            samples = await bench.alternate({
                "durable": lambda: spent(LockStep), "run-ahead": lambda: spent(RunAhead), "bare": lambda: spent(None),
            })  # fmt: skip
        bare_us = samples.median("bare")

        def beside_store(title: str, name: str, bar: Bar | None = None) -> Figure:
            whole_us = samples.median(name)
            return Figure(f"CPU of the runtime, {title}", whole_us - bare_us, "us", bar, {"whole us": whole_us, "bare us": bare_us})

        return [
            beside_store("a step that is awaited until durable", "durable", Bar(45, at_least=False, aim=30)),
            beside_store("a step that runs ahead", "run-ahead"),
        ]
