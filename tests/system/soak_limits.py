"""A shared limit under processes that are killed at random: never more permits out than there are, and none lost for longer than a lease.

python -m tests.system.soak --limits --minutes 2 --workers 4 --store redis
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
from rich.console import Console
from rich.table import Table

from agentkit.clock import SYSTEM
from agentkit.plugins import open_url
from agentkit.ports.limits import LimitStore
from agentkit.testing.crash import Child, Crew
from tests.system.soak_limits_app import BOOK, HOLD_S, LEASE, LET_IN, NAME, PERMITS
from tests.system.stores import place

APP = "tests.system.soak_limits_app"
AT_WORK = 0.8  # share of the kills that strike a process that has been let in
SHOW_S = 5.0
SLACK_S = 1.0  # for a machine with other work, on top of a quarter of the lease: see `too_long_s`


@dataclass(frozen=True, kw_only=True)
class LimitPlan:
    """What to do."""

    seconds: float = 600.0
    processes: int = 4
    lease_s: float = 3.0
    """Of a permit."""
    pause_s: float = 1.5
    """Between two kills, on average."""
    seed: int = 0
    store: str = "sqlite"

    @property
    def too_long_s(self) -> float:
        """A permit that is not free again so long after its holder's death is lost."""
        return self.lease_s * 1.25 + SLACK_S


class Held(NamedTuple):
    """Permits in somebody's hands, on the clock of the machine. What a dead process held ends with it."""

    began: float
    ended: float
    weight: int


class Life(NamedTuple):
    """A process that calls, on the same clock."""

    began: float
    died: float


@dataclass
class LimitScore:
    """What has happened."""

    kills: int = 0
    calls: int = 0
    held_at_death: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    most: int = 0
    idle_s: float = 0.0
    free_s: float = 0.0
    faults: list[str] = field(default_factory=list[str])


def held(lines: Sequence[Mapping[str, Any]], deaths: Mapping[int, float]) -> list[Held]:
    """What the books say was held. `deaths`: the last moment at which each process is known to have lived, by pid."""
    ends = {(line["pid"], line["call"]): line["at"] for line in lines if line["what"] == "end"}
    begun = [line for line in lines if line["what"] == "begin"]
    return [Held(line["at"], ends.get((line["pid"], line["call"]), deaths[line["pid"]]), line["weight"]) for line in begun]


def most_at_once(holds: Sequence[Held]) -> int:
    """The highest number of permits out at one moment. One that ends as another begins was handed over."""
    changes = sorted([(one.began, 1, one.weight) for one in holds] + [(one.ended, 0, -one.weight) for one in holds])
    out = most = 0
    for _, _, change in changes:
        out += change
        most = max(most, out)
    return most


def longest_idle_s(holds: Sequence[Held], lives: Sequence[Life]) -> float:
    """The longest time in which somebody called all the while, nobody was let in and nobody died.

    Who dies may hold up the others for a lease, also from the line.
    """
    moments = sorted([*(one.began for one in holds), *(moment for life in lives for moment in life)])
    idle = [(sooner, later) for sooner, later in pairwise(moments) if any(life.began <= sooner and later <= life.died for life in lives)]
    return max((later - sooner for sooner, later in idle), default=0.0)


