"""What the library costs a process: its import, and memory for many runs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from benchmarks.figures import Bar, Bench, Figure

DRIVERS = ("sqlite3", "sqlalchemy", "asyncpg", "psycopg", "redis", "httpx", "aiohttp", "aiokafka", "boto3", "grpc", "rich", "click")
TIMED = "import time; began = time.perf_counter(); import agentkit; print(time.perf_counter() - began)"
LOADED = f"import sys, agentkit; print(sum(name in sys.modules for name in {DRIVERS!r}))"
RUNS = 1_000
CHILD = """
import json, sys, anyio
from benchmarks.machine import peak_mb
from agentkit import Agent, Context, Runtime
from benchmarks.work import advance, first_state

runs, path = int(sys.argv[1]), sys.argv[2]

class Patient(Agent[int, int]):
    async def run(self, ctx: Context, input: int) -> int:
        global here, most
        state = await ctx.step("advance", advance, first_state())
        here += 1
        most = max(most, here)
        await ctx.step("wait", wait)
        here -= 1
        return int(state["n"])

async def wait() -> None:
    await everybody.wait() if here < runs else everybody.set()

async def main() -> None:
    async with Runtime(state=f"sqlite:///{path}", agents=[Patient], worker=True, concurrency=runs) as runtime:
        for handle in await runtime.submit_many(Patient, {f"run-{i}": i for i in range(runs)}):
            await handle.result()

here = most = 0
everybody = anyio.Event()
before = peak_mb()
anyio.run(main)
print(json.dumps({"peak": peak_mb(), "before": before, "most": most}))
"""


def python(code: str, *args: str) -> tuple[float, str]:
    """Seconds that an interpreter took for `code`, and what it said."""
    began = time.perf_counter()
    said = subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - began, said


class ImportRow:
    """`import agentkit` in a fresh interpreter."""

    name = "import"

    def measure(self, bench: Bench) -> list[Figure]:
        ours: list[float] = []
        whole: list[float] = []
        bare: list[float] = []
        for turn in range(bench.size(10, 3) + 1):
            bench.say(f"interpreter {turn}")
            (process_s, said), (bare_s, _) = python(TIMED), python("pass")
            if turn:  # the first one compiles
                ours.append(float(said) * 1000)
                whole.append(process_s * 1000)
                bare.append(bare_s * 1000)
        details = {"median ms": statistics.median(ours), "the process ms": min(whole), "a bare one ms": min(bare)}
        return [
            Figure("import agentkit in a fresh interpreter (fastest)", min(ours), "ms", Bar(250, at_least=False), details),
            Figure("drivers and clients that it loads", float(python(LOADED)[1]), "", Bar(0, at_least=False)),
        ]


class MemoryRow:
    """1,000 runs in one worker, all inside a step at the same moment."""

    name = "memory"

    def measure(self, bench: Bench) -> list[Figure]:
        runs = bench.size(RUNS, 100)
        bench.say(f"{runs} runs")
        _, said = python(CHILD, str(runs), str(bench.file("memory")))
        found = json.loads(said)
        details = {"before the first run MB": found["before"], "inside a step at once": found["most"]}
        return [Figure(f"peak memory of a process with {runs:,} runs at work", found["peak"], "MB", Bar(300, at_least=False), details)]
