"""How many results a second become durable on a server, beside one statement or command of its driver for each."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import anyio.to_thread

from agentkit import Runtime
from benchmarks.figures import Bar, Bench, Figure
from benchmarks.raw_servers import MARIADB, POSTGRESQL, REDIS, Kind
from benchmarks.rows.checkpoint import raw_steps_a_second
from benchmarks.work import AT_ONCE, Jittered, LockStep, RunAhead, advance_slowly, bare, side_by_side, steps_a_second
from tests.servers.process import private


@dataclass(frozen=True)
class ServerRow:
    """Lock step, jitter and one at a time, with the bars of this server."""

    kind: Kind
    lock_step: Bar
    jitter: Bar | None = None
    alone: Bar | None = None
    ahead: Bar | None = None

    @property
    def name(self) -> str:
        return self.kind.name

    def measure(self, bench: Bench) -> list[Figure]:
        return anyio.run(self._measure, bench)

    async def _measure(self, bench: Bench) -> list[Figure]:
        long, jittered, one = bench.size(100, 10), bench.size(40, 10), bench.size(200, 20)
        agents = [LockStep, Jittered, RunAhead]
        async with private(self.kind.start) as server, self.kind.raw(server) as write:
            url = await anyio.to_thread.run_sync(self.kind.url, server)
            async with Runtime(
                state=url, queue="memory://", values="memory://", limits="memory://", agents=agents, concurrency=AT_ONCE
            ) as rt:

                async def ceiling() -> float:
                    return AT_ONCE * jittered / await side_by_side(AT_ONCE, AT_ONCE, lambda _: bare(jittered, advance_slowly))

                samples = await bench.alternate({
                    "ours": lambda: steps_a_second(rt, LockStep, runs=AT_ONCE, steps=long),
                    "raw": lambda: raw_steps_a_second(write, runs=AT_ONCE, at_once=AT_ONCE, steps=long),
                    "jitter": lambda: steps_a_second(rt, Jittered, runs=AT_ONCE, steps=jittered),
                    "no store": ceiling,
                    "one": lambda: steps_a_second(rt, LockStep, runs=1, at_once=1, steps=one),
                    "raw one": lambda: raw_steps_a_second(write, runs=1, at_once=1, steps=one),
                    "ahead": lambda: steps_a_second(rt, RunAhead, runs=1, at_once=1, steps=one),
                })  # fmt: skip

        def figure(title: str, name: str, against: str, bar: Bar | None) -> Figure:
            rates = {"ours/s": samples.median(name), f"{against}/s": samples.median(against)}
            return Figure(f"{self.kind.name}: {title}", samples.ratio(name, against), "x", bar, rates)

        return [
            figure(f"50 runs in lock step, {long} steps each / one raw write each", "ours", "raw", self.lock_step),
            figure("50 runs, steps of 0 to 5 ms / the same without a store", "jitter", "no store", self.jitter),
            figure("one run, each step durable / one raw write each", "one", "raw one", self.alone),
            figure("one run whose steps run ahead / one raw write each", "ahead", "raw one", self.ahead),
        ]


SERVER_ROWS = (
    ServerRow(POSTGRESQL, Bar(3, aim=4), Bar(0.7), Bar(0.9), Bar(3)),
    ServerRow(MARIADB, Bar(2, aim=4)),
    ServerRow(REDIS, Bar(1.5, aim=2)),
)
