"""Workers on one store, killed and frozen at random for minutes, and its server with them; then the books are checked.

    python -m tests.system.soak --minutes 10 --workers 4 --runs 2000 --store postgresql+redis

Exit status 0 only when every run ended exactly once with the right result and no effect was repeated that must not be; with `--limits`,
when no shared permit was given twice or lost.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import anyio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from agentkit import Runtime, Settings
from agentkit.durable.codec import PLAIN
from agentkit.durable.identity import short_name
from agentkit.errors import StoreUnavailable
from agentkit.ports.records import Run, RunQuery, RunStatus
from agentkit.testing.crash import Child, Crew
from tests.servers.process import Server
from tests.system import proof, soak_limits
from tests.system.app import EFFECTS_FILE, Effects
from tests.system.soak_app import ONCE, Job, Piece, result_of, signalled
from tests.system.stores import STORES, place

T = TypeVar("T")

APP = "tests.system.soak_app:runtime"
SHOW_S = 5.0  # without a terminal; with one the line is always up to date
CALM_S = 180.0  # after the storm, for what is still under way
LATE_S = 5.0  # so long after a thaw a body that was frozen may still come to its effect
LIVING = frozenset({RunStatus.READY, RunStatus.RUNNING, RunStatus.PARKED})
# Every kill counts against the runs that were in flight, and here nobody is to blame for any: none may be buried.
NOBODY_IS_BURIED = {"max_crashes": 10_000, "max_deliveries": 10_000}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do."""

    seconds: float = 600.0
    workers: int = 4
    runs: int = 2000
    lease_s: float = 3.0
    pause_s: float = 1.5
    """Between two blows, on average."""
    seed: int = 0
    store: str = "sqlite"
    """One of `STORES`. Its servers are killed too, half as often as all workers together."""


class Freeze(NamedTuple):
    """A process stood still, by the wall clock."""

    pid: int
    began: float
    ended: float


@dataclass
class Score:
    """What has happened so far."""

    submitted: int = 0
    ended: int = 0
    kills: int = 0
    server_kills: int = 0
    short_stops: int = 0
    long_stops: int = 0
    freezes: list[Freeze] = field(default_factory=list[Freeze])
    faults: list[str] = field(default_factory=list[str])
    excused: int = 0
    effects: int = 0
    repeated: int = 0
    unknown: int = 0
    late: int = 0
    crashes: int = 0

    def line(self, left_s: float) -> str:
        return (
            f"{max(0.0, left_s):4.0f} s left   submitted {self.submitted}   ended {self.ended}   "
            f"killed {self.kills} + {self.server_kills} servers   frozen {self.short_stops} short, {self.long_stops} long"
        )


