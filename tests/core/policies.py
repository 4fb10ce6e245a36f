"""What the tests of policies share."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from agentkit.inmemory.limits import InMemoryLimits
from agentkit.ports.limits import Grant
from agentkit.resilience.policy import Policy
from agentkit.testing.clock import FakeClock


async def later(clock: FakeClock, seconds: float) -> None:
    """Let time pass once everybody waits for something."""
    await anyio.wait_all_tasks_blocked()
    await clock.advance(seconds)


async def sleep_under(policy: Policy, clock: FakeClock, seconds: float) -> None:
    """A call under the policy that takes so long."""
    await policy.call(clock.sleep, seconds)


class YieldingLimits(InMemoryLimits):
    """A limit store that gives way to others before and after it acts, as one behind a network does: there a caller may be cancelled."""

    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        await anyio.lowlevel.checkpoint()
        grant = await super().acquire(name, holder, permits=permits, weight=weight, lease_s=lease_s, tenant=tenant)
        await anyio.lowlevel.checkpoint()
        return grant

    async def release(self, name: str, holder: str) -> bool:
        await anyio.lowlevel.checkpoint()
        return await super().release(name, holder)

    async def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str = "") -> Grant:
        await anyio.lowlevel.checkpoint()
        grant = await super().reserve(name, key, amount, rate_per_s=rate_per_s, burst=burst, tenant=tenant)
        await anyio.lowlevel.checkpoint()
        return grant

    async def settle(self, name: str, key: str, actual: float) -> None:
        await anyio.lowlevel.checkpoint()
        await super().settle(name, key, actual)
