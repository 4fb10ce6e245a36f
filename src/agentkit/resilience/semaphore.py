"""Semaphores: at most so many at a time under one name, in this process or over all of them.

Who waits is served in the order of coming, whatever its weight, so a heavy call is not starved by light ones. A wait is bounded and ends
in `Overloaded`, which says when to come again. A free permit is taken without giving way to other tasks.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio

from agentkit import telemetry
from agentkit.clock import wait_for
from agentkit.errors import Overloaded, StoreError
from agentkit.resilience.deadline import remaining_s
from agentkit.resilience.gradient import Load, answered, failed, unknown
from agentkit.resilience.layer import refused, waited
from agentkit.resilience.settings import at_least, require
from agentkit.resilience.state import PolicyState, tenant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from agentkit.clock import Clock
    from agentkit.ports.limits import LimitStore
    from agentkit.resilience.layer import Hold, Layer, Outcome

LEASE_S = 15.0  # a process that was killed keeps its permits so long; shorter, and a slow store would take them from the living
RELEASE_TIMEOUT_S = 5.0  # after it the lease does it
FEW = 0.1  # weight of one call in how long permits are held: about the last twenty count
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Semaphore:
    """`permits` under one name; who names it again shares them.

    Args:
        name: what is limited, for instance a server or a GPU.
        permits: at a time.
        shared: count over all processes that use the same limit store. A permit is then leased and renewed; when it cannot be renewed in
            time the call is cut off with `PermitLost`, so that the permits are never exceeded.
        weight: of one call, in permits.
        max_wait_s: before a call is refused with `Overloaded`, seconds.
        adaptive: where the right number is not known: find it between 1 and `permits`, by how long calls take. In one process only.
    """

    name: str
    permits: int
    _: KW_ONLY
    shared: bool = False
    weight: int = 1
    max_wait_s: float = 30.0  # longer than a person waits: who comes later had better go elsewhere
    adaptive: bool = False

    def __post_init__(self) -> None:
        require("Semaphore.name", self.name, bool(self.name), "must not be empty: its state belongs to its name")
        at_least("Semaphore.permits", self.permits, 1)
        require("Semaphore.weight", self.weight, 1 <= self.weight <= self.permits, f"must be 1 to {self.permits}, the permits")
        at_least("Semaphore.max_wait_s", self.max_wait_s, 0)
        require("Semaphore.adaptive", self.adaptive, not (self.adaptive and self.shared), "works in one process: leave out shared=True")

    def layer(self, state: PolicyState) -> Layer:
        """This semaphore as something that calls pass, with the state behind its name."""
        settings = (self.permits, self.shared, self.adaptive)
        make = partial(Permits, self.name, self.permits, state.clock, adaptive=self.adaptive)
        permits = state.part("semaphore", self.name, settings, make)
        store = state.store_of(f"semaphore {self.name!r}") if self.shared else None
        return LocalPermits(self, permits) if store is None else SharedPermits(self, store, state.clock)


def fits(held: int, limit: float, weight: int) -> bool:
    """Whether `weight` more permits may be held. One that is heavier than an adapted limit gets in alone."""
    return held + weight <= limit or not held


def admitted(held: int, limit: float, weights: Iterable[int]) -> int:
    """How many at the head of the line may go."""
    count = 0
    for weight in weights:
        if not fits(held, limit, weight):
            break
        held += weight
        count += 1
    return count


class Waiter:
    """A place in the line."""

    __slots__ = ("turn", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.turn = anyio.Event()


class Permits:
    """The permits of one name in this process."""

    def __init__(self, name: str, permits: int, clock: Clock, *, adaptive: bool = False) -> None:
        self.name, self.most, self.clock = name, permits, clock
        self.held = 0
        self.line: deque[Waiter] = deque()
        self.load = unknown(permits) if adaptive else Load(limit=float(permits))
        self._adaptive = adaptive
        self._usual_s = 0.0

    async def acquire(self, weight: int, max_wait_s: float) -> None:
        """Take permits, waiting in line at most so long. Raises `Overloaded`: nothing is held then, nor after a cancellation."""
        if not self.line and fits(self.held, self.load.limit, weight):
            self.held += weight
            return
        if max_wait_s <= 0:
            raise self._full(weight)
        waiter = Waiter(weight)
        self.line.append(waiter)
        began = self.clock.monotonic()
        try:
            await wait_for(self.clock, waiter.turn, max_wait_s)
        except BaseException:
            self._withdraw(waiter)
            raise
        if not waiter.turn.is_set():
            self._withdraw(waiter)
            raise self._full(weight)
        waited(self.name, self.clock.monotonic() - began)

    def release(self, weight: int, outcome: Outcome) -> None:
        """Give permits back, and learn from how the call went."""
        if outcome.sent:
            self._usual_s += FEW * (outcome.took_s - self._usual_s)
            if self._adaptive:
                self._adapt(outcome)
        self.held -= weight
        self._let_in()

    def _adapt(self, outcome: Outcome) -> None:
        before = self.load.limit
        if outcome.verdict == "ok":
            self.load = answered(self.load, outcome.took_s, in_flight=self.held, most=self.most)
        elif outcome.verdict == "failed":
            self.load = failed(self.load, most=self.most)
        if int(before) != int(self.load.limit):
            telemetry.LIMIT_PERMITS.set(int(self.load.limit), {telemetry.LIMIT: self.name})

    def _withdraw(self, waiter: Waiter) -> None:
        if waiter.turn.is_set():  # its turn came at the very moment it gave up
            self.held -= waiter.weight
        else:
            self.line.remove(waiter)
        self._let_in()

    def _let_in(self) -> None:
        if not self.line:
            return
        for _ in range(admitted(self.held, self.load.limit, (waiter.weight for waiter in self.line))):
            waiter = self.line.popleft()
            self.held += waiter.weight
            waiter.turn.set()

    def _full(self, weight: int) -> Overloaded:
        refused(self.name, "overloaded")
        before = sum(waiter.weight for waiter in self.line) + weight
        return Overloaded(f"semaphore {self.name!r}", int(self.load.limit), max(0.05, self._usual_s * before / self.load.limit))


class LocalPermits:
    """The way a call takes through a semaphore of this process. It is its own hold, for all that a call holds is the weight."""

    keep: Callable[[], Awaitable[str]] | None = None

    def __init__(self, settings: Semaphore, permits: Permits) -> None:
        self.permits = permits
        self._weight, self._max_wait_s = settings.weight, settings.max_wait_s

    async def enter(self) -> LocalPermits:
        """Wait in line. Raises `Overloaded`: nothing is held."""
        await self.permits.acquire(self._weight, self._max_wait_s)
        return self

    async def leave(self, outcome: Outcome) -> None:
        """Give the permits back."""
        self.permits.release(self._weight, outcome)


class SharedPermits:
    """The way a call takes through a semaphore that processes share."""

    def __init__(self, settings: Semaphore, store: LimitStore, clock: Clock) -> None:
        self.settings, self.store, self.clock = settings, store, clock

    async def enter(self) -> Hold:
        """Wait in the store's line. Raises `Overloaded`, or `StoreUnavailable`: without the store nobody knows what is free."""
        lease = Lease(self)
        try:
            await self._wait(lease)
        except BaseException:
            await lease.end()
            raise
        return lease

    async def _wait(self, lease: Lease) -> None:
        began = self.clock.monotonic()
        while True:
            retry_after_s = await lease.ask()
            if not retry_after_s:
                break
            if self.clock.monotonic() - began + retry_after_s > min(self.settings.max_wait_s, remaining_s()):
                refused(self.settings.name, "overloaded")
                raise Overloaded(f"semaphore {self.settings.name!r}", self.settings.permits, retry_after_s)
            await self.clock.sleep(retry_after_s)
        if (took_s := self.clock.monotonic() - began) > 0 and lease.asked > 1:
            waited(self.settings.name, took_s)


