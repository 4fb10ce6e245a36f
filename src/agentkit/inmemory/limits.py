"""Semaphores and token buckets in this process's memory: for tests, for tutorials, and for limits that only this process keeps."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidLimit
from agentkit.inmemory.heap import LazyHeap
from agentkit.inmemory.url import whole_numbers
from agentkit.ports.limits import Grant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock

SLACK = 1e-9  # of a token: refilling for the time that was said may end a rounding error short
ASK_AGAIN_S = 0.05  # permits come back whenever a holder is done; sooner would load the store, later would leave them idle


class Place(NamedTuple):
    """A place in the line, ordered by `turn`, then by who came first."""

    turn: float
    number: int
    who: str
    tenant: str
    weight: float


class WaitingLine:
    """Who waits for a part of something, fairly by tenant (start-time fair queueing): a place is fixed when it is taken, so nobody who
    comes later, however light, gets ahead of it for long.
    """

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._kept_until: dict[str, float] = {}
        self._turn = 0.0
        self._tenants: dict[str, float] = {}  # the turn at which a tenant's next place begins
        self._numbers = 0

    def wait(self, who: str, tenant: str, weight: float, until: float) -> float:
        """Take or keep a place; returns the weight of all that must be free for its turn: its own and that of everybody before it."""
        if who not in self._kept_until:
            insort(self._places, self._place(who, tenant, weight))
        self._kept_until[who] = until
        total = 0.0
        for place in self._places:
            total += place.weight
            if place.who == who:
                break
        return total

    def serve(self, who: str) -> None:
        """Its turn came: it leaves the line."""
        place = next(place for place in self._places if place.who == who)
        self.leave(who)
        self._turn = max(self._turn, place.turn)
        self._tenants = {tenant: turn for tenant, turn in self._tenants.items() if turn > self._turn}

    def leave(self, who: str) -> None:
        if self._kept_until.pop(who, None) is not None:
            self._places = [place for place in self._places if place.who != who]

    def expire(self, now: float) -> None:
        """Take out those who did not ask again in time."""
        for who in [who for who, until in self._kept_until.items() if until <= now]:
            self.leave(who)

    def _place(self, who: str, tenant: str, weight: float) -> Place:
        turn = max(self._turn, self._tenants.get(tenant, 0.0))
        self._tenants[tenant] = turn + weight
        self._numbers += 1
        return Place(turn, self._numbers, who, tenant, weight)


class Held(NamedTuple):
    weight: int
    until: float


@dataclass
class Semaphore:
    line: WaitingLine
    holders: dict[str, Held] = field(default_factory=dict[str, Held])

    @property
    def held(self) -> int:
        return sum(held.weight for held in self.holders.values())

    def expire(self, now: float) -> None:
        self.holders = {holder: held for holder, held in self.holders.items() if held.until > now}
        self.line.expire(now)


@dataclass
class Reservation:
    amount: float
    settled: bool = False


@dataclass
class Bucket:
    line: WaitingLine
    level: float
    filled_at: float
    rate_per_s: float
    burst: float

    def fill(self, now: float) -> None:
        self.level = min(self.burst, self.level + self.rate_per_s * (now - self.filled_at))
        self.filled_at = now
        self.line.expire(now)


class InMemoryLimits:
    """A `LimitStore` in memory.

    Its methods take effect at once and whole, and may be called from several threads and event loops. What it holds ends with the process.

    Args:
        clock: the time of leases and refills.
        keep_keys_s: how long a bucket remembers a key after it was reserved.
    """

    # A day: a step settled again after a take-over comes within minutes, and any real bucket has refilled by then
    def __init__(self, clock: Clock = SYSTEM, *, keep_keys_s: float = 24 * 3600.0) -> None:
        self._clock = clock
        self._keep_keys_s = keep_keys_s
        self._lock = Lock()
        self._semaphores: dict[str, Semaphore] = {}
        self._buckets: dict[str, Bucket] = {}
        self._reservations: dict[tuple[str, str], Reservation] = {}
        self._forget = LazyHeap[tuple[str, str]](lambda _, key: key in self._reservations)

    async def open(self) -> None:
        """Nothing to connect to."""

    async def aclose(self) -> None:
        """Nothing to close: what is held stays until the object goes."""

    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        """Take `weight` of `permits`, or a place in the line. Raises `InvalidLimit` when `weight` can never fit."""
        if not 1 <= weight <= permits:
            raise InvalidLimit(name, weight, permits)
        with self._lock:
            now = self._clock.monotonic()
            semaphore = self._semaphore(name, now)
            if self._hold_on(semaphore, holder, now + lease_s):
                return Grant(granted=True)
            if semaphore.line.wait(holder, tenant, weight, now + lease_s) > permits - semaphore.held:
                return Grant(granted=False, retry_after_s=min(ASK_AGAIN_S, lease_s / 4))
            semaphore.line.serve(holder)
            semaphore.holders[holder] = Held(weight, now + lease_s)
            return Grant(granted=True)

    async def renew(self, name: str, holders: Sequence[str], lease_s: float) -> list[bool]:
        """False: that holder's lease ran out and its permits may be another's."""
        with self._lock:
            now = self._clock.monotonic()
            semaphore = self._semaphore(name, now)
            return [self._hold_on(semaphore, holder, now + lease_s) for holder in holders]

    async def release(self, name: str, holder: str) -> bool:
        """Give back permits, or leave the line. False: nothing was held."""
        with self._lock:
            semaphore = self._semaphore(name, self._clock.monotonic())
            semaphore.line.leave(holder)
            return self._let_go(semaphore, holder)

    async def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str = "") -> Grant:
        """Take `amount` tokens now, once per `key`, or learn when to ask again. Raises `InvalidLimit` when `amount` > `burst`."""
        if not 0 <= amount <= burst:
            raise InvalidLimit(name, amount, burst)
        with self._lock:
            now = self._clock.monotonic()
            bucket = self._bucket(name, rate_per_s, burst, now)
            if (name, key) in self._reservations:
                return Grant(granted=True)
            missing = bucket.line.wait(key, tenant, amount, float("inf")) - bucket.level
            if missing > SLACK:
                retry_after_s = missing / rate_per_s if rate_per_s else float("inf")
                # Twice the time that was said, and a second for a slow caller: who has not come by then has given up.
                bucket.line.wait(key, tenant, amount, now + 2 * retry_after_s + 1.0)
                return Grant(granted=False, retry_after_s=retry_after_s)
            bucket.line.serve(key)
            self._book(name, key, amount, now)
            return Grant(granted=True)

    async def settle(self, name: str, key: str, actual: float) -> None:
        """Book what `key` really used against what it reserved: give back the rest or take the overrun (the bucket may go negative).

        A key that still waits leaves the line; one that is unknown, or reserved so long ago that it is forgotten, is let be.
        """
        with self._lock:
            now = self._clock.monotonic()
            reservation = self._reservations.get((name, key))
            if reservation is None and name in self._buckets:
                self._buckets[name].line.leave(key)
            if reservation and not reservation.settled:
                self._buckets[name].fill(now)
                self._settle(self._buckets[name], reservation, actual)

    # From here on the lock is held.

    def _semaphore(self, name: str, now: float) -> Semaphore:
        semaphore = self._semaphores.setdefault(name, Semaphore(self._new_line()))
        semaphore.expire(now)
        return semaphore

    def _new_line(self) -> WaitingLine:
        return WaitingLine()

    def _hold_on(self, semaphore: Semaphore, holder: str, until: float) -> bool:
        held = semaphore.holders.get(holder)
        if held:
            semaphore.holders[holder] = Held(held.weight, until)
        return held is not None

    def _let_go(self, semaphore: Semaphore, holder: str) -> bool:
        return semaphore.holders.pop(holder, None) is not None

    def _bucket(self, name: str, rate_per_s: float, burst: float, now: float) -> Bucket:
        """The bucket, filled up to now at its old rate; from now on it fills at this one."""
        bucket = self._buckets.setdefault(name, Bucket(self._new_line(), burst, now, rate_per_s, burst))
        bucket.fill(now)
        bucket.rate_per_s, bucket.burst = rate_per_s, burst
        return bucket

    def _book(self, name: str, key: str, amount: float, now: float) -> None:
        self._buckets[name].level -= amount
        self._reservations[name, key] = Reservation(amount)
        self._forget.push(now + self._keep_keys_s, (name, key))
        while (head := self._forget.head()) and head[0] <= now:
            del self._reservations[head[1]]

    def _settle(self, bucket: Bucket, reservation: Reservation, actual: float) -> None:
        reservation.settled = True
        bucket.level = min(bucket.burst, bucket.level + reservation.amount - actual)


def from_url(url: str, *, clock: Clock = SYSTEM) -> InMemoryLimits:
    """Limits of their own for each call: `memory://`, without options. Raises `InvalidSetting`."""
    whole_numbers(url, set())
    return InMemoryLimits(clock)
