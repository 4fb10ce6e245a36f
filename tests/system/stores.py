"""Where state and tickets lie in a test that kills processes: one file, one server, or two servers of different kinds."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from tests.servers.mariadb import Mariadb
from tests.servers.postgresql import Postgresql
from tests.servers.process import Server, private
from tests.servers.redis import Redis

SERVERS = ("postgresql", "mariadb", "redis")
MIXED = ("postgresql+redis", "redis+postgresql", "sqlite+redis")
STORES = ("sqlite", *SERVERS, *MIXED)
"""The store of the runs; after a `+` that of the tickets, where it is another."""


@dataclass(frozen=True)
class Place:
    """URLs, and the servers behind them, which keep what they acknowledge also when they are killed."""

    state: str
    queue: str
    servers: tuple[Server, ...] = ()

    @property
    def settings(self) -> dict[str, str]:
        """What a runtime in this place is given."""
        return {"state": self.state, "queue": self.queue}


@asynccontextmanager
async def place(name: str, folder: Path) -> AsyncGenerator[Place]:
    """Start what `name`, one of `STORES`, needs."""
    state, _, queue = name.partition("+")
    async with AsyncExitStack() as stack:
        opened = [await _open(stack, kind, folder) for kind in (state, queue) if kind]
        servers = tuple(server for _, server in opened if server is not None)
        yield Place(opened[0][0], opened[-1][0], servers)


async def _open(stack: AsyncExitStack, kind: str, folder: Path) -> tuple[str, Server | None]:
    if kind == "sqlite":
        return f"sqlite:///{folder}/agents.db", None
    if kind == "redis":
        redis = await stack.enter_async_context(private(Redis, appendonly="yes", appendfsync="always"))
        return redis.url, redis
    if kind == "mariadb":
        mariadb = await stack.enter_async_context(private(Mariadb, lasting=True))
        return mariadb.url(await anyio.to_thread.run_sync(mariadb.new_database)), mariadb
    postgresql = await stack.enter_async_context(private(Postgresql, lasting=True))
    return postgresql.url(await anyio.to_thread.run_sync(postgresql.new_database)), postgresql
