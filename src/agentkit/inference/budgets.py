"""Budgets: what a call may cost is reserved before it is sent and settled after, in accounts that all processes share.

An account is one small value under compare-and-set. The changes that a process wants to make to it at one time go into one write; when
processes collide, each reads again after a wait that is drawn by chance and grows.

What holds:

- What is spent and reserved never exceeds the limit by a reservation. It may exceed it by a call that cost more than was estimated.
- An entry counts once, whatever crashes: its key is the step's idempotency key, the same in every attempt.
- A reservation whose process died is taken up by the step when it runs again. If it never does, it is booked as spent after `hold_s`.
- A settlement that the store does not take is kept, and goes with the next change that this process makes to the account.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from pydantic import BaseModel, ConfigDict, Field

from agentkit.clock import SYSTEM, Clock, wait_for
from agentkit.errors import BudgetExceeded, StoreBusy, StoreError, ValueConflict
from agentkit.inference.ledger import Ledger, Shortage, entry_of
from agentkit.inference.spend import MICRO, Spend

if TYPE_CHECKING:
    from agentkit.ports.values import ValueStore

T = TypeVar("T")

HOLD_S = 900.0  # longer than any call takes, shorter than a day whose budget a dead process would hold
TRIES = 40  # with the waits below about six seconds: longer, and the store is not busy but broken
FIRST_WAIT_S, MAX_WAIT_S = 0.002, 0.25  # a round trip of a near store; many processes on one account
CLEAN_UP_S = 5.0  # a cancelled caller waits no longer for the store; what it leaves behind is booked after `hold_s`
LOOK_EVERY_S = 1.0  # what calls of other processes give back is seen so late
PAGE = 500  # of accounts to add up: some hundred bytes each
PREFIX = "agentkit/budget/"


class Budget(BaseModel):
    """What may be spent.

    Args:
        usd: dollars; None: any number.
        tokens: read and written together; None: any number.
        soft: the part of it at which a warning is given, once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    usd: float | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    soft: float = Field(default=0.8, ge=0, le=1)  # early enough to ask somebody, late enough to be rare

    @property
    def spend(self) -> Spend:
        """As whole numbers; what has no limit is 0."""
        return Spend(round((self.usd or 0.0) * MICRO), self.tokens or 0)


