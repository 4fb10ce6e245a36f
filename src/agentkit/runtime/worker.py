"""The worker: leases tickets, renews them, answers them, and claims what runs belong to this process anyway."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

import anyio

from agentkit import telemetry
from agentkit.clock import wait_for
from agentkit.durable.codec import PLAIN
from agentkit.errors import StoreError
from agentkit.runtime.engine import Engine, Held

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock
    from agentkit.ports.queue import Lease, Queue
    from agentkit.runtime.quotas import Quotas

log = logging.getLogger("agentkit.worker")

BATCH = 100  # tickets of one lease: near the time of one commit
WAIT_S = 1.0  # of one lease call on an empty queue
LET_GO_S = 10.0  # after the cut: a store that takes no release must not keep a process from ending
FULL_S = 1.0  # until a tenant that has its share of this process is asked about again
LATER_S = 5.0  # until somebody else is asked about an agent that we do not know


class Answers:
    """Answers to tickets, gathered while the last round trip is under way."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._waiting: dict[str, list[Lease]] = {}
        self._new = anyio.Event()

    def add(self, lease: Lease, answer: str) -> None:
        self._waiting.setdefault(answer, []).append(lease)
        self._new.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            if not self._waiting:
                self._new = anyio.Event()
                await self._new.wait()
            await self.flush()

    async def flush(self) -> None:
        """Send what is waiting. An answer that cannot be sent is dropped: the lease runs out and the claim sorts out the rest."""
        waiting, self._waiting = self._waiting, {}
        for answer, leases in waiting.items():
            try:
                await self._send(answer, leases)
            except StoreError as exc:
                log.warning("%d tickets were not answered (%s): %s", len(leases), answer, exc)

    async def _send(self, answer: str, leases: Sequence[Lease]) -> None:
        if answer == "finish":
            await self._queue.finish(leases)
        elif answer == "give_back":
            await self._queue.give_back(leases)
        else:
            await self._queue.give_back(leases, delay_s=FULL_S if answer == "full" else LATER_S)


