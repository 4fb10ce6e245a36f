"""One activation of a run, from its claim to its release: what all verbs of a `Context` share."""

from __future__ import annotations

import logging
import random
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

import anyio
import anyio.lowlevel

from agentkit.clock import wait_for
from agentkit.durable.codec import fields_of
from agentkit.durable.journal import Journal
from agentkit.durable.parking import ParkPlan, Wait, Waits
from agentkit.errors import EntryTooLarge, RunCancelled, RunParked
from agentkit.ports.records import EntryKind
from agentkit.tasks import Home

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

    from anyio.abc import TaskGroup

    from agentkit.clock import Clock
    from agentkit.durable.group_commit import Claim, Lane
    from agentkit.ports.queue import Ticket
    from agentkit.ports.records import Entry, Message, NewRun, Run
    from agentkit.ports.runs import RunStore

Leaving = Literal["park", "drain", "cancel"]

QUIET_TURNS = 10  # a task woken through a gather and a task group needs four turns to its next call; ten leave room
DEADLINE = "deadline"  # the reason of a cancel by the run's own clock
logger = logging.getLogger("agentkit")


class Limits(NamedTuple):
    """Bounds of one run."""

    run_ahead: int = 64  # entries not yet durable: what a crash may make again
    park_after_s: float = 0.05  # a child that ends at once is cheaper to wait for than a park and a replay
    hold_timer_s: float = 1.0  # a park, a sweep and a replay cost more than holding a slot so long
    park_grace_s: float = 10.0  # for `finally` blocks; later the frames are reported, not abandoned
    effect_timeout_s: float = 60.0  # until when an effect may still be under way after a crash
    max_entry_bytes: int = 1_000_000  # one batch
    max_depth: int = 16
    max_children: int = 100_000


OnStep: TypeAlias = "Callable[[str, str, Literal['begin', 'end']], Awaitable[None]]"
"""(run_id, key, point): called before a body runs and when it has ended but nothing of it is journalled. Tests crash there."""


class Host(Protocol):
    """What an execution needs of the worker it runs in."""

    store: RunStore
    lane: Lane
    clock: Clock
    limits: Limits
    worker_id: str
    resources: Mapping[type[Any], object]
    services: Any
    """What the rooms above give to verbs: models, tenants, budgets. See `agents.services`."""
    on_step: OnStep | None
    threads: anyio.CapacityLimiter
    """For sync steps."""

    async def fresh(self) -> None:
        """Return once a beat was accepted within 0.75 leases: before that no step may start."""
        ...

    @property
    def stale(self) -> bool: ...

    async def create_children(self, execution: Execution, runs: Sequence[NewRun]) -> None: ...

    async def dispatch(self, tickets: Sequence[Ticket], *, local: bool) -> None: ...

    def handle(self, run_id: str, agent: type[Any] | None) -> Any: ...

    def returns_ticket(self, run_id: str) -> bool: ...


class TimeLimit:
    """A `ctx.timeout` block. `struck`: its time came, now or as the journal says."""

    __slots__ = ("scope", "struck")

    def __init__(self, scope: anyio.CancelScope, *, struck: bool) -> None:
        self.scope, self.struck = scope, struck


class Interrupted(BaseException):
    """A replay has come to the call that the time limit cut; the block turns it into TimeoutError."""

    def __init__(self, limit: TimeLimit) -> None:
        self.limit = limit


time_limits: ContextVar[tuple[TimeLimit, ...]] = ContextVar("agentkit_time_limits", default=())
shielded: ContextVar[bool] = ContextVar("agentkit_shielded", default=False)
current_execution: ContextVar[Execution | None] = ContextVar("agentkit_execution", default=None)
"""The activation that the current task works for."""


