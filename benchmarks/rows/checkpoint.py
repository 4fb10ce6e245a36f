"""How many results a second become durable."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import closing

import anyio
from pydantic_core import to_json

from agentkit import Runtime
from benchmarks.figures import Bar, Bench, Figure
from benchmarks.raw import CommitPerStep, GroupCommit, JournalRow, journal_row
from benchmarks.work import (
    AT_ONCE,
    STEPS,
    Effects,
    Jittered,
    LockStep,
    RunAhead,
    advance,
    advance_slowly,
    bare,
    first_state,
    side_by_side,
    steps_a_second,
)

Write = Callable[[JournalRow], Awaitable[object]]


def database(bench: Bench, name: str) -> Runtime:
    return Runtime(
        state=f"sqlite:///{bench.file(name)}",
        agents=[LockStep, Jittered, RunAhead, Effects],
        concurrency=AT_ONCE,
        limits="memory://",
        values="memory://",
    )


async def raw_steps_a_second(write: Write, *, runs: int, at_once: int, steps: int = STEPS) -> float:
    """The same runs, each result sent to `write` and awaited."""
    began = time.time_ns()

    async def one(number: int) -> None:
        state = first_state()
        for seq in range(1, steps + 1):
            state = await advance(state)
            await write(journal_row(f"{began}/{number}", seq, to_json(state)))

    return runs * steps / await side_by_side(runs, at_once, one)


class LockStepRow:
    """50 runs, each result durable before the run's next step begins."""

    name = "lock-step"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        runs, long = bench.size(200, 50), bench.size(100, 20)
        with closing(CommitPerStep(bench.file("raw"))) as single, closing(GroupCommit(bench.file("group"))) as group:
            async with database(bench, "lock-step") as runtime:
                samples = await bench.alternate({
                    "ours": lambda: steps_a_second(runtime, LockStep, runs=AT_ONCE, steps=long),
                    "raw commit": lambda: raw_steps_a_second(single.write, runs=AT_ONCE, at_once=AT_ONCE, steps=long),
                    "raw group": lambda: raw_steps_a_second(group.write, runs=AT_ONCE, at_once=AT_ONCE, steps=long),
                    "short": lambda: steps_a_second(runtime, LockStep, runs=runs),
                    "effects": lambda: steps_a_second(runtime, Effects, runs=runs),
                })  # fmt: skip
        rates = {f"{name}/s": samples.median(name) for name in ("ours", "raw commit", "raw group")}

        def against_raw(title: str, name: str) -> Figure:
            return Figure(title, samples.ratio(name, "raw commit"), "x", details={"ours/s": samples.median(name)})

        return [
            Figure(
                f"50 runs in lock step, {long} steps each / raw commits", samples.ratio("ours", "raw commit"), "x", Bar(5, aim=8), rates
            ),
            Figure("the same / raw group commit (the ceiling)", samples.ratio("ours", "raw group"), "x"),
            against_raw("runs of 10 steps, their start and end included / raw commits", "short"),
            against_raw("runs of 10 effects (two entries a step) / raw commits", "effects"),
        ]


class JitterRow:
    """The same with steps that sleep 0 to 5 ms."""

    name = "jitter"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        runs, long = bench.size(200, 50), bench.size(40, 20)

        async def ceiling() -> float:
            return AT_ONCE * long / await side_by_side(AT_ONCE, AT_ONCE, lambda _: bare(long, advance_slowly))

        async with database(bench, "jitter") as runtime:
            samples = await bench.alternate({
                "ours": lambda: steps_a_second(runtime, Jittered, runs=AT_ONCE, steps=long),
                "no store": ceiling,
                "short": lambda: steps_a_second(runtime, Jittered, runs=runs),
            })  # fmt: skip
        rates = {f"{name}/s": samples.median(name) for name in ("ours", "no store")}
        short = {"ours/s": samples.median("short")}
        return [
            Figure("50 runs, steps of 0 to 5 ms / the same without a store", samples.ratio("ours", "no store"), "x", Bar(0.6), rates),
            Figure("runs of 10 such steps, start and end included", samples.ratio("short", "no store"), "x", details=short),
        ]


class OneAtATimeRow:
    """One run after the other."""

    name = "one-at-a-time"

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        runs, long = bench.size(20, 3), bench.size(200, 30)
        with closing(CommitPerStep(bench.file("raw"))) as raw:
            async with database(bench, "one") as runtime:
                samples = await bench.alternate({
                    "durable": lambda: steps_a_second(runtime, LockStep, runs=1, at_once=1, steps=long),
                    "raw commit": lambda: raw_steps_a_second(raw.write, runs=1, at_once=1, steps=long),
                    "run-ahead": lambda: steps_a_second(runtime, RunAhead, runs=1, at_once=1, steps=long),
                    "short": lambda: steps_a_second(runtime, LockStep, runs=runs, at_once=1),
                        "short run-ahead": lambda: steps_a_second(runtime, RunAhead, runs=runs, at_once=1),
                })  # fmt: skip

        def against_raw(title: str, name: str, bar: Bar | None = None) -> Figure:
            rates = {"ours/s": samples.median(name), "raw commit/s": samples.median("raw commit")}
            return Figure(f"{title} / one raw commit per step", samples.ratio(name, "raw commit"), "x", bar, rates)

        return [
            against_raw("one run, each step durable", "durable", Bar(0.7)),
            against_raw("one run whose steps run ahead", "run-ahead", Bar(2)),
            against_raw("runs of 10 durable steps, from call to result", "short"),
            against_raw("runs of 10 steps that run ahead, from call to result", "short run-ahead"),
        ]
