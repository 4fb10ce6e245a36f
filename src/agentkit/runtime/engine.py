"""What executes runs in this process: one registration with its lane and heartbeat, the claimed runs, and what must follow their ends."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import anyio
import anyio.abc

from agentkit import telemetry
from agentkit.clock import wait_for
from agentkit.durable.group_commit import Lane
from agentkit.errors import QueueFull, RunConflict, StoreBusy, StoreError, StoreUnavailable
from agentkit.ports.queue import Ticket
from agentkit.ports.records import Claimed, ParentClaim, RunStatus
from agentkit.runtime.activation import Activation
from agentkit.runtime.heartbeat import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from agentkit.agents.services import Services
    from agentkit.clock import Clock
    from agentkit.durable.execution import Execution, Limits, OnStep
    from agentkit.ports.queue import Lease, Queue
    from agentkit.ports.records import ClaimRefusal, NewRun, Release, Run
    from agentkit.ports.runs import RunStore
    from agentkit.runtime.hub import Hub
    from agentkit.runtime.registry import Registry
    from agentkit.runtime.settings import Settings

log = logging.getLogger("agentkit.runtime")


class Held(NamedTuple):
    """A ticket in hand; a local one came without a lease."""

    ticket: Ticket
    lease: Lease | None = None


class Engine:
    """Executes claimed runs. It is the `Host` of their executions."""

    def __init__(
        self,
        *,
        store: RunStore,
        queue: Queue,
        clock: Clock,
        settings: Settings,
        limits: Limits,
        registry: Registry,
        hub: Hub,
        services: Services,
        alive: Callable[[], bool],
        answer: Callable[[Lease, str], None],
    ) -> None:
        self.store, self.queue, self.clock, self.settings, self.limits, self.registry = store, queue, clock, settings, limits, registry
        self.resources: Mapping[type[Any], object] = {}
        self.services = services
        self.threads = anyio.CapacityLimiter(settings.threads)
        self.active: dict[str, tuple[Activation, Held]] = {}
        self.locals: deque[Ticket] = deque()
        self.local_roots: set[str] = set()
        self.suspects: deque[Held] = deque()
        self.draining = False
        self.leasing: anyio.CancelScope | None = None
        self.kinds: Sequence[str] = ()  # what queued runs this process executes; a runtime that only submits serves nothing
        self.tickets_put = self.taking = self.arriving = 0
        self.lease_s = max(settings.lease_s, store.min_lease_s)
        self.on_step: OnStep | None = None
        self.due_soon: Callable[[float], None] = lambda wake_at: None
        self._hub, self._alive, self._answer = hub, alive, answer
        self._tasks: anyio.abc.TaskGroup | None = None
        self._untold: deque[str] = deque()
        self._told = anyio.Event()
        self._telling = anyio.Lock()
        self._changed: anyio.Event | None = None  # made by who waits: most changes find nobody
        self._ended = anyio.Event()
        self._fenced = False
        self._new_registration()

    def _new_registration(self) -> None:
        self.worker_id = uuid4().hex
        self._fenced = self.registered = False
        self._ended = anyio.Event()
        self.lane = Lane(
            self.store,
            self.worker_id,
            self.clock,
            lease_s=self.lease_s,
            on_dead=self._on_fenced,
            on_flush=self._note_flush,
            followed=self._hub.followed,
        )
        self.heartbeat = Heartbeat(
            self.store, self.worker_id, self.clock, self.lease_s, alive=self._alive, on_moved=self._on_moved, on_fenced=self._on_fenced
        )

    async def run(self, tasks: anyio.abc.TaskGroup, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Be registered, anew after each death, until `close`."""
        self._tasks = tasks
        await self._register()
        task_status.started()
        while True:
            async with anyio.create_task_group() as registration:
                registration.start_soon(self.lane.run)
                registration.start_soon(self.heartbeat.run)
                registration.start_soon(self._tell_parents)
                await self._ended.wait()
                if self._fenced:
                    log.warning("worker %s was declared dead; its runs are left to others and it registers anew", self.worker_id)
                    self.lane.abandon()
                    self.stop_all()
                    await self.idle()
                else:
                    self.lane.close()
                registration.cancel_scope.cancel()
            if not self._fenced:
                return
            self._new_registration()
            await self._register()

    async def close(self) -> None:
        """Everything is released: tell the parents, say that we are gone, end `run`."""
        await self.tell_now()
        try:
            await self.store.retire(self.worker_id)
        except StoreError as exc:
            log.warning("could not sign off worker %s: %s", self.worker_id, exc)
        self._ended.set()

    async def _register(self) -> None:
        kinds = ",".join(self.kinds)
        while True:
            try:
                await self.store.register(self.worker_id, kinds, f"{socket.gethostname()}:{os.getpid()}")
            except StoreUnavailable as exc:
                log.warning("cannot register: %s", exc)
                await anyio.sleep(1.0)
            else:
                self.heartbeat.ok_at = self.clock.monotonic()
                self.registered = True
                self.notify()
                return

    # The host of executions

    @property
    def stale(self) -> bool:
        return self.heartbeat.stale

    async def fresh(self) -> None:
        await self.heartbeat.fresh()

    async def create_children(self, execution: Execution, runs: Sequence[NewRun]) -> None:
        """Create the rows under the parent's claim and dispatch those that may start. Raises `UnknownAgent` where nobody listed one."""
        for kind, version in {(new.kind, new.version) for new in runs}:
            self.registry.find(kind, version)
        claim = ParentClaim(execution.run.run_id, self.worker_id, execution.claim.fence)
        with telemetry.span(
            telemetry.CHILD, {telemetry.RUN_ID: execution.run.run_id, telemetry.AGENT: runs[0].kind, telemetry.COUNT: len(runs)}
        ):
            if telemetry.enabled():
                runs = [run._replace(trace=telemetry.inject(run.trace)) for run in runs]
            created = await self.store.create(runs, parent=claim)
        ready: list[Ticket] = []
        for new, (answer, row) in zip(runs, created, strict=True):
            if answer == "conflict" and row is not None:
                raise RunConflict(new.run_id, row.kind, new.kind)
            if answer == "refused":
                execution.poke()
                execution.check_open()
                raise StoreUnavailable("runs", f"child {new.run_id!r} was refused: its parent is being cancelled")
            if row is not None and row.status == RunStatus.READY and not (row.ticketed and not execution.local):
                ready.append(ticket_of(row))
        await self.dispatch(ready, local=execution.local)

    async def dispatch(self, tickets: Sequence[Ticket], *, local: bool = False) -> None:
        """Bring READY runs to a worker: those that belong to a run of this process stay here, the others go to the queue."""
        away = [t for t in tickets if not (local or self.is_local(t.run_id))]
        mine = [t for t in tickets if local or self.is_local(t.run_id)]
        if mine:
            self.locals.extend(mine)
            self.notify()
        if away:
            await self.put(away)

    async def put(self, tickets: Sequence[Ticket]) -> None:
        """Put tickets and note it. What cannot be put now is found by the sweep."""
        try:
            await self.send(tickets)
            self.tickets_put += len(tickets)
        except (StoreError, QueueFull) as exc:
            log.warning("%d tickets wait for the next sweep: %s", len(tickets), exc)

    async def send(self, tickets: Sequence[Ticket]) -> None:
        """Put tickets, with their tenants' weights, and note it. Raises what the queue and the store raise."""
        tickets = await self.services.tenants.weighed(tickets)
        with telemetry.span(telemetry.PUT, {telemetry.COUNT: len(tickets)}):
            await self.queue.put(tickets)
        await self.store.ticketed(tickets)
        telemetry.TICKETS_PUT.add(len(tickets))

    def returns_ticket(self, run_id: str) -> bool:
        """Whether a drained run's ticket goes back to the queue."""
        held = self.active.get(run_id)
        return held is not None and held[1].lease is not None

    def handle(self, run_id: str, agent: type[Any] | None) -> Any:
        return self.make_handle(run_id, agent)

    make_handle: Callable[[str, type[Any] | None], Any]

    def is_local(self, run_id: str) -> bool:
        """Whether the run, or one above it, was started by `Runtime.run` here."""
        if not self.local_roots:
            return False
        parts = run_id.split("/")
        return any("/".join(parts[:i]) in self.local_roots for i in range(1, len(parts) + 1))

    # Taking runs

    def slots(self) -> int:
        """Those that no run holds."""
        return self.settings.concurrency - len(self.active)

    def free(self) -> int:
        """Runs that may be claimed now: none between the end of one registration and the start of the next."""
        return self.slots() if self.registered else 0

    def notify(self) -> None:
        """A slot, a ticket or a state changed."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    async def change(self, timeout_s: float | None = None) -> None:
        """Wait for the next change. Look, and call this without awaiting in between: then no change is missed."""
        if self._changed is None:
            self._changed = anyio.Event()
        await wait_for(self.clock, self._changed, timeout_s)

    async def idle(self) -> None:
        """Wait until no run is active or being claimed."""
        while self.active or self.taking:
            await self.change()

    def busy_with(self, run_ids: Collection[str]) -> bool:
        """Whether one of these runs waits for a slot here, is being claimed or at work."""
        waiting = (*self.locals, *(held.ticket for held in self.suspects))
        return bool(self.taking) or any(t.run_id in run_ids for t in waiting) or any(run_id in self.active for run_id in run_ids)

    def recall(self, run_ids: Collection[str]) -> None:
        """Claim none of these runs that waits for a slot here."""
        self.locals = deque(t for t in self.locals if t.run_id not in run_ids)
        self.suspects = deque(held for held in self.suspects if held.ticket.run_id not in run_ids)

    async def take(self, held: Sequence[Held], *, only: Iterable[str] = (), alone: bool = False) -> None:
        """Claim the runs of these tickets and start them; answer the tickets that are good for nothing.

        A claim whose answer is lost may have been granted, then or later: nobody would hold the run, and its owner lives. So it ends
        the registration (in a model checker every other way out leaves a stuck run).
        """
        ids, worker_id = [h.ticket.run_id for h in held], self.worker_id
        answers: Sequence[Claimed | ClaimRefusal] = ()
        self.taking += 1
        try:
            with (
                telemetry.span(telemetry.CLAIM, {telemetry.WORKER: self.worker_id, telemetry.COUNT: len(ids)}),
                anyio.CancelScope(shield=True),
            ):
                answers = await self.store.claim(worker_id, ids, self.registry.serves(only), alone=alone)
        except StoreError as exc:
            if isinstance(exc, StoreUnavailable) and not isinstance(exc, StoreBusy):
                self._on_fenced()
            raise
        finally:
            self.taking -= 1
            self.notify()
        forgotten = [answer.run for answer in answers if isinstance(answer, Claimed) and self._was_forgotten(answer.run)]
        if forgotten:
            log.error(
                "run %s was granted again under number %d, whose claim is open here: the store has lost what it had acknowledged (was it "
                "restored from a copy?); this worker drops its runs and registers anew",
                forgotten[0].run_id,
                forgotten[0].fence,
            )
            self._on_fenced()
            return
        for h, answer in zip(held, answers, strict=True):
            if isinstance(answer, Claimed):
                self._start(answer, h)
            else:
                self._refused(h, answer)
        if "fenced" in answers and worker_id == self.worker_id:
            self._on_fenced()  # others knew before our next beat does: this process was frozen, and goes on with a new registration

    def _was_forgotten(self, granted: Run) -> bool:
        """Whether the store no longer knows of a claim that is open here: nobody could tell the two apart, so neither may write any more.

        One of a higher number is none of its business: its release has landed, and the answer is on its way.
        """
        held = self.active.get(granted.run_id)
        return held is not None and granted.fence <= held[0].run.fence

    def _start(self, claimed: Claimed, held: Held) -> None:
        activation = Activation(self, claimed, local=self.is_local(claimed.run.run_id))
        self.active[claimed.run.run_id] = (activation, held)
        telemetry.RUNS_IN_FLIGHT.set(len(self.active))
        telemetry.CLAIMS.add(1, {telemetry.OUTCOME: "granted"})
        if claimed.run.fence == 1:
            telemetry.RUNS_STARTED.add(1, {telemetry.AGENT: claimed.run.kind})
        if self.draining:
            activation.drain()
        if held.lease is not None and not self.queue.holds_leases:
            self._answer(held.lease, "finish")
        if self._tasks is not None:
            self._tasks.start_soon(self._perform, activation, held)

    async def _perform(self, activation: Activation, held: Held) -> None:
        left = "lost"
        try:
            left = await activation.perform()
        except StoreError as exc:
            log.warning("run %s: %s; it is left to recovery", activation.run.run_id, exc)
            self._on_fenced()  # a claim that cannot be used is freed only by the death of the registration
        finally:
            if self.active.get(activation.run.run_id) == (activation, held):  # else it was claimed again before we heard of our release
                del self.active[activation.run.run_id]
            telemetry.RUNS_IN_FLIGHT.set(len(self.active))
            if held.lease is not None and self.queue.holds_leases:
                self._answer(held.lease, "give_back" if left == "released" else "finish")
            self.notify()

    def _refused(self, held: Held, answer: ClaimRefusal) -> None:
        telemetry.CLAIMS.add(1, {telemetry.OUTCOME: answer})
        if answer == "suspect":
            self.suspects.append(held)
            self.notify()
        elif held.lease is not None:
            self._answer(held.lease, "later" if answer == "unknown" else "give_back" if answer == "fenced" else "finish")
        elif answer == "fenced":
            self.locals.append(held.ticket)

    # What follows a release

    def released(self, run: Run, release: Release, execution: Execution) -> None:
        """It is durable: tell whoever waits."""
        if release.status.ended:
            self._ended_here(run, release)
            return
        if release.status == RunStatus.PARKED:
            telemetry.RUNS_PARKED.add(1, {telemetry.AGENT: run.kind})
            if release.wake_at is not None:
                self.due_soon(release.wake_at - execution.store_now())
        elif self.is_local(run.run_id) and not self.draining:
            self.locals.append(ticket_of(run))
        self._hub.poke((run.run_id,))

    def _ended_here(self, run: Run, release: Release) -> None:
        self.local_roots.discard(run.run_id)
        telemetry.RUNS_ENDED.add(1, {telemetry.AGENT: run.kind, telemetry.STATUS: release.status.name.lower()})
        if release.status == RunStatus.BURIED:
            telemetry.RUNS_BURIED.add(1, {telemetry.AGENT: run.kind})
        if run.parent_id is not None:
            self._untold.append(run.run_id)
            self._told.set()
        self._hub.show(run._replace(status=release.status, owner=None, result=release.result))

    async def _tell_parents(self) -> None:
        while True:
            if not self._untold:
                self._told = anyio.Event()
                await self._told.wait()
            await self.tell_now()

    async def tell_now(self) -> None:
        """Tell the parents of what ended here, rather than in a moment; returns when they were told."""
        async with self._telling:
            await self._tell_some()

    async def _tell_some(self) -> None:
        ids = [self._untold.popleft() for _ in range(min(len(self._untold), 500))]
        if ids:
            await self.tell(ids)

    async def tell(self, child_ids: Sequence[str]) -> None:
        """Count ended children; what cannot be told now is found by the sweep."""
        try:
            tickets = await self.store.tell(child_ids)
        except StoreError as exc:
            log.warning("%d ended children wait for the next sweep: %s", len(child_ids), exc)
            return
        self._poke_parents(child_ids)
        await self.dispatch(tickets)

    def _poke_parents(self, child_ids: Sequence[str]) -> None:
        for run_id, (activation, _) in self.active.items():
            if activation.execution is not None and any(child.startswith(run_id + "/") for child in child_ids):
                activation.execution.poke()

    def poke(self, run_id: str) -> None:
        """A message for this run was stored by this process."""
        held = self.active.get(run_id)
        if held is not None and held[0].execution is not None:
            held[0].execution.poke()

    def drain_all(self) -> None:
        """Start nothing new; runs leave as soon as none of their bodies runs."""
        self.draining = True
        if self.leasing is not None:
            self.leasing.cancel()
        for activation, _ in self.active.values():
            activation.drain()
        self.notify()

    def stop_all(self) -> None:
        """Cut running bodies too."""
        for activation, _ in self.active.values():
            activation.stop()

    async def crash(self) -> None:
        """As if this process were killed: nothing is released, nobody is told. For `agentkit.testing`."""
        await self.store.retire(self.worker_id)
        self._on_fenced()

    def _on_moved(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self.poke(run_id)

    def _note_flush(self, rows: int, seconds: float) -> None:
        if telemetry.enabled():
            telemetry.FLUSH_ROWS.record(rows)
            telemetry.FLUSH_SECONDS.record(seconds)
            telemetry.LANE_DEPTH.set(self.lane.rows)
            telemetry.span_of_the_past(telemetry.FLUSH, time.time_ns() - int(seconds * 1e9), {telemetry.COUNT: rows})

    def _on_fenced(self) -> None:
        """This registration is over; `run` makes a new one."""
        self._fenced, self.registered = True, False
        self._ended.set()


def ticket_of(run: Run) -> Ticket:
    """The ticket of a READY run."""
    return Ticket(run.run_id, run.kind, run.version, run.wake, run.tenant, run.priority, run.key, run.trace)