class Worker:
    """The loops of a worker around an engine."""

    def __init__(self, engine: Engine, answers: Answers, clock: Clock, *, only: Sequence[str] = (), quotas: Quotas | None = None) -> None:
        self._engine, self._answers, self._clock, self.only, self._quotas = engine, answers, clock, only, quotas

    async def work_locals(self) -> None:
        """Claim the runs that `Runtime.run` started here, and their children."""
        engine = self._engine
        while True:
            while engine.locals and engine.free() > 0 and not engine.suspects and not engine.draining:
                batch = [Held(engine.locals.popleft()) for _ in range(min(len(engine.locals), engine.free(), BATCH))]
                await self._take(batch)
            if engine.suspects and (engine.draining or not engine.active):
                await self._work_suspects()
            else:
                await engine.change()

    async def work_queue(self) -> None:
        """Lease tickets of the queue while there are free slots."""
        engine = self._engine
        kinds = {f"{name}@{version}" for name, versions in engine.registry.serves(self.only).items() for version in versions}
        while not engine.draining:
            if engine.free() <= 0 or engine.suspects:
                await engine.change(WAIT_S)
                continue
            began_ns = time.time_ns()
            try:
                leases = await self._lease(kinds)
            except StoreError as exc:
                log.warning("the queue does not answer: %s", exc)
                await anyio.sleep(WAIT_S)
                continue
            if leases:
                telemetry.TICKETS_LEASED.add(len(leases))
                telemetry.span_of_the_past(telemetry.LEASE, began_ns, {telemetry.WORKER: engine.worker_id, telemetry.COUNT: len(leases)})
                await self._take(await self._within_quotas(await self._fit(leases)))

    async def _lease(self, kinds: set[str]) -> list[Lease]:
        """Tickets for the free slots. A drain cuts the wait short: else it would be given the tickets that it gives back."""
        engine = self._engine
        leases: list[Lease] = []
        try:
            with anyio.CancelScope() as engine.leasing:
                leases = await engine.queue.lease(min(engine.free(), BATCH), wait_s=WAIT_S, lease_s=engine.lease_s, kinds=kinds)
        finally:
            engine.leasing = None
            engine.notify()
        return leases

    async def _fit(self, leases: Sequence[Lease]) -> list[Held]:
        """Bury the runs of tickets that were delivered too often without an answer: whatever they do, they end their process."""
        held: list[Held] = []
        for lease in leases:
            if lease.deliveries <= self._engine.settings.max_deliveries:
                held.append(Held(lease.ticket, lease))
                continue
            reason = f"delivered {lease.deliveries - 1} times without an answer"
            log.error("run %s is buried: %s", lease.ticket.run_id, reason)
            await self._engine.store.bury(lease.ticket.run_id, PLAIN.encode({"kind": "RunBuried", "message": reason}, "reason"))
            await self._engine.queue.bury([lease], reason)
            telemetry.RUNS_BURIED.add(1, {telemetry.AGENT: lease.ticket.kind})
        return held

    async def _within_quotas(self, held: list[Held]) -> list[Held]:
        """Those whose tenants may have another run at work here; the others go back to the queue for a while."""
        if self._quotas is None:
            return held
        at_work = Counter(activation.run.tenant for activation, _ in self._engine.active.values())
        taken: list[Held] = []
        for h in held:
            tenant = h.ticket.tenant
            if h.lease is None or await self._quotas.has_place(tenant, at_work[tenant]):
                at_work[tenant] += 1
                taken.append(h)
            else:
                self._answers.add(h.lease, "full")
        return taken

    async def _take(self, held: Sequence[Held], *, alone: bool = False) -> None:
        engine = self._engine
        if engine.draining or not held:
            self._put_back(held)
            return
        try:
            await engine.take(held, only=() if held[0].lease is None else self.only, alone=alone)
        except StoreError as exc:
            log.warning("cannot claim: %s", exc)
            self._put_back(held)
            await anyio.sleep(WAIT_S)

    def _put_back(self, held: Sequence[Held]) -> None:
        for h in held:
            if h.lease is None:
                self._engine.locals.append(h.ticket)
            else:
                self._answers.add(h.lease, "give_back")

    async def _work_suspects(self) -> None:
        """A run that crashed its process twice is claimed when nothing else runs here, so that it takes no neighbour along."""
        engine = self._engine
        while engine.suspects and not engine.active and not engine.draining:
            await self._take([engine.suspects.popleft()], alone=True)
            await engine.idle()
        if engine.draining:
            self._put_back([engine.suspects.popleft() for _ in range(len(engine.suspects))])

    async def renew(self) -> None:
        """Keep the leases of what is in hand; a lost one is nobody's loss, for the claim decides."""
        engine = self._engine
        while True:
            await self._clock.sleep(engine.lease_s / 3)
            leases = [h.lease for _, h in engine.active.values() if h.lease is not None] + [
                h.lease for h in engine.suspects if h.lease is not None
            ]
            if leases and engine.queue.holds_leases:
                try:
                    await engine.queue.renew(leases, engine.lease_s)
                except StoreError as exc:
                    log.warning("leases were not renewed: %s", exc)
            self._report_stuck()

    def _report_stuck(self) -> None:
        engine = self._engine
        for run_id, (activation, _) in engine.active.items():
            ex = activation.execution
            if ex is not None and ex.left_at is not None and engine.clock.monotonic() - ex.left_at > engine.limits.park_grace_s:
                log.error("run %s should leave (%s) but its frames do not end: a finally block or a thread hangs", run_id, ex.leaving)


async def drain(engine: Engine, clock: Clock, grace_s: float, hurry: anyio.Event) -> None:
    """Start nothing new, let running bodies end within the grace (or until `hurry`), then cut them; returns when every run is released."""
    engine.drain_all()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cut_after, engine, clock, grace_s, hurry)
        await engine.idle()
        while engine.leasing is not None:
            await engine.change()
        tasks.cancel_scope.cancel()


async def _cut_after(engine: Engine, clock: Clock, grace_s: float, hurry: anyio.Event) -> None:
    await wait_for(clock, hurry, grace_s)
    log.warning("cutting %d runs that did not leave by themselves", len(engine.active))
    engine.stop_all()
    await clock.sleep(LET_GO_S)
    log.error("%d runs could not be released (the store does not answer): they are left to recovery", len(engine.active))
    engine.lane.abandon()