class Execution:
    """The state of an activation. Made once per `run()` of the agent; a park or a take-over ends it."""

    def __init__(
        self,
        host: Host,
        run: Run,
        claim: Claim,
        entries: Sequence[Entry],
        messages: Sequence[Message],
        *,
        store_now: float,
        lenient: bool = False,
        local: bool = False,
    ) -> None:
        self.host, self.run, self.claim, self.local = host, run, claim, local
        self.meta: Any = None
        self.tenant: Any = None
        """What belongs to the run beside its input, and whose it is, as the agents' room reads them."""
        self.journal = Journal(claim, host.lane, entries, lenient=lenient)
        self._lane, self._run_ahead = host.lane, host.limits.run_ahead
        self.home = Home()
        self.waits = Waits()
        self.leaving: Leaving | None = None
        self.plan: ParkPlan | None = None
        self.draining = False
        self.left_at: float | None = None
        self.cancelled: str | None = _reason(self.journal.cancel)
        self.bodies: set[anyio.CancelScope] = set()
        self.new_scope = self.home.scope
        self.shields: set[anyio.CancelScope] = set()
        self.endings: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = []
        self.shuffle: random.Random | None = None
        self.strict = claim.durability == "strict"
        self.has_children = any(e.kind == EntryKind.CHILD for e in entries)
        self.tasks: TaskGroup | None = None
        self.seen = 0
        self._skew = store_now - host.clock.monotonic()
        self._topics: dict[str, deque[Message]] = {}
        self._dirty = False
        self.supervised = False
        self._nudged: anyio.Event | None = None  # the supervisor's, once there is one
        self._sort(messages)
        claim.on_inbox, claim.on_lost = self.poke, self._lost

    def store_now(self) -> float:
        """The store's clock, carried on by this machine's monotonic one."""
        return self._skew + self.host.clock.monotonic()

    def random_for(self, path: str) -> random.Random:
        """A generator that gives the same numbers in every replay of this scope."""
        return random.Random(f"{self.run.seed}/{path}")

    # Doors that every verb passes

    def check_open(self) -> None:
        """Raises what keeps a new step from starting: `RunParked`, `RunCancelled`, or the reason the claim was lost."""
        for limit in time_limits.get():  # first: also a run that leaves, and a dry replay, are cut where they were cut before
            if limit.struck:
                raise Interrupted(limit)
        if self.leaving is not None or self.draining:
            raise RunParked(self.leaving or "drain")
        if self.claim.error is not None:
            raise self.claim.error
        if self.cancelled is not None and not shielded.get():
            raise RunCancelled(self.run.run_id, self.cancelled)

    async def admit(self) -> None:
        """Wait for what bounds a new body: run-ahead, a full lane, a stale beat."""
        self.check_open()
        while self.claim.ahead() >= self.host.limits.run_ahead or self.host.lane.full or self.host.stale:
            if self.claim.ahead() >= self.host.limits.run_ahead:
                await self.journal.settled(self.claim.seq - self.host.limits.run_ahead + 1)
            await self.host.lane.room()
            await self.host.fresh()
            self.check_open()

    @property
    def crowded(self) -> bool:
        """Whether `admit` would wait or raise: the cheap question of the hot path."""
        claim = self.claim
        return (
            self.leaving is not None
            or self.draining
            or self.cancelled is not None
            or claim.seq - claim.acked >= self._run_ahead
            or claim.error is not None
            or self._lane.full
            or self.host.stale
        )

    def check_size(self, what: str, body: bytes) -> None:
        """Raises `EntryTooLarge`."""
        if len(body) > self.host.limits.max_entry_bytes:
            raise EntryTooLarge(what, len(body), self.host.limits.max_entry_bytes)

    @contextmanager
    def working(self) -> Generator[None]:
        """While in it the run does not park."""
        self.waits.busy += 1
        try:
            yield
        finally:
            self.idle()

    def idle(self) -> None:
        """One piece of work ended."""
        self.waits.busy -= 1
        self.waits.epoch += 1
        if self.draining and not self.waits.busy:
            self.leave("drain")
        elif self.waits.waiting:
            self.nudge()

    async def replayed(self) -> None:
        """In `verify` deliver replayed results in another order: code that depends on it mismatches."""
        if self.shuffle is not None:
            for _ in range(self.shuffle.randrange(5)):
                await anyio.lowlevel.checkpoint()

    # Waiting

    async def wait(self, what: str, *, topic: str | None = None, until: float | None = None) -> Message | None:
        """Wait for a message, or until store time `until` (None). The run may park here."""
        while True:
            self.check_open()
            if topic is not None and (found := self.message(topic)) is not None:
                return found
            if until is not None and self.store_now() >= until:
                return None
            wait = Wait(anyio.Event(), what, topic, until)
            self.waits.add(wait)
            self.nudge()
            try:
                await wait.event.wait()
            finally:
                self.waits.remove(wait)

    def message(self, topic: str) -> Message | None:
        """The oldest message of the topic that is not taken; it is taken by `take`."""
        queue = self._topics.get(topic)
        return queue[0] if queue else None

    def take(self, message: Message, kind: EntryKind, key: str, body: bytes, *, fp: str = "") -> int:
        """Write the entry and the mark that the message is taken, together."""
        self._topics[message.topic].popleft()
        seq = self.journal.append(kind, key, body, fp=fp)
        self.host.lane.take(self.claim, message.id, seq)
        return seq

    def poke(self) -> None:
        """The inbox moved: read it soon."""
        self._dirty = True
        self.nudge()

    def nudge(self) -> None:
        """Something a park depends on changed."""
        if not self.supervised and self.tasks is not None:
            self.supervised = True
            self.tasks.start_soon(self._supervise)
        if self._nudged is not None:
            self._nudged.set()

    def start(self, tasks: TaskGroup) -> None:
        """Begin: the supervisor itself starts only when something waits."""
        self.tasks = tasks
        if self.cancelled is None and self.message("cancel") is not None:
            self._strike_from_inbox()
        if self.run.deadline is not None or self._dirty:
            self.nudge()

    async def _supervise(self) -> None:
        while self.leaving is None:
            self._nudged = nudged = anyio.Event()  # before the look at the inbox: what comes while it is read must not be lost
            if self._dirty:
                await self._refresh()
            self._check_deadline()
            self.waits.fire(self.store_now())
            if await self._may_park(nudged):
                self.leave("park")
                return
            await wait_for(self.host.clock, nudged, self._next_s())

    async def _may_park(self, nudged: anyio.Event) -> bool:
        """Nothing runs, nothing is on its way to its next call, and no timer is so near that holding on is cheaper."""
        if not await self._quiet() or self._due_soon():
            return False
        if await wait_for(self.host.clock, nudged, self.host.limits.park_after_s):
            return False
        return await self._quiet() and not self._dirty and not self._due_soon()

    async def _quiet(self) -> bool:
        epoch = self.waits.epoch
        for _ in range(QUIET_TURNS):
            if not self.waits.parkable or self.waits.epoch != epoch:
                return False
            await anyio.lowlevel.checkpoint()
        return self.waits.parkable and self.waits.epoch == epoch

    def _due_soon(self) -> bool:
        due = self.waits.next_due()
        return due is not None and due - self.store_now() < self.host.limits.hold_timer_s

    def _next_s(self) -> float | None:
        due = [t for t in (self.waits.next_due(), self.run.deadline if self.cancelled is None else None) if t is not None]
        return max(0.0, min(due) - self.store_now()) if due else None

    async def _refresh(self) -> None:
        self._dirty = False
        self._sort(await self.host.store.inbox(self.run.run_id))
        if self.message("cancel") is not None and self.cancelled is None:
            await self._cancel_children(self._strike_from_inbox())
        for topic in [t for t, queue in self._topics.items() if queue]:
            self.waits.wake(topic)

    def _sort(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.seq > self.seen:
                self.seen = message.seq
                if message.taken_seq is None:
                    self._topics.setdefault(message.topic, deque()).append(message)

    # Leaving

    def drain(self) -> None:
        """Start nothing new, and leave once no body runs."""
        self.draining = True
        if not self.waits.busy:
            self.leave("drain")

    def leave(self, why: Leaving) -> None:
        """Close the context and unwind the frames."""
        if self.leaving is None:
            self.plan = self.waits.plan(self.run.deadline)
            self.leaving, self.left_at = why, self.host.clock.monotonic()
            for scope in self.shields:  # they keep a cancel of the run out, never its leaving: the frames must go
                scope.shield = False
            if self.tasks is not None:
                self.tasks.cancel_scope.cancel()

    def _lost(self) -> None:
        """The claim is gone: nothing can be written any more, so nothing should run."""
        self.leave("drain")

    def strike(self, reason: str) -> None:
        """Cancel what runs outside a shield; every later call outside one raises `RunCancelled`."""
        self.cancelled = reason
        for scope in list(self.bodies):
            scope.cancel()
        self.waits.wake()

    def _strike_from_inbox(self) -> bytes:
        message = self.message("cancel")
        if message is None:
            return b""
        self.take(message, EntryKind.CANCEL, "cancel", message.body)
        self.strike(str(fields_of(message.body).get("reason", "")))
        return message.body

    def _check_deadline(self) -> None:
        if self.run.deadline is not None and self.cancelled is None and self.store_now() >= self.run.deadline:
            self.journal.note(EntryKind.CANCEL, "cancel", {"reason": DEADLINE})
            self.strike(DEADLINE)

    async def _cancel_children(self, body: bytes) -> None:
        tickets = await self.host.store.cancel_children(self.run.run_id, None, body)
        await self.host.dispatch(tickets, local=self.local)


def _reason(entry: Entry | None) -> str | None:
    return None if entry is None else str(fields_of(entry.body).get("reason", ""))
