"""Recovery, in every process: watch the beats, free what the dead left, wake timers, find lost tickets, drop what has expired."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from agentkit import telemetry
from agentkit.clock import wait_for
from agentkit.durable.recovery import Watch, observe
from agentkit.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentkit.ports.queue import Depth
    from agentkit.ports.records import Swept
    from agentkit.runtime.engine import Engine

log = logging.getLogger("agentkit.recovery")

SWEEPS_PER_LEASE = 8  # death is then noticed within 1.25 leases
LIMIT = 500  # rows of one round: near the time of one commit
PURGE_EVERY_S = 60.0
MIN_PAUSE_S = 0.005


class Sweeper:
    """One observer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watch = Watch()
        self._reap: dict[str, int] = {}
        self._due_at: float | None = None
        self._soon = anyio.Event()
        self._purged_at = engine.clock.monotonic()
        engine.due_soon = self.due_in

    def due_in(self, seconds: float) -> None:
        """A timer of this process is due then: do not wait for the next round."""
        at = self._engine.clock.monotonic() + max(0.0, seconds)
        if self._due_at is None or at < self._due_at:
            self._due_at = at
            self._soon.set()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            more = await self.sweep()
            self._soon = anyio.Event()
            if not more and not self._reap:
                await wait_for(self._engine.clock, self._soon, self._pause_s())

    def _pause_s(self) -> float:
        pause = self._engine.lease_s / SWEEPS_PER_LEASE
        if self._due_at is not None:
            pause = min(pause, self._due_at - self._engine.clock.monotonic())
        return max(MIN_PAUSE_S, pause)

    async def sweep(self) -> bool:
        """One round; whether more is waiting. After an error the watch starts anew: who could not look has seen nobody silent."""
        engine = self._engine
        try:
            depths = await engine.queue.depth()
            _note_depths(depths)
            oldest = max((d.oldest_s for d in depths.values()), default=0.0)
            lost_after_s = max(oldest, engine.lease_s) + engine.lease_s
            began_ns = time.time_ns()
            swept = await engine.store.sweep(self._reap, max_crashes=engine.settings.max_crashes, lost_after_s=lost_after_s, limit=LIMIT)
            if swept.taken_over:
                attributes: dict[str, str | int] = {telemetry.WORKER: engine.worker_id, telemetry.COUNT: len(swept.taken_over)}
                telemetry.span_of_the_past(telemetry.TAKE_OVER, began_ns, attributes)
            self._look(swept)
            await self._follow(swept)
            await self._purge()
        except StoreError as exc:
            log.warning("sweep failed: %s", exc)
            self._watch, self._reap = Watch(), {}
            return False
        return swept.more

    def beats(self) -> dict[str, int]:
        """The other workers, with the beat at which each was last seen."""
        return {worker: seen.beat for worker, seen in self._watch.seen.items()}

    def _look(self, swept: Swept) -> None:
        engine = self._engine
        others = {worker: beat for worker, beat in swept.beats.items() if worker != engine.worker_id}
        self._watch, self._reap = observe(self._watch, others, engine.clock.monotonic(), engine.lease_s)
        self._due_at = None if swept.next_timer_s is None else engine.clock.monotonic() + swept.next_timer_s

    async def _follow(self, swept: Swept) -> None:
        engine = self._engine
        for gone in swept.taken_over:
            telemetry.RUNS_TAKEN_OVER.add(1)
            if gone.buried:
                telemetry.RUNS_BURIED.add(1)
                log.error("run %s is buried: it ended its process %d times", gone.run_id, gone.crashes)
            else:
                log.warning("run %s is taken over from dead worker %s", gone.run_id, gone.owner)
        if swept.tickets:
            await engine.dispatch(swept.tickets)
        if swept.untold:
            await engine.tell(swept.untold)

    async def _purge(self) -> None:
        now = self._engine.clock.monotonic()
        if now - self._purged_at >= PURGE_EVERY_S:
            self._purged_at = now
            while await self._engine.store.purge(LIMIT) >= LIMIT:
                await anyio.lowlevel.checkpoint()


def _note_depths(depths: Mapping[str, Depth]) -> None:
    if not telemetry.enabled():
        return
    for kind, depth in depths.items():
        agent, _, version = kind.rpartition("@")
        of = {telemetry.AGENT: agent, telemetry.VERSION: version}
        telemetry.QUEUE_OLDEST_SECONDS.set(depth.oldest_s, of)
        for state, count in (("ready", depth.ready), ("delayed", depth.delayed), ("leased", depth.leased), ("dead", depth.dead)):
            telemetry.QUEUE_DEPTH.set(count, of | {telemetry.STATE: state})
