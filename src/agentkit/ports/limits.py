"""Limits shared by processes: semaphores whose permits are leased, and token buckets that are settled by key.

Laws (each is a test in `agentkit.testing.limits`):

- The weights of the unexpired holders of a semaphore never exceed its permits.
- A holder that died frees its permits one lease later; one that renews keeps them; acquiring again under the same holder is the same grant.
- Waiters are served fairly by tenant and in order inside a tenant: a heavy waiter is not starved by light ones.
- A bucket never gives out more than `burst` plus `rate` x time; `settle` books the difference to the truth once per key, however often
  it is called, and takes a key that still waits out of the line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Grant(NamedTuple):
    """`granted`, or not yet: ask again under the same holder after `retry_after_s` (the place in the line is kept one lease)."""

    granted: bool
    retry_after_s: float = 0.0


class LimitStore(Protocol):
    """Distributed semaphores and token buckets. Raises `StoreUnavailable` when the store did not answer (the call may have happened)."""

    async def open(self) -> None:
        """Connect and migrate. May be called more than once; each call needs its `aclose`."""
        ...

    async def aclose(self) -> None: ...

    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        """Take `weight` of `permits`, or a place in the line. Raises `InvalidLimit` when `weight` can never fit."""
        ...

    async def renew(self, name: str, holders: Sequence[str], lease_s: float) -> list[bool]:
        """False: that holder's lease ran out and its permits may be another's."""
        ...

    async def release(self, name: str, holder: str) -> bool:
        """Give back permits, or leave the line. False: nothing was held."""
        ...

    async def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str = "") -> Grant:
        """Take `amount` tokens now, once per `key`, or learn when to ask again. Raises `InvalidLimit` when `amount` > `burst`."""
        ...

    async def settle(self, name: str, key: str, actual: float) -> None:
        """Book what `key` really used against what it reserved: give back the rest or take the overrun (the bucket may go negative).

        A key that was not granted leaves the line, so that who gives up waiting does not hold up those behind.
        """
        ...
