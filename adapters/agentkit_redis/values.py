"""Small versioned values on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidKey, ValueConflict, ValueTooLarge
from agentkit.ports.values import Value
from agentkit_redis.connection import RedisPort, Script
from agentkit_redis.settings import RedisSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock

GET = Script("clock", "values", "values_get")
PUT = Script("clock", "values", "values_put")
DELETE = Script("clock", "values", "values_delete")
SCAN = Script("clock", "values", "values_scan")

MAX_KEY_BYTES = 512
PAST_TEXT = b"\xff"  # greater than any byte of UTF-8


class RedisValues(RedisPort):
    """A `ValueStore` in Redis. All its keys lie in one slot of a cluster, so that they can be scanned in order."""

    max_value_bytes = 1024 * 1024  # a greater one would hold up everybody else on the server; the other adapters have the same limit

    def __init__(self, settings: RedisSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self._key = self.key("values")

    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        """The present ones of `keys`, in one round trip."""
        asked = [key for key in dict.fromkeys(keys) if not _problem(key)]
        if not asked:
            return {}
        words = await self._call(GET, *asked)
        found = zip(asked, words[::2], words[1::2], strict=True)
        return {key: Value(key, value, version) for key, value, version in found if value is not None}

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        """Store and return the new version. Raises `ValueConflict`, `InvalidKey` or `ValueTooLarge`: nothing was written."""
        if problem := _problem(key):
            raise InvalidKey(key, problem)
        if len(value) > self.max_value_bytes:
            raise ValueTooLarge(key, len(value), self.max_value_bytes)
        done, version = await self._call(PUT, key, value, _or_empty(expected), _or_empty(ttl_s))
        if not done:
            raise ValueConflict(key, expected or 0, version)
        return int(version)

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Remove; False when there was nothing. Raises `ValueConflict`: nothing was removed."""
        if problem := _problem(key):
            raise InvalidKey(key, problem)
        done, found = await self._call(DELETE, key, _or_empty(expected))
        if not done:
            raise ValueConflict(key, expected or 0, found)
        return bool(found)

    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        """Up to `limit` values whose key starts with `prefix` and is greater than `after`, in byte order."""
        if limit < 1:
            return []
        first, previous = prefix.encode(), after.encode()
        start = b"(" + previous if previous >= first and previous else b"[" + first
        words = await self._call(SCAN, start, b"(" + first + PAST_TEXT, limit)
        return [Value(key.decode(), value, version) for key, value, version in zip(words[::3], words[1::3], words[2::3], strict=True)]

    async def _call(self, script: Script, *words: Any) -> list[Any]:
        client = await self.client()
        answer: list[Any] = await client.call(script([self._key], self.now(), *words))
        return answer


def from_url(url: str, *, clock: Clock = SYSTEM) -> RedisValues:
    """The values of the deployment that a Redis URL names. Raises `InvalidSetting`."""
    return RedisValues(RedisSettings.from_url(url), clock)


def _problem(key: str) -> str:
    """What is wrong with a key, if anything."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError as exc:
        return f"must be text that UTF-8 can write: {exc.reason}"
    return "" if 1 <= size <= MAX_KEY_BYTES else f"must have 1 to {MAX_KEY_BYTES} bytes of UTF-8, this one has {size}"


def _or_empty(number: float | None) -> str:
    return "" if number is None else repr(number)
