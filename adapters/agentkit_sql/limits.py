"""Limits shared by processes, on SQL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidLimit
from agentkit.ports.limits import Grant
from agentkit_sql.database import SqliteSettings
from agentkit_sql.dialect import Statement
from agentkit_sql.port import SqlPort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock
    from agentkit_sql.dialect import Dialect, Script
    from agentkit_sql.port import SqlSettings

SLACK = 1e-6  # of a token: times are seconds since 1970 here, whose last digit is a quarter of a microsecond
ASK_AGAIN_S = 0.05  # permits come back whenever a holder is done; sooner would load the store, later would leave them idle
KEYS_KEPT_S = 24 * 3600.0  # a step settled again after a take-over comes within minutes
FORGOTTEN_AT_ONCE = 100
SEMAPHORE, BUCKET = "s:", "b:"
"""What a name begins with in `permits`, where both kinds of line stand."""


class LineScripts:
    """Who waits for a part of something, fairly by tenant (start-time fair queueing).

    A place is fixed when it is taken: at the end of its tenant's weight, or where the line stands now. So nobody who comes later,
    however light, gets ahead of it for long.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._expire = Statement("DELETE FROM permits WHERE name = ? AND expires_at <= ?")
        # Where the line stands: at its first place, or behind all that were served from it.
        self._turns = Statement(
            "SELECT coalesce(min(CASE WHEN granted = 0 THEN turn END), max(turn), 0), max(CASE WHEN tenant = ? THEN turn + weight END), "
            "coalesce(max(n), 0) FROM permits WHERE name = ?"
        )
        self._enter = Statement(
            "INSERT INTO permits (name, holder, n, tenant, weight, turn, granted, expires_at) VALUES (?, ?, ?, ?, ?, ?, 0, ?)"
        )
        self._find = Statement(f"SELECT granted, turn, n FROM permits WHERE name = ? AND holder = ?{dialect.exclusive}")
        self._ahead = Statement(
            "SELECT coalesce(sum(weight), 0) FROM permits WHERE name = ? AND granted = 0 AND (turn < ? OR (turn = ? AND n <= ?))"
        )
        self._keep = Statement("UPDATE permits SET expires_at = ?, granted = ? WHERE name = ? AND holder = ?")
        self._leave = Statement("DELETE FROM permits WHERE name = ? AND holder = ?")
        self._used = Statement("SELECT coalesce(sum(weight), 0) FROM permits WHERE name = ? AND granted = 1")
        self._held = Statement("SELECT holder FROM permits WHERE name = ? AND granted = 1")

    def _wait(self, name: str, holder: str, tenant: str, weight: float, until: float) -> Script[float | None]:
        """Take or keep a place; the weight of all up to it, or None when it was granted before."""
        found: list[Any] = yield self._find(name, holder)
        if not found:
            [(line, mine, last)] = yield self._turns(tenant, name)
            yield self._enter(name, holder, last + 1, tenant, weight, max(line, mine or 0.0), until)
            found = yield self._find(name, holder)
        [(granted, turn, n)] = found
        yield self._keep(until, granted, name, holder)
        return None if granted else float((yield self._ahead(name, turn, turn, n))[0][0])


class SemaphoreScripts(LineScripts):
    """Permits that are leased."""

    def acquire(self, name: str, holder: str, *, permits: int, weight: int, lease_s: float, tenant: str) -> Script[Grant]:
        yield from self._dialect.serial(name)
        now = yield from self._dialect.now()
        yield self._expire(name, now)
        needed = yield from self._wait(name, holder, tenant, weight, now + lease_s)
        if needed is None:
            return Grant(granted=True)
        if needed > permits - (yield self._used(name))[0][0]:
            return Grant(granted=False, retry_after_s=min(ASK_AGAIN_S, lease_s / 4))
        yield self._keep(now + lease_s, 1, name, holder)
        return Grant(granted=True)

    def renew(self, name: str, holders: Sequence[str], lease_s: float) -> Script[list[bool]]:
        yield from self._dialect.serial(name)
        now = yield from self._dialect.now()
        yield self._expire(name, now)
        held = {row[0] for row in (yield self._held(name))}
        yield self._keep.many([(now + lease_s, 1, name, holder) for holder in held.intersection(holders)])
        return [holder in held for holder in holders]

    def release(self, name: str, holder: str) -> Script[bool]:
        yield from self._dialect.serial(name)
        now = yield from self._dialect.now()
        yield self._expire(name, now)
        found: list[Any] = yield self._find(name, holder)
        yield self._leave(name, holder)
        return bool(found and found[0][0])