class Soak:
    """One soak in a folder."""

    def __init__(self, plan: Plan, folder: Path, console: Console) -> None:
        self.plan, self.console, self.score = plan, console, Score()
        self.folder = folder
        self.effects = Effects(str(folder / "effects.jsonl"))
        self._chance = random.Random(plan.seed)
        self._workers: list[Child] = []
        self._ends_at = 0.0
        self._up = anyio.Lock()
        """Held while a server is down: a worker that starts then has nothing to open."""

    async def run(self) -> Score:
        """Storm, calm, and the books."""
        async with place(self.plan.store, self.folder) as where:
            settings = Settings.model_validate({"lease_s": self.plan.lease_s, **where.settings, **NOBODY_IS_BURIED})
            more = {"queue": where.queue, **NOBODY_IS_BURIED}
            env = {EFFECTS_FILE: self.effects.path}
            self.crew = Crew(self.folder, APP, where.state, lease_s=self.plan.lease_s, settings=more, env=env)
            runtime = Runtime(agents=[Job, Piece], settings=settings)
            runtime.store.min_lease_s = self.plan.lease_s  # see `Crew`
            async with self.crew, runtime:
                await self._storm(runtime, where.servers)
                await self._check(runtime)
        return self.score

    async def _storm(self, runtime: Runtime, servers: Sequence[Server]) -> None:
        self._workers = [await self.crew.start() for _ in range(self.plan.workers)]
        self._ends_at = time.monotonic() + self.plan.seconds
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._show)
            tasks.start_soon(self._count, runtime)
            async with anyio.create_task_group() as storm:
                storm.start_soon(self._submit, runtime)
                for number in range(self.plan.workers):
                    storm.start_soon(self._torment, number)
                for server in servers:
                    storm.start_soon(self._crash, server)
            await self._calm(runtime)
            tasks.cancel_scope.cancel()

    def _left_s(self) -> float:
        return self._ends_at - time.monotonic()

    async def _submit(self, runtime: Runtime) -> None:
        """All runs, spread over four fifths of the time; every signal twice."""
        pause_s = self.plan.seconds * 0.8 / self.plan.runs
        began = time.monotonic()
        for n in range(self.plan.runs):
            handle = await until_told(partial(runtime.submit, Job, n, run_id=f"job-{n:05}"))
            if signalled(n):
                for _ in range(2):
                    await until_told(partial(handle.signal, Job.go, n, id="go"))
            self.score.submitted += 1
            await anyio.sleep(max(0.0, began + n * pause_s - time.monotonic()))

    async def _crash(self, server: Server) -> None:
        """Kill the server, again and again; sometimes it stays away for longer than a lease."""
        while self._left_s() > 0:
            await anyio.sleep(min(max(0.0, self._left_s()), self._chance.expovariate(1 / (self.plan.pause_s * 4))))
            async with self._up:
                await anyio.to_thread.run_sync(server.kill)
                await anyio.sleep(self._chance.choice((0.0, 0.3, 1.5)) * self.plan.lease_s)
                await anyio.to_thread.run_sync(server.start)
            self.score.server_kills += 1

    async def _torment(self, number: int) -> None:
        """Kill or freeze one worker, again and again."""
        while self._left_s() > 0:
            await anyio.sleep(min(max(0.0, self._left_s()), self._chance.expovariate(1 / (self.plan.pause_s * self.plan.workers))))
            worker = self._workers[number]
            if self._chance.random() < 0.4:
                worker.kill()
                self.score.kills += 1
                async with self._up:
                    self._workers[number] = await self.crew.start()
            elif self._chance.random() < 0.5:
                self.score.short_stops += 1
                await self._freeze(worker, self._chance.uniform(0.05, 0.5) * self.plan.lease_s)
            else:
                self.score.long_stops += 1
                await self._freeze(worker, self._chance.uniform(1.2, 2.5) * self.plan.lease_s)

    async def _freeze(self, worker: Child, seconds: float) -> None:
        began = time.time()
        worker.stop()
        await anyio.sleep(seconds)
        self.score.freezes.append(Freeze(worker.pid, began, time.time()))
        worker.go_on()

    async def _show(self) -> None:
        if self.console.is_terminal:
            with Live(console=self.console, refresh_per_second=4) as live:
                while True:
                    live.update(self.score.line(self._left_s()))
                    await anyio.sleep(0.25)
        while True:
            self.console.print(self.score.line(self._left_s()))
            await anyio.sleep(SHOW_S)

    async def _calm(self, runtime: Runtime) -> None:
        """Until every run has ended, or nothing has happened for too long."""
        give_up = time.monotonic() + CALM_S
        while time.monotonic() < give_up:
            if not await self._living(runtime):
                return
            await anyio.sleep(0.25)

    async def _count(self, runtime: Runtime) -> None:
        while True:
            await self._living(runtime)
            await anyio.sleep(1.0)

    async def _living(self, runtime: Runtime) -> int:
        submitted = self.score.submitted
        living = await until_told(partial(runtime.store.list, RunQuery(status=LIVING, limit=100_000)))
        self.score.ended = submitted - sum(row.parent_id is None for row in living)
        return len(living)

    async def _check(self, runtime: Runtime) -> None:
        rows = await runtime.store.list(RunQuery(limit=1_000_000))
        lines = await anyio.to_thread.run_sync(self.effects.lines)
        score = self.score
        score.faults += [f"job-{n:05} is lost" for n in range(self.plan.runs) if f"job-{n:05}" not in {row.run_id for row in rows}]
        score.faults += await proof.faults(runtime.store, [row.run_id for row in rows], lines)
        score.faults += [fault for row in rows if row.parent_id is None and (fault := self._wrong(row))]
        score.effects, score.crashes = len(lines), sum(row.fence for row in rows) - len(rows)
        made = Counter(line["key"] for line in lines)
        score.repeated = sum(n - 1 for n in made.values())
        for key, n in made.items():
            if n > 1 and short_name(key.rpartition(":")[2]) in ONCE:
                self._judge(key, [(line["pid"], float(line["value"])) for line in lines if line["key"] == key])

    def _wrong(self, row: Run) -> str:
        """What is wrong with a run's end, if anything."""
        n = int(row.run_id.removeprefix("job-"))
        if row.status == RunStatus.COMPLETED:
            found = PLAIN.decode(row.result, "result")
            return "" if found == result_of(n) else f"{row.run_id}: {found}, not {result_of(n)}"
        kind = PLAIN.decode(row.result, "result")["kind"] if row.status == RunStatus.FAILED else ""
        if kind == "EffectUnknown" and n % 5 == 2:
            self.score.unknown += 1
            return ""
        if kind == "TimeoutError" and n % 5 != 4:  # its process stood still in the body for longer than the effect may take
            self.score.late += 1
            return ""
        return f"{row.run_id}: {row.status.name} {row.result!r}"

    def _judge(self, key: str, times: Sequence[tuple[int, float]]) -> None:
        """An effect that must happen once happened more often: only an owner that was frozen in its body and thawed is excused."""
        in_time = [at for pid, at in times if not any(f.pid == pid and f.ended <= at <= f.ended + LATE_S for f in self.score.freezes)]
        if len(in_time) > 1:
            self.score.faults.append(f"{key} happened {len(times)} times: {times}")
        else:
            self.score.excused += 1


