"""The run store on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.clock import SYSTEM
from agentkit.ports.records import Finding
from agentkit_redis.advice import advice, facts_of
from agentkit_redis.connection import command
from agentkit_redis.runs_create import Creating
from agentkit_redis.runs_index import Indexed, matches
from agentkit_redis.runs_join import Joining
from agentkit_redis.runs_sweep import Sweeping
from agentkit_redis.runs_write import Writing
from agentkit_redis.settings import RedisSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.clock import Clock
    from agentkit.ports.records import Run, RunQuery


class RedisRuns(Creating, Writing, Joining, Sweeping, Indexed):
    """A `RunStore` on Redis 7 without modules: one server, Sentinel or Cluster.

    What survives a crash of the server is what its settings say (appendonly, appendfsync), see docs/how-to/operate-redis.md.
    """

    durable = True
    remote = True
    min_lease_s = 3.0  # a server whose disk lags holds writes back for up to 2 s (appendfsync everysec)

    async def get(self, run_ids: Sequence[str]) -> list[Run | None]:
        """The runs, in the order asked."""
        client = await self.client()
        return [row.run if row is not None else None for row in await self.look(client, run_ids)]

    async def findings(self, durability: str) -> list[Finding]:
        """What `agentkit doctor` is to say about the settings of the servers, for runs of this durability class."""
        client = await self.client()
        found: list[Finding] = []
        for server, (info, fsync) in (await client.everywhere([command("INFO"), command("CONFIG", "GET", "appendfsync")])).items():
            if isinstance(info, Exception):
                found.append(
                    Finding("note", "redis", f"{server}: its settings may not be read ({info})", "grant the user +info and +config|get")
                )
                continue
            config = {} if isinstance(fsync, Exception) else {"appendfsync": fsync[1].decode()}
            found += advice(server, facts_of(info.decode(), config), durability)
        return found

    async def changed(self, seen: int, timeout_s: float) -> int:
        """Wait until something may have changed since the token `seen` or the time is up; return the new token."""
        client = await self.client()
        key = self.list_key("changes")
        newest = await client.call(command("XREVRANGE", key, "+", "-", "COUNT", 1))
        token = _token(newest[0][0]) if newest else 1
        if token != seen or timeout_s <= 0:
            return token
        read = command("XREAD", "COUNT", 1, "BLOCK", max(1, int(timeout_s * 1000)), "STREAMS", key, _entry_id(token))
        found = await client.block(read, key, timeout_s)
        return _token(found[0][1][0][0]) if found else seen

    async def list(self, query: RunQuery) -> list[Run]:
        """A page of runs."""
        client = await self.client()
        now = await self.time(client)
        found: list[Run] = []
        async for page in self.pages(client, query):
            rows = await self.look(client, page)
            found += [row.run for row in rows if row is not None and matches(row.run, query, now)]
            if len(found) >= query.limit:
                break
        return found[: query.limit]


# A token is the id of the newest entry of the stream of changes, milliseconds and a number, as one number.
def _token(entry_id: bytes) -> int:
    ms, _, number = entry_id.partition(b"-")
    return (int(ms) << 24 | int(number)) + 1


def _entry_id(token: int) -> str:
    return f"{(token - 1) >> 24}-{(token - 1) & 0xFFFFFF}"


def from_url(url: str, *, clock: Clock = SYSTEM) -> RedisRuns:
    """The run store on the deployment that a Redis URL names. Raises `InvalidSetting`."""
    return RedisRuns(RedisSettings.from_url(url), clock)
