"""Small versioned values: sessions, caches, breaker state, budgets, rollouts.

Laws (each is a test in `agentkit.testing.values`):

- `put` and `delete` are compare-and-set: of many racing writers with one `expected` exactly one wins, the others get `ValueConflict`.
- A value past its time to live reads as absent at once, whether or not it was cleaned up; writing it anew starts at version 1 or above.
- Versions of one key never repeat while it exists, and never fall.
- Keys are compared byte for byte; `scan` returns them in byte order, each once, also while others write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Value(NamedTuple):
    key: str
    value: bytes
    version: int


class ValueStore(Protocol):
    """Versioned values with compare-and-set and time to live. Raises `StoreUnavailable` when the store did not answer (a write may
    then have happened) and `InvalidKey` / `ValueTooLarge` on bad input (nothing was written).
    """

    max_value_bytes: int

    async def open(self) -> None:
        """Connect and migrate. May be called more than once; each call needs its `aclose`."""
        ...

    async def aclose(self) -> None: ...

    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        """The present ones of `keys`, in one round trip."""
        ...

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        """Store and return the new version.

        Args:
            key: 1 to 512 bytes of UTF-8.
            value: at most `max_value_bytes`.
            expected: 0 to create, else the version read; None to overwrite whatever is there.
            ttl_s: seconds to live on the store's clock; None for ever.

        Raises:
            ValueConflict: another writer was first. Nothing was written.
        """
        ...

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Remove; False when there was nothing. Raises `ValueConflict` as `put` does."""
        ...

    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        """Up to `limit` values whose key starts with `prefix` and is greater than `after`, in byte order."""
        ...