async def until_told(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the store answers, as its callers do: what may have happened already happens once."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await anyio.sleep(0.2)


def closing(plan: Plan, score: Score) -> Table:
    """The table at the end."""
    table = Table(
        "what", "how much", title=f"{plan.store}, {plan.workers} workers, {plan.seconds:g} s, lease {plan.lease_s:g} s, seed {plan.seed}"
    )
    for what, value in (
        ("runs submitted", score.submitted), ("runs ended", score.ended),
        ("workers killed with -9", score.kills), ("servers killed with -9", score.server_kills),
        ("frozen for less than a lease", score.short_stops), ("frozen for longer than a lease", score.long_stops),
        ("claims beyond the first (parks and take-overs)", score.crashes), ("effects in the side file", score.effects),
        ("of them made again, as their policy allows", score.repeated), ("runs that failed by policy 'fail'", score.unknown),
        ("runs whose effect was cut off at its time limit", score.late),
        ("once-only effects made late by a thawed owner, as the promise excepts", score.excused),
        ("lost or wrongly repeated", len(score.faults)),
    ):  # fmt: skip
        table.add_row(what, str(value))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak; 0 when the books are right."""
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the storm lasts (default 10)")
    parser.add_argument("--workers", type=int, default=4, help="processes at a time (default 4)")
    parser.add_argument("--runs", type=int, default=2000, help="runs to submit (default 2000)")
    parser.add_argument("--lease-s", type=float, default=3.0, help="lease; short, for more take-overs (default 3)")
    parser.add_argument("--pause-s", type=float, default=1.5, help="between two blows, on average (default 1.5)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="for the order of the blows (default: random)")
    parser.add_argument("--store", choices=STORES, default="sqlite", help="where state lies, and after a + the tickets (default sqlite)")
    parser.add_argument("--limits", action="store_true", help="kill the callers of a limit that they share, instead of workers")
    given = parser.parse_args(arguments)
    console, folder = Console(), Path(tempfile.mkdtemp(prefix="agentkit-soak-"))
    return _soak_limits(given, console, folder) if given.limits else _soak_runs(given, console, folder)


def _soak_limits(given: argparse.Namespace, console: Console, folder: Path) -> int:
    seconds, processes = given.minutes * 60, given.workers
    plan = soak_limits.LimitPlan(
        seconds=seconds, processes=processes, lease_s=given.lease_s, pause_s=given.pause_s, seed=given.seed, store=given.store
    )
    score = anyio.run(soak_limits.LimitSoak(plan, folder, console).run)
    console.print(soak_limits.closing(plan, score))
    return _say(console, score.faults, f"book and logs: {folder}")


def _soak_runs(given: argparse.Namespace, console: Console, folder: Path) -> int:
    plan = Plan(
        seconds=given.minutes * 60, workers=given.workers, runs=given.runs, lease_s=given.lease_s, pause_s=given.pause_s, seed=given.seed,
        store=given.store,
    )  # fmt: skip
    os.environ[EFFECTS_FILE] = str(folder / "effects.jsonl")
    score = anyio.run(Soak(plan, folder, console).run)
    console.print(closing(plan, score))
    failed = _say(console, score.faults, f"store, side file and logs: {folder}")
    return 1 if score.ended != plan.runs else failed


def _say(console: Console, faults: Sequence[str], where: str) -> int:
    for fault in faults[:50]:
        console.print(f"[red]{fault}", markup=True, soft_wrap=True)
    console.print(where)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