class BucketScripts(LineScripts):
    """Tokens that come at a rate and are settled by key."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        self._bucket = Statement(f"SELECT level, burst, rate, at FROM buckets WHERE name = ?{dialect.exclusive}")
        self._insert = Statement("INSERT INTO buckets (name, level, burst, rate, at) VALUES (?, ?, ?, ?, ?)")
        self._fill = Statement("UPDATE buckets SET level = ?, burst = ?, rate = ?, at = ? WHERE name = ?")
        self._reserved = Statement(f'SELECT amount, settled FROM reservations WHERE name = ? AND "key" = ?{dialect.exclusive}')
        self._reserve = Statement('INSERT INTO reservations (name, "key", amount, settled, at) VALUES (?, ?, ?, 0, ?)')
        self._settle = Statement('UPDATE reservations SET settled = 1 WHERE name = ? AND "key" = ?')
        self._old = Statement(f'SELECT name, "key" FROM reservations WHERE at <= ? ORDER BY at LIMIT {FORGOTTEN_AT_ONCE}{dialect.unlocked}')
        self._forget = Statement('DELETE FROM reservations WHERE name = ? AND "key" = ?')

    def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str) -> Script[Grant]:
        yield from self._dialect.serial(BUCKET + name)
        now = yield from self._dialect.now()
        yield self._expire(BUCKET + name, now)
        level = yield from self._level(name, now, rate_per_s, burst)
        if (yield self._reserved(name, key)):
            return Grant(granted=True)
        needed = yield from self._wait(BUCKET + name, key, tenant, amount, now + 1.0)
        missing = (needed or 0.0) - level
        if missing > SLACK:
            retry_after_s = missing / rate_per_s if rate_per_s else float("inf")
            # Twice the time that was said, and a second for a slow caller: who has not come by then has given up.
            yield self._keep(min(now + 2 * retry_after_s + 1.0, now + KEYS_KEPT_S), 0, BUCKET + name, key)
            return Grant(granted=False, retry_after_s=retry_after_s)
        yield self._leave(BUCKET + name, key)
        yield self._fill(level - amount, burst, rate_per_s, now, name)
        yield self._reserve(name, key, amount, now)
        old = yield self._old(now - KEYS_KEPT_S)
        if old:
            yield self._forget.many(old)
        return Grant(granted=True)

    def _level(self, name: str, now: float, rate_per_s: float | None = None, burst: float | None = None) -> Script[float]:
        """The bucket's level, filled up to now at its old rate; from now on it fills at the one given."""
        found: list[Any] = yield self._bucket(name)
        if not found:
            yield self._insert(name, burst, burst, rate_per_s, now)
            return float(burst or 0.0)
        [(level, old_burst, old_rate, at)] = found
        # A clock that was set back must not drain a bucket.
        level = min(old_burst, level + old_rate * max(0.0, now - at))
        yield self._fill(level, old_burst if burst is None else burst, old_rate if rate_per_s is None else rate_per_s, now, name)
        return float(level)

    def settle(self, name: str, key: str, actual: float) -> Script[None]:
        yield from self._dialect.serial(BUCKET + name)
        found: list[Any] = yield self._reserved(name, key)
        if not found:
            yield self._leave(BUCKET + name, key)
            return
        if found[0][1]:
            return
        now = yield from self._dialect.now()
        level = yield from self._level(name, now)
        [(_, burst, rate, _)] = yield self._bucket(name)
        yield self._fill(min(burst, level + found[0][0] - actual), burst, rate, now, name)
        yield self._settle(name, key)


class SqlLimits(SqlPort):
    """A `LimitStore` in a SQL database. Nothing waits for the disk: a power cut ends the processes that held something, too."""

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        dialect = settings.dialect(clock)
        self._semaphores, self._buckets = SemaphoreScripts(dialect), BucketScripts(dialect)

    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        """Take `weight` of `permits`, or a place in the line. Raises `InvalidLimit` when `weight` can never fit."""
        if not 1 <= weight <= permits:
            raise InvalidLimit(name, weight, permits)
        take = partial(self._semaphores.acquire, SEMAPHORE + name, holder, permits=permits, weight=weight, lease_s=lease_s, tenant=tenant)
        return await self.database.write(take, sync=False)

    async def renew(self, name: str, holders: Sequence[str], lease_s: float) -> list[bool]:
        """False: that holder's lease ran out and its permits may be another's."""
        return await self.database.write(lambda: self._semaphores.renew(SEMAPHORE + name, holders, lease_s), sync=False)

    async def release(self, name: str, holder: str) -> bool:
        """Give back permits, or leave the line. False: nothing was held."""
        return await self.database.write(lambda: self._semaphores.release(SEMAPHORE + name, holder), sync=False)

    async def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str = "") -> Grant:
        """Take `amount` tokens now, once per `key`, or learn when to ask again. Raises `InvalidLimit` when `amount` > `burst`."""
        if not 0 <= amount <= burst:
            raise InvalidLimit(name, amount, burst)
        take = partial(self._buckets.reserve, name, key, amount, rate_per_s=rate_per_s, burst=burst, tenant=tenant)
        return await self.database.write(take, sync=False)

    async def settle(self, name: str, key: str, actual: float) -> None:
        """Book what `key` really used against what it reserved. A key that reserved nothing, or too long ago, is let be."""
        await self.database.write(lambda: self._buckets.settle(name, key, actual), sync=False)


def from_url(url: str, *, clock: Clock = SYSTEM) -> SqlLimits:
    """The limits in the file that a `sqlite://` URL names. Raises `InvalidSetting`."""
    return SqlLimits(SqliteSettings.from_url(url), clock)