class Lease:
    """Permits in a limit store, for a while."""

    def __init__(self, permits: SharedPermits) -> None:
        self.asked = 0
        self._permits = permits
        self._holder = uuid4().hex
        self._until = 0.0

    async def ask(self) -> float:
        """Ask once: 0 when granted, else in how many seconds to ask again."""
        settings, clock = self._permits.settings, self._permits.clock
        self.asked += 1
        asked_at = clock.monotonic()  # the lease began at the store no sooner
        grant = await self._permits.store.acquire(
            settings.name, self._holder, permits=settings.permits, weight=settings.weight, lease_s=LEASE_S, tenant=tenant.get()
        )
        self._until = asked_at + LEASE_S
        return 0.0 if grant.granted else max(grant.retry_after_s, 1e-3)

    async def keep(self) -> str:
        """Renew until the lease is lost. It counts as lost when a third of it is left: what is cut off then still needs time to end."""
        clock = self._permits.clock
        while clock.monotonic() < self._until - LEASE_S / 3:
            await clock.sleep(LEASE_S / 6)
            asked_at = clock.monotonic()
            try:
                with anyio.move_on_after(LEASE_S / 6):
                    renewed = await self._permits.store.renew(self._permits.settings.name, [self._holder], LEASE_S)
                    if not renewed[0]:
                        break
                    self._until = asked_at + LEASE_S
            except StoreError as exc:
                logger.warning("semaphore %r: a permit was not renewed, trying again: %s", self._permits.settings.name, exc)
        return self._permits.settings.name

    async def leave(self, outcome: Outcome) -> None:
        """Give the permits back."""
        await self.end()

    async def end(self) -> None:
        """Give back what is held, or leave the line. If the store does not answer, the lease does it."""
        with anyio.move_on_after(RELEASE_TIMEOUT_S, shield=True):
            try:
                await self._permits.store.release(self._permits.settings.name, self._holder)
            except StoreError as exc:
                logger.warning("semaphore %r: a permit was not given back, its lease runs out: %s", self._permits.settings.name, exc)
