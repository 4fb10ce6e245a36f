"""Rates: so many requests and tokens a minute, reserved before a call is sent and settled by what it used.

How many tokens a call will use is not known before. What it should reserve is said with `expecting(tokens)`, or else is what calls of that
rate used lately; what it did use is said inside it with `used(tokens)`. A call that says nothing has used what it reserved.
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, Self
from uuid import uuid4

import anyio

from agentkit.errors import Overloaded, StoreError
from agentkit.resilience.deadline import remaining_s
from agentkit.resilience.layer import refused, waited
from agentkit.resilience.settings import at_least, require
from agentkit.resilience.state import PolicyState, tenant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from agentkit.clock import Clock
    from agentkit.ports.limits import Grant, LimitStore
    from agentkit.resilience.layer import Layer, Outcome

MINUTE_S = 60.0
MAX_WAIT_S = 60.0  # without a deadline: a whole minute's worth is ahead then, and the caller had better hear so
SETTLE_TIMEOUT_S = 5.0  # a store that takes longer is away; the reserve then stands for the truth
LATELY = 0.1  # weight of one call in what calls used lately: about the last twenty count
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RateLimit:
    """Requests and tokens a minute under one name; who names it again shares them.

    Each is a bucket that holds a minute's worth and fills evenly, as the providers' own do.

    Args:
        name: what is limited, for instance an account at a provider.
        rpm: requests a minute.
        tpm: tokens a minute. A call that should use more waits for a full bucket, and the next ones pay for the rest.
        shared: count over all processes that use the same limit store, as a provider does.
    """

    name: str
    _: KW_ONLY
    rpm: int | None = None
    tpm: int | None = None
    shared: bool = True  # a provider counts an account's calls, whichever process sends them

    def __post_init__(self) -> None:
        require("RateLimit.name", self.name, bool(self.name), "must not be empty: its state belongs to its name")
        require("RateLimit", self.name, self.rpm is not None or self.tpm is not None, "needs rpm=, tpm= or both")
        for name, value in (("rpm", self.rpm), ("tpm", self.tpm)):
            at_least(f"RateLimit.{name}", 1 if value is None else value, 1)

    def layer(self, state: PolicyState) -> Layer:
        """This rate as something that calls pass, with the state behind its name."""
        store = state.store_of(f"rate {self.name!r}") if self.shared else None
        return state.part("rate", self.name, self, partial(Rates, self, state.clock, store))


class Usage:
    """Tokens of one call, as it says them."""

    __slots__ = ("_outer", "tokens")

    def __init__(self) -> None:
        self.tokens: float | None = None
        self._outer = _calls.get()

    def __enter__(self) -> Self:
        _calls.set((*self._outer, self))
        return self

    def __exit__(self, *_: object) -> None:
        _calls.set(self._outer)


_expected: ContextVar[float | None] = ContextVar("agentkit_expected_tokens", default=None)
_calls: ContextVar[tuple[Usage, ...]] = ContextVar("agentkit_token_usage", default=())


@contextmanager
def expecting(tokens: float) -> Generator[None]:
    """Each call in the block is expected to use so many tokens, prompt and answer together."""
    before = _expected.get()
    _expected.set(tokens)
    try:
        yield
    finally:
        _expected.set(before)


def used(tokens: float) -> None:
    """Say, from inside a call, that it used so many tokens. Said several times they add up; outside of any call nobody listens."""
    for call in _calls.get():
        call.tokens = (call.tokens or 0.0) + tokens


class Bucket(NamedTuple):
    """Tokens of a bucket at one moment. It goes below zero by what was promised to those who wait."""

    level: float
    at: float


def filled(bucket: Bucket, now: float, *, rate_per_s: float, burst: float) -> float:
    """The tokens that are there at `now`. Written out, for `min` and `max` cost a call more than they do."""
    level = bucket.level + rate_per_s * (now - bucket.at) if now > bucket.at else bucket.level
    return level if level < burst else burst


def taken(bucket: Bucket, amount: float, now: float, *, rate_per_s: float, burst: float) -> tuple[Bucket, float]:
    """The bucket after `amount` was promised, and in how many seconds it will be there: in turn, for all promised before come first."""
    left = filled(bucket, now, rate_per_s=rate_per_s, burst=burst) - (amount if amount < burst else burst)
    return Bucket(left, now), 0.0 if left >= 0 else -left / rate_per_s


def given_back(bucket: Bucket, amount: float, now: float, *, rate_per_s: float, burst: float) -> Bucket:
    """The bucket after `amount` was not used; below zero it was used in addition."""
    return Bucket(min(burst, filled(bucket, now, rate_per_s=rate_per_s, burst=burst) + amount), now)


class LocalBucket:
    """A bucket of this process."""

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._clock, self._rate_per_s, self.burst = clock, per_minute / MINUTE_S, per_minute
        self._bucket = Bucket(per_minute, clock.monotonic())

    async def reserve(self, _: Reservation, amount: float, most_s: float) -> float | None:
        """Wait until `amount` is there; None, or without having waited the seconds it would take if they are more than `most_s`."""
        now = self._clock.monotonic()
        bucket, wait_s = taken(self._bucket, amount, now, rate_per_s=self._rate_per_s, burst=self.burst)
        if wait_s > most_s:
            return wait_s
        self._bucket = bucket
        if wait_s:
            try:
                await self._clock.sleep(wait_s)
            except BaseException:
                self._give_back(amount)
                raise
        return None

    async def settle(self, _: Reservation, reserved: float, actual: float) -> None:
        """Book what was really used."""
        self._give_back(min(reserved, self.burst) - actual)

    def _give_back(self, amount: float) -> None:
        self._bucket = given_back(self._bucket, amount, self._clock.monotonic(), rate_per_s=self._rate_per_s, burst=self.burst)


class SharedBucket:
    """A bucket in a limit store."""

    def __init__(self, name: str, per_minute: float, clock: Clock, store: LimitStore) -> None:
        self._name, self._clock, self._store = name, clock, store
        self._rate_per_s, self.burst = per_minute / MINUTE_S, per_minute

    async def reserve(self, reservation: Reservation, amount: float, most_s: float) -> float | None:
        """Wait in the store's line. Raises `StoreUnavailable`: without the store nobody knows what is left."""
        end = self._clock.monotonic() + most_s
        granted = False
        try:
            while True:
                granted, retry_after_s = await self._ask(reservation.key, min(amount, self.burst))
                if granted:
                    return None
                if self._clock.monotonic() + retry_after_s > end:
                    return retry_after_s
                await self._clock.sleep(max(retry_after_s, 1e-3))
        finally:
            if not granted:  # leave the line, and give back what may have been granted without our hearing of it
                await self.settle(reservation, amount, 0.0)

    async def _ask(self, key: str, amount: float) -> Grant:
        return await self._store.reserve(self._name, key, amount, rate_per_s=self._rate_per_s, burst=self.burst, tenant=tenant.get())

    async def settle(self, reservation: Reservation, _: float, actual: float) -> None:
        """Book what was really used; without an answer of the store the reserve stands."""
        with anyio.move_on_after(SETTLE_TIMEOUT_S, shield=True):
            try:
                await self._store.settle(self._name, reservation.key, actual)
            except StoreError as exc:
                logger.warning("rate %r: a call was not settled, what it reserved stands: %s", self._name, exc)


