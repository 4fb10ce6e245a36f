"""Limits shared by processes, on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidLimit
from agentkit.ports.limits import Grant
from agentkit_redis.connection import RedisPort, Script
from agentkit_redis.settings import RedisSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock

ACQUIRE = Script("clock", "line", "semaphore", "semaphore_acquire")
RENEW = Script("clock", "line", "semaphore", "semaphore_renew")
RELEASE = Script("clock", "line", "semaphore", "semaphore_release")
RESERVE = Script("clock", "line", "bucket", "bucket_reserve")
SETTLE = Script("clock", "line", "bucket", "bucket_settle")

ASK_AGAIN_S = 0.05  # permits come back whenever a holder is done; sooner would load the store, later would leave them idle


class RedisLimits(RedisPort):
    """A `LimitStore` in Redis. Each limit lies in a slot of its own, so that a cluster shares them out."""

    def __init__(self, settings: RedisSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)

    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        """Take `weight` of `permits`, or a place in the line. Raises `InvalidLimit` when `weight` can never fit."""
        if not 1 <= weight <= permits:
            raise InvalidLimit(name, weight, permits)
        if await self._call(ACQUIRE, f"semaphore:{name}", holder, tenant, permits, weight, repr(lease_s)):
            return Grant(granted=True)
        return Grant(granted=False, retry_after_s=min(ASK_AGAIN_S, lease_s / 4))

    async def renew(self, name: str, holders: Sequence[str], lease_s: float) -> list[bool]:
        """False: that holder's lease ran out and its permits may be another's."""
        return [bool(held) for held in await self._call(RENEW, f"semaphore:{name}", repr(lease_s), *holders)]

    async def release(self, name: str, holder: str) -> bool:
        """Give back permits, or leave the line. False: nothing was held."""
        return bool(await self._call(RELEASE, f"semaphore:{name}", holder))

    async def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str = "") -> Grant:
        """Take `amount` tokens now, once per `key`, or learn when to ask again. Raises `InvalidLimit` when `amount` > `burst`."""
        if not 0 <= amount <= burst:
            raise InvalidLimit(name, amount, burst)
        missing: bytes = await self._call(RESERVE, f"bucket:{name}", key, tenant, repr(amount), repr(rate_per_s), repr(burst))
        if not missing:
            return Grant(granted=True)
        return Grant(granted=False, retry_after_s=float(missing) / rate_per_s if rate_per_s else float("inf"))

    async def settle(self, name: str, key: str, actual: float) -> None:
        """Book what `key` really used against what it reserved: give back the rest or take the overrun (the bucket may go negative).

        A key that still waits leaves the line; one that is unknown, or reserved so long ago that it is forgotten, is let be.
        """
        await self._call(SETTLE, f"bucket:{name}", key, repr(actual))

    async def _call(self, script: Script, limit: str, *words: Any) -> Any:
        client = await self.client()
        return await client.call(script([self.key(limit)], self.now(), *words))


def from_url(url: str, *, clock: Clock = SYSTEM) -> RedisLimits:
    """The limits of the deployment that a Redis URL names. Raises `InvalidSetting`."""
    return RedisLimits(RedisSettings.from_url(url), clock)
