"""Small versioned values in this process's memory: for tests, for tutorials, and for what nothing needs to outlive the process."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from itertools import islice, takewhile
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidKey, ValueConflict, ValueTooLarge
from agentkit.inmemory.heap import LazyHeap
from agentkit.inmemory.url import whole_numbers
from agentkit.ports.values import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock

MAX_KEY_BYTES = 512


class Kept(NamedTuple):
    """A value and when it ends, on the monotonic clock."""

    value: bytes
    version: int
    ends: float


class InMemoryValues:
    """A `ValueStore` in memory.

    Its methods take effect at once and whole, and may be called from several threads and event loops. What it holds ends with the process.

    Args:
        clock: the time of the times to live.
        max_value_bytes: the size of the largest value.
    """

    # 1 MiB: what the servers behind the other adapters take without being tuned
    def __init__(self, clock: Clock = SYSTEM, *, max_value_bytes: int = 1024 * 1024) -> None:
        self.max_value_bytes = max_value_bytes
        self._clock = clock
        self._lock = Lock()
        self._kept: dict[str, Kept] = {}
        self._keys: list[str] = []  # sorted; Python orders str by code point, which is the byte order of UTF-8
        self._ends = LazyHeap[str](lambda ends, key: (kept := self._kept.get(key)) is not None and kept.ends == ends)
        self._last_removed = 0
        """The highest version ever removed. New keys start above it, so that a version read before a removal never fits again."""

    async def open(self) -> None:
        """Nothing to connect to."""

    async def aclose(self) -> None:
        """Nothing to close: the values stay until the object goes."""

    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        """The present ones of `keys`."""
        with self._lock:
            self._expire()
            return {key: Value(key, kept.value, kept.version) for key in keys if (kept := self._kept.get(key))}

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        """Store and return the new version. Raises `ValueConflict`, `InvalidKey` or `ValueTooLarge`: nothing was written."""
        self._check_key(key)
        self._check_size(key, value)
        with self._lock:
            now = self._expire()
            self._check(key, expected)
            return self._write(key, value, float("inf") if ttl_s is None else now + ttl_s)

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Remove; False when there was nothing. Raises `ValueConflict`: nothing was removed."""
        with self._lock:
            self._expire()
            self._check(key, expected)
            found = key in self._kept
            if found:
                self._remove(key)
            return found

    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        """Up to `limit` values whose key starts with `prefix` and is greater than `after`, in byte order."""
        with self._lock:
            self._expire()
            start = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
            keys = takewhile(lambda key: key.startswith(prefix), islice(self._keys, start, None))
            return [Value(key, self._kept[key].value, self._kept[key].version) for key in islice(keys, limit)]

    def _check_key(self, key: str) -> None:
        try:
            size = len(key.encode())
        except UnicodeEncodeError as exc:
            raise InvalidKey(key, f"must be text that UTF-8 can write: {exc.reason}") from exc
        if not 1 <= size <= MAX_KEY_BYTES:
            raise InvalidKey(key, f"must have 1 to {MAX_KEY_BYTES} bytes of UTF-8, this one has {size}")

    def _check_size(self, key: str, value: bytes) -> None:
        if len(value) > self.max_value_bytes:
            raise ValueTooLarge(key, len(value), self.max_value_bytes)

    # From here on the lock is held.

    def _expire(self) -> float:
        """Remove what is past its time; returns now."""
        now = self._clock.monotonic()
        while (head := self._ends.head()) and head[0] <= now:
            self._remove(head[1])
        return now

    def _check(self, key: str, expected: int | None) -> None:
        found = self._kept[key].version if key in self._kept else 0
        if expected is not None and expected != found:
            raise ValueConflict(key, expected, found)

    def _write(self, key: str, value: bytes, ends: float) -> int:
        version = self._next_version(key)
        if key not in self._kept:
            insort(self._keys, key)
        self._kept[key] = Kept(bytes(value), version, ends)
        if ends < float("inf"):
            self._ends.push(ends, key)
        return version

    def _next_version(self, key: str) -> int:
        return 1 + (self._kept[key].version if key in self._kept else self._last_removed)

    def _remove(self, key: str) -> None:
        self._last_removed = max(self._last_removed, self._kept.pop(key).version)
        del self._keys[bisect_left(self._keys, key)]


def from_url(url: str, *, clock: Clock = SYSTEM) -> InMemoryValues:
    """Values of their own for each call: `memory://` or `memory://?max_value_bytes=65536`. Raises `InvalidSetting`."""
    return InMemoryValues(clock, **whole_numbers(url, {"max_value_bytes"}))
