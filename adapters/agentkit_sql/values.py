"""Small versioned values on SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidKey, ValueConflict, ValueTooLarge
from agentkit.ports.values import Value
from agentkit_sql.database import SqliteSettings
from agentkit_sql.dialect import Statement
from agentkit_sql.port import SqlPort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock
    from agentkit_sql.dialect import Dialect, Script
    from agentkit_sql.port import SqlSettings

MAX_KEY_BYTES = 512
CLEANED_AT_ONCE = 100
REMOVED = ""
"""No key of a user: its row keeps the highest version ever removed. New keys start above it, so a version read before never fits again."""
PREFIX_END = "\U0010ffff"


def check_key(key: str) -> None:
    """Raises `InvalidKey` for what cannot be kept byte for byte."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError as exc:
        raise InvalidKey(key, f"must be text that UTF-8 can write: {exc.reason}") from exc
    if not 1 <= size <= MAX_KEY_BYTES or "\0" in key:
        raise InvalidKey(key, f"must have 1 to {MAX_KEY_BYTES} bytes of UTF-8 without a zero byte, this one has {size}")


def after_prefix(prefix: str) -> str | None:
    """The first text beyond all that start with `prefix`, in byte order; None where there is none."""
    stem = prefix.rstrip(PREFIX_END)
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if 0xD800 <= following < 0xE000 else following)


class ValueScripts:
    """What the store does, each in one transaction."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        live = "\"key\" <> '' AND (expires_at IS NULL OR expires_at > ?)"
        self._get = Statement(f'SELECT "key", value, version FROM documents WHERE {live} AND ' + dialect.among('"key"'))
        self._one = Statement(f'SELECT version, expires_at FROM documents WHERE "key" = ?{dialect.exclusive}')
        self._insert = Statement('INSERT INTO documents ("key", value, version, expires_at) VALUES (?, ?, ?, ?)')
        self._update = Statement('UPDATE documents SET value = ?, version = ?, expires_at = ? WHERE "key" = ?')
        self._delete = Statement('DELETE FROM documents WHERE "key" = ?')
        self._removed = Statement("UPDATE documents SET version = ? WHERE \"key\" = '' AND version < ?")
        self._scan = Statement(
            f'SELECT "key", value, version FROM documents WHERE {live} AND "key" >= ? AND "key" > ? ORDER BY "key" LIMIT ?'
        )
        self._scan_to = Statement(
            f'SELECT "key", value, version FROM documents WHERE {live} AND "key" >= ? AND "key" > ? AND "key" < ? ORDER BY "key" LIMIT ?'
        )
        self._expired = Statement(
            f'SELECT "key", version FROM documents WHERE expires_at <= ? ORDER BY expires_at LIMIT {CLEANED_AT_ONCE}{dialect.unlocked}'
        )

    def get(self, keys: Sequence[str]) -> Script[dict[str, Value]]:
        now = yield from self._dialect.now()
        return {row[0]: Value(*row) for row in (yield self._get(now, self._dialect.listed(keys)))}

    def put(self, key: str, value: bytes, expected: int | None, ttl_s: float | None) -> Script[int]:
        now = yield from self._dialect.now()
        yield from self._clean(now)
        version = yield from self._checked(key, expected, now)
        expires_at = None if ttl_s is None else now + ttl_s
        if version:
            yield self._update(value, version + 1, expires_at, key)
        else:
            [(version, _)] = yield self._one(REMOVED)
            yield self._insert(key, value, version + 1, expires_at)
        return version + 1

    def delete(self, key: str, expected: int | None) -> Script[bool]:
        now = yield from self._dialect.now()
        version = yield from self._checked(key, expected, now)
        if version:
            yield from self._remove([(key, version)])
        return version > 0

    def _checked(self, key: str, expected: int | None, now: float) -> Script[int]:
        """The present version, 0 for none; an expired one is removed, so that its version is remembered."""
        found: list[Any] = yield self._one(key)
        version = found[0][0] if found else 0
        if found and found[0][1] is not None and found[0][1] <= now:
            yield from self._remove([(key, version)])
            version = 0
        if expected is not None and expected != version:
            raise ValueConflict(key, expected, version)
        return int(version)

    def _clean(self, now: float) -> Script[None]:
        expired = yield self._expired(now)
        if expired:
            yield from self._remove(expired)

    def _remove(self, rows: Sequence[Sequence[Any]]) -> Script[None]:
        highest = max(version for _, version in rows)
        yield self._removed(highest, highest)
        yield self._delete.many([(key,) for key, _ in rows])

    def scan(self, prefix: str, after: str, limit: int) -> Script[list[Value]]:
        now = yield from self._dialect.now()
        end = after_prefix(prefix)
        rows = (yield self._scan(now, prefix, after, limit)) if end is None else (yield self._scan_to(now, prefix, after, end, limit))
        return [Value(*row) for row in rows if row[0].startswith(prefix)]


class SqlValues(SqlPort):
    """A `ValueStore` in a SQL database. What `put` answers is on the disk."""

    max_value_bytes = 1024 * 1024  # what the servers behind the other adapters take without being tuned

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self._scripts = ValueScripts(settings.dialect(clock))

    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        """The present ones of `keys`, in one round trip."""
        return await self.database.read(lambda: self._scripts.get(keys))

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        """Store and return the new version. Raises `ValueConflict`, `InvalidKey` or `ValueTooLarge`: nothing was written."""
        check_key(key)
        if len(value) > self.max_value_bytes:
            raise ValueTooLarge(key, len(value), self.max_value_bytes)
        return await self.database.write(lambda: self._scripts.put(key, bytes(value), expected, ttl_s), sync=True)

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Remove; False when there was nothing. Raises `ValueConflict`: nothing was removed."""
        check_key(key)
        return await self.database.write(lambda: self._scripts.delete(key, expected), sync=True)

    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        """Up to `limit` values whose key starts with `prefix` and is greater than `after`, in byte order."""
        return await self.database.read(lambda: self._scripts.scan(prefix, after, limit))


def from_url(url: str, *, clock: Clock = SYSTEM) -> SqlValues:
    """The values in the file that a `sqlite://` URL names. Raises `InvalidSetting`."""
    return SqlValues(SqliteSettings.from_url(url), clock)
