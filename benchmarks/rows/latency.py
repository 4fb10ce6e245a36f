"""How long one call takes when nothing else goes on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import closing

import anyio

from agentkit import Agent, Context, Runtime, Signal
from benchmarks.figures import Bench, Figure
from benchmarks.raw import CommitPerStep, journal_row
from benchmarks.work import Nothing

woken_at: dict[str, float] = {}


class Sleeper(Agent[int, int]):
    """Waits for a signal, and notes when it came."""

    go = Signal(int)

    async def run(self, ctx: Context, input: int) -> int:
        value = await ctx.wait_for(self.go)
        woken_at[ctx.run_id] = time.perf_counter()
        return value


async def timed(times: int, call: Callable[[int], Awaitable[float]]) -> list[float]:
    """Milliseconds, as each call says."""
    return [await call(number) * 1000 for number in range(times + 3)][3:]


async def submit_to_result(runtime: Runtime) -> float:
    began = time.perf_counter()
    await (await runtime.submit(Nothing, 1)).result()
    return time.perf_counter() - began


async def wake(runtime: Runtime) -> float:
    """From the call of `signal` to the line after `wait_for`, of a run that is parked."""
    handle = await runtime.submit(Sleeper, 1)
    async for event in handle.events():
        if event.type == "status" and event.status == "waiting":
            break
    began = time.perf_counter()
    await handle.signal(Sleeper.go, 1)
    await handle.result()
    return woken_at.pop(handle.run_id) - began


class LatencyRow:
    """Submit to result, and signal to wake."""

    name = "latency"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        calls, wakes = bench.size(200, 10), bench.size(40, 3)

        async def raw_commit(number: int) -> float:
            began = time.perf_counter()
            await raw.write(journal_row("run", number, b"x" * 1000))
            return time.perf_counter() - began

        agents = [Nothing, Sleeper]
        with closing(CommitPerStep(bench.file("raw"))) as raw:
            async with (
                Runtime(state=f"sqlite:///{bench.file('latency')}", agents=agents, worker=True) as stored,
                Runtime(agents=agents, worker=True) as in_memory,
            ):
                bench.say("submit to result")
                figures = [
                    _figure("submit to result, SQLite", await timed(calls, lambda _: submit_to_result(stored))),
                    _figure("submit to result, memory", await timed(calls, lambda _: submit_to_result(in_memory))),
                    _figure("one raw commit", await timed(calls, raw_commit)),
                ]
                bench.say("signal to wake")
                figures += [
                    _figure("signal to a parked run's next line, SQLite", await timed(wakes, lambda _: wake(stored))),
                    _figure("signal to a parked run's next line, memory", await timed(wakes, lambda _: wake(in_memory))),
                ]
        return figures


def _figure(title: str, times_ms: list[float]) -> Figure:
    return Figure(f"{title} (p50)", statistics.median(times_ms), "ms", None, {"p90 ms": statistics.quantiles(times_ms, n=10)[8]})