class LimitSoak:
    """One soak in a folder."""

    def __init__(self, plan: LimitPlan, folder: Path, console: Console) -> None:
        self.plan, self.console, self.score = plan, console, LimitScore()
        self.book, self._folder = folder / "book.jsonl", folder
        self._chance = random.Random(plan.seed)
        self._deaths: dict[int, float] = {}

    async def run(self) -> LimitScore:
        """Storm, the death of all, and the books."""
        async with place(self.plan.store, self._folder) as where:
            env = {BOOK: str(self.book), LEASE: str(self.plan.lease_s)}
            crew = Crew(self._folder, f"{APP}:runtime", where.state, lease_s=10.0, settings={"queue": where.queue}, env=env)
            limits: LimitStore = open_url("limits", where.state, SYSTEM)
            await limits.open()
            try:
                async with crew:
                    await self._storm(crew)
                    self.score.free_s = await self._all_free(limits, time.monotonic())
            finally:
                await limits.aclose()
        self._check(await anyio.to_thread.run_sync(self._lines))
        return self.score

    async def _storm(self, crew: Crew) -> None:
        """Until all are dead at once. Most are killed when they hold or want permits, some while they start."""
        processes = [await self._start(crew) for _ in range(self.plan.processes)]
        ends_at, shown_at = time.monotonic() + self.plan.seconds, self.plan.seconds
        while (left_s := ends_at - time.monotonic()) > 0:
            await anyio.sleep(min(left_s, self._chance.expovariate(1 / self.plan.pause_s)))
            number = self._chance.randrange(len(processes))
            if self._chance.random() < AT_WORK:
                await processes[number].reached(LET_IN)
            self._kill(processes[number])
            processes[number] = await self._start(crew)
            if shown_at - left_s > SHOW_S:
                shown_at = left_s
                self.console.print(f"{left_s:4.0f} s left   killed {self.score.kills}")
        for process in processes:
            await process.reached(LET_IN)
        for process in processes:
            self._kill(process)

    async def _start(self, crew: Crew) -> Child:
        child = await crew.start(act=f"{APP}:work")
        self._deaths[child.pid] = inf
        return child

    def _kill(self, child: Child) -> None:
        if child.code is not None:
            self.score.faults.append(f"process {child.pid} ended by itself ({child.code}): {child.log()}")
        self._deaths[child.pid] = time.monotonic()
        child.kill()
        self.score.kills += 1

    async def _all_free(self, limits: LimitStore, dead_at: float) -> float:
        """How long after the death of all every permit could be had again."""
        deadline = time.monotonic() + 2 * self.plan.too_long_s
        while time.monotonic() < deadline:
            grant = await limits.acquire(NAME, "after", permits=PERMITS, weight=PERMITS, lease_s=self.plan.lease_s)
            if grant.granted:
                await limits.release(NAME, "after")
                return time.monotonic() - dead_at
            await anyio.sleep(min(grant.retry_after_s, 0.02))
        return inf

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.book.read_text().splitlines()] if self.book.exists() else []

    def _check(self, lines: Sequence[Mapping[str, Any]]) -> None:
        score, plan = self.score, self.plan
        holds = held(lines, self._deaths)
        lives = [Life(line["at"], self._deaths[line["pid"]]) for line in lines if line["what"] == "at work"]
        said = Counter(str(line["what"]) for line in lines)
        score.calls, score.held_at_death = said["end"], said["begin"] - said["end"]
        score.errors = Counter({what: many for what, many in said.items() if what not in {"at work", "begin", "end"}})
        score.most, score.idle_s = most_at_once(holds), longest_idle_s(holds, lives)
        if score.most > PERMITS:
            score.faults.append(f"{score.most} permits were out at once, of {PERMITS}")
        if score.idle_s > plan.too_long_s + HOLD_S[1]:
            score.faults.append(f"for {score.idle_s:.1f} s nobody was let in")
        if score.free_s > plan.too_long_s:
            score.faults.append(f"{score.free_s:.1f} s after the death of all a permit was still missing")


def closing(plan: LimitPlan, score: LimitScore) -> Table:
    """The table at the end."""
    title = f"{plan.store}, {PERMITS} permits, {plan.processes} processes, {plan.seconds:g} s, lease {plan.lease_s:g} s, seed {plan.seed}"
    table = Table("what", "how much", title=title)
    for what, value in (
        ("processes killed with -9", score.kills), ("calls made", score.calls), ("calls that died with their process", score.held_at_death),
        *((f"calls that ended with {kind}", many) for kind, many in sorted(score.errors.items())),
        ("most permits out at one moment", score.most), ("longest time in which nobody was let in nor died, s", round(score.idle_s, 2)),
        ("after the death of all every permit was free again, s", round(score.free_s, 2)),
        ("exceeded or leaked", len(score.faults)),
    ):  # fmt: skip
        table.add_row(what, str(value))
    return table