class Account(BaseModel):
    """Who spends, under which limit.

    Args:
        id: the same in every process, for instance `run/contract-17`.
        limit: what may be spent in all.
        ttl_s: how long after its last change the account is remembered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    id: str = Field(min_length=1, max_length=480)
    limit: Budget
    ttl_s: float = Field(default=90 * 86_400.0, gt=0)  # a run may wait for a human for weeks


class _Change(Generic[T]):
    """Something to be done to an account, and what came of it. A change that `stays` is made even if nobody waits for it any more."""

    __slots__ = ("_fn", "error", "result", "stays")

    def __init__(self, fn: Callable[[Ledger], T], *, stays: bool = False) -> None:
        self._fn, self.stays = fn, stays
        self.result: list[T] = []
        self.error: StoreError | None = None

    def make(self, ledger: Ledger) -> None:
        self.result = [self._fn(ledger)]


class _Line:
    """The changes of one account that wait in this process; whoever holds the lock writes them all."""

    __slots__ = ("changes", "lock", "users")

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.changes: list[_Change[Any]] = []
        self.users = 0


class Budgets:
    """The accounts of a runtime.

    Args:
        values: where they are kept.
        clock: its wall time is taken where a call does not say `now`: the store's clock, so that all processes mean the same.
        hold_s: how long a reservation waits for its settlement.
    """

    def __init__(self, values: ValueStore, clock: Clock = SYSTEM, *, hold_s: float = HOLD_S) -> None:
        self._values, self._clock, self._hold_s = values, clock, hold_s
        self._lines: dict[str, _Line] = {}
        self._freed = anyio.Event()
        """Set, and replaced, when a call of this process gave something back."""

    async def reserve(
        self, accounts: Sequence[Account], key: str, estimate: Spend, *, wait_s: float = 0.0, now: float | None = None
    ) -> None:
        """Reserve in all of the accounts, or in none. With a key that is reserved or settled already it changes nothing.

        Args:
            wait_s: how long to wait for calls under way, which reserved more than they will cost, when only they are in the way.

        Raises:
            BudgetExceeded: one of them has too little left. Nothing is reserved.
            StoreUnavailable: nobody knows what is left. What was reserved before is given back, if the store takes it.
        """
        began, now = self._clock.monotonic(), self._now(now)
        while True:
            freed, waited_s = self._freed, self._clock.monotonic() - began
            refused = await self._reserve(accounts, key, estimate, now + waited_s)
            if refused is None:
                return
            account, short = refused
            if not short.passes or waited_s >= wait_s:
                raise BudgetExceeded(account.id, short.unit, limit=short.limit, spent=short.spent, asked=short.asked)
            await wait_for(self._clock, freed, min(LOOK_EVERY_S, wait_s - waited_s))

    async def _reserve(self, accounts: Sequence[Account], key: str, estimate: Spend, now: float) -> tuple[Account, Shortage] | None:
        """Reserve in all, or say which of them has too little."""
        entry = entry_of(key)
        for n, account in enumerate(accounts, 1):
            try:
                short = await self._change(account, now, partial(_reserve, account, entry, estimate, now + self._hold_s))
            except BaseException:
                await self._give_back(accounts[:n], key, now)
                raise
            if short is not None:
                await self._give_back(accounts[: n - 1], key, now)
                return account, short
        return None

    async def _give_back(self, accounts: Sequence[Account], key: str, now: float) -> None:
        with anyio.move_on_after(CLEAN_UP_S, shield=True):
            try:
                await self._release(accounts, key, now)  # tells nobody: callers that are refused in turn would wake each other for ever
            except StoreError:
                return  # it is booked in time, as that of a dead process

    async def settle(self, accounts: Sequence[Account], key: str, spent: Spend, *, now: float | None = None) -> Sequence[Account]:
        """Book what the call cost, whether or not it is reserved still. Settled again, it changes nothing.

        Returns:
            The accounts whose soft limit this entry passed; to its repetition the same ones.

        Raises:
            StoreUnavailable: the store did not answer. The settlement is kept, and made with the next change of the account here.
        """
        now = self._now(now)
        entry, warned, failed = entry_of(key), list[Account](), None
        for account in accounts:
            try:
                if await self._change(account, now, partial(_settle, account, entry, spent, now), stays=True):
                    warned.append(account)
            except StoreError as exc:
                failed = exc
        self._free()
        if failed is not None:
            raise failed
        return warned

    async def release(self, accounts: Sequence[Account], key: str, *, now: float | None = None) -> None:
        """Give back what a call that was not sent had reserved. Raises `StoreUnavailable`."""
        await self._release(accounts, key, self._now(now))
        self._free()

    async def _release(self, accounts: Sequence[Account], key: str, now: float) -> None:
        for account in accounts:
            await self._change(account, now, partial(_release, entry_of(key)))

    def _free(self) -> None:
        self._freed.set()
        self._freed = anyio.Event()

    async def extend(self, account: Account, key: str, by: Budget, *, now: float | None = None) -> None:
        """Allow more; with the same key once. What has no limit has none after. Raises `StoreUnavailable`."""
        await self._change(account, self._now(now), partial(_extend, account, entry_of(key), by.spend))

    async def look(self, accounts: Sequence[Account], *, now: float | None = None) -> list[Ledger]:
        """The accounts as they stand, in one round trip; what is done to them here changes nothing. Raises `StoreUnavailable`."""
        found = await self._values.get([PREFIX + account.id for account in accounts])
        stored = [found.get(PREFIX + account.id) for account in accounts]
        ledgers = [Ledger.load(None if value is None else value.value) for value in stored]
        for ledger in ledgers:
            ledger.fold(self._now(now))
        return ledgers

    async def below(self, path: str) -> Spend:
        """What was spent in all accounts whose id begins with `path`, read in pages. Raises `StoreUnavailable`."""
        prefix, after, total = PREFIX + path, "", Spend()
        while page := await self._values.scan(prefix, after=after, limit=PAGE):
            total = reduce(Spend.plus, (Ledger.load(value.value).spent for value in page), total)
            after = page[-1].key
        return total

    def _now(self, now: float | None) -> float:
        return self._clock.time() if now is None else now

    async def _change(self, account: Account, now: float, fn: Callable[[Ledger], T], *, stays: bool = False) -> T:
        """Make a change, in one write with those that others want to make now."""
        line = self._lines.setdefault(account.id, _Line())
        change = _Change(fn, stays=stays)
        line.changes.append(change)
        line.users += 1
        try:
            async with line.lock:
                if change in line.changes:
                    await self._write(account, line, now)
        finally:
            line.users -= 1
            if change in line.changes and not stays:
                line.changes.remove(change)
            if not line.users and not line.changes:
                self._lines.pop(account.id, None)
        if change.error is not None:
            raise change.error
        return change.result[0]

    async def _write(self, account: Account, line: _Line, now: float) -> None:
        """Write all that wait. When the store fails they all fail; when the writer is cancelled the next one takes over."""
        batch = list(line.changes)
        error: StoreError | None = None
        try:
            await self._compare_and_set(account, batch, now)
        except StoreError as exc:
            error = exc
        for change in batch:
            change.error = error
            if change in line.changes and not (error and change.stays):
                line.changes.remove(change)

    async def _compare_and_set(self, account: Account, batch: Sequence[_Change[Any]], now: float) -> None:
        key = PREFIX + account.id
        for n in range(TRIES):
            found = (await self._values.get([key])).get(key)
            stored = None if found is None else found.value
            ledger = Ledger.load(stored)
            ledger.fold(now)
            for change in batch:
                change.make(ledger)
            if (after := ledger.dump()) == (stored or Ledger().dump()):
                return
            try:
                await self._values.put(key, after, expected=0 if found is None else found.version, ttl_s=account.ttl_s)
            except ValueConflict:
                await anyio.sleep(random.uniform(0.0, min(MAX_WAIT_S, FIRST_WAIT_S * 2**n)))
            else:
                return
        raise StoreBusy("budgets", f"{TRIES} writers in turn were first at {account.id!r}; nothing was written, try again")


def _reserve(account: Account, entry: str, asked: Spend, until: float, ledger: Ledger) -> Shortage | None:
    return ledger.reserve(entry, asked, account.limit, until)


def _settle(account: Account, entry: str, spent: Spend, now: float, ledger: Ledger) -> bool:
    return ledger.settle(entry, spent, account.limit, now)


def _release(entry: str, ledger: Ledger) -> None:
    ledger.release(entry)


def _extend(account: Account, entry: str, by: Spend, ledger: Ledger) -> None:
    ledger.extend(entry, by, account.limit)
