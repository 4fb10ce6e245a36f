"""All that is used of redis-py and hiredis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentkit.errors import AdapterNotInstalled

try:
    import hiredis
    from redis import exceptions
    from redis.asyncio import RedisCluster, Sentinel
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.connection import Connection, SSLConnection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
except ImportError as exc:
    raise AdapterNotInstalled("redis", "redis") from exc

_hiredis: Any = hiredis
pack: Callable[[tuple[Any, ...]], bytes] = _hiredis.pack_command
"""A command as it goes over the wire."""

__all__ = ["ClusterNode", "Connection", "NoBackoff", "RedisCluster", "Retry", "SSLConnection", "Sentinel", "exceptions", "pack"]