class Rates:
    """The buckets of one name, as calls pass them: a request first, then its tokens."""

    def __init__(self, settings: RateLimit, clock: Clock, store: LimitStore | None) -> None:
        self.name, self.clock = settings.name, clock
        self.lately = 0.0
        self.requests = _bucket(f"{settings.name}/rpm", settings.rpm, clock, store)
        self.tokens = _bucket(f"{settings.name}/tpm", settings.tpm, clock, store)

    async def enter(self) -> Reservation:
        """Wait for the rate, no longer than the deadline. Raises `Overloaded` at once if that will not do: nothing is reserved then."""
        reserved, expected = Reservation(self), _expected.get()
        began = self.clock.monotonic()
        left_s = remaining_s()
        end = began + (MAX_WAIT_S if left_s == math.inf else left_s)
        try:
            if self.requests is not None:
                await self._reserve(self.requests, reserved, 1.0, end)
            if self.tokens is not None:
                await self._reserve(self.tokens, reserved, self.lately if expected is None else expected, end)
        except BaseException:
            await reserved.settle(0.0, 0.0)
            raise
        if (wait_s := self.clock.monotonic() - began) > 1e-3:
            waited(self.name, wait_s)
        return reserved

    async def _reserve(self, bucket: LocalBucket | SharedBucket, reserved: Reservation, amount: float, end: float) -> None:
        too_long_s = await bucket.reserve(reserved, amount, end - self.clock.monotonic())
        if too_long_s is not None:
            what = "requests" if bucket is self.requests else "tokens"
            refused(self.name, what)
            raise Overloaded(f"rate {self.name!r} ({what} a minute)", int(bucket.burst), too_long_s)
        reserved.of[bucket] = amount


def _bucket(name: str, per_minute: int | None, clock: Clock, store: LimitStore | None) -> LocalBucket | SharedBucket | None:
    if per_minute is None:
        return None
    return LocalBucket(per_minute, clock) if store is None else SharedBucket(name, per_minute, clock, store)


class Reservation:
    """What one call reserved."""

    keep: Callable[[], Awaitable[str]] | None = None

    def __init__(self, rates: Rates) -> None:
        self.of: dict[LocalBucket | SharedBucket, float] = {}
        self._rates = rates

    @cached_property
    def key(self) -> str:
        """What a store knows it by; within a process nobody asks."""
        return uuid4().hex

    async def leave(self, outcome: Outcome) -> None:
        """Settle: a call that was not sent used nothing, one that did not say what it used has used its reserve."""
        if not outcome.sent:
            return await self.settle(0.0, 0.0)
        if outcome.tokens is not None:
            lately = self._rates.lately
            self._rates.lately += LATELY * (outcome.tokens - lately) if lately else outcome.tokens
        return await self.settle(None, outcome.tokens)

    async def settle(self, requests: float | None, tokens: float | None) -> None:
        """Book what was used; None is what was reserved."""
        for bucket, reserved in self.of.items():
            actual = requests if bucket is self._rates.requests else tokens
            if actual is not None:
                await bucket.settle(self, reserved, actual)
        self.of.clear()
