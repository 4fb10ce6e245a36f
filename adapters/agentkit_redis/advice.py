"""What is to be said about the settings of a server. Pure: facts in, findings out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_VERSION = (7, 0)
FULL = 0.8  # of maxmemory: a burst of runs fills the rest in minutes
GUIDE = "docs/how-to/operate-redis.md"


class Found(NamedTuple):
    """One thing looked at, as `agentkit doctor` shows it: `ok`, `note`, `warn` or `fail`; what; what is so; what to do."""

    level: str
    what: str
    says: str
    do: str = ""


def facts_of(info: str, config: Mapping[str, str]) -> dict[str, str]:
    """The lines of INFO, and the settings that one may read."""
    return dict(re.findall(r"^(\w+):(.*?)\r?$", info, re.MULTILINE)) | dict(config)


def advice(server: str, facts: Mapping[str, str], durability: str) -> list[Found]:
    """Findings about one server, for runs of a durability class."""
    return [
        _version(server, facts),
        *_role(server, facts),
        _durability(server, facts, durability),
        *_eviction(server, facts),
        *_memory(server, facts),
    ]


def _version(server: str, facts: Mapping[str, str]) -> Found:
    version = facts.get("redis_version", "unknown")
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < LEAST_VERSION:
        return Found("fail", "redis", f"{server} is Redis {version}; agentkit needs 7.0 or newer", "upgrade the server")
    return Found("ok", "redis", f"{server} is Redis {version}")


def _role(server: str, facts: Mapping[str, str]) -> list[Found]:
    if facts.get("role") != "slave":
        return []
    return [
        Found("fail", "redis", f"{server} is a replica and takes no writes", "give the address of the primary, or use redis+sentinel://")
    ]


def _durability(server: str, facts: Mapping[str, str], durability: str) -> Found:
    """Whether the log of the server matches the class of the runs."""
    if facts.get("aof_last_write_status", "ok") != "ok":
        return Found("fail", "redis log", f"{server} cannot write its append-only file", "look at its log, make room on its disk")
    if facts.get("aof_enabled") != "1":
        says = f"{server} keeps no append-only file: when it ends, all since its last snapshot is lost"
        level = "note" if durability == "memory" else "warn"
        return Found(level, "redis log", says, f"appendonly yes, appendfsync everysec or always; see {GUIDE}")
    fsync = facts.get("appendfsync", "unknown")
    if fsync == "always":
        return Found("ok", "redis log", f"{server} syncs its log before it answers")
    loses = {"everysec": "the last second or two", "no": "half a minute or more"}.get(fsync, "more than the last second, maybe")
    level = "warn" if durability == "strict" or fsync != "everysec" else "note"
    return Found(level, "redis log", f"{server}: appendfsync is {fsync}: a power cut loses {loses}", "appendfsync always loses nothing")


def _eviction(server: str, facts: Mapping[str, str]) -> list[Found]:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    says = f"{server}: maxmemory-policy is {policy}: when its memory is full it deletes runs, journals and tickets without a word"
    return [Found("fail", "redis memory", says, "CONFIG SET maxmemory-policy noeviction, and a server of its own for caches")]


def _memory(server: str, facts: Mapping[str, str]) -> list[Found]:
    most, used = int(facts.get("maxmemory", 0)), int(facts.get("used_memory", 0))
    if not most:
        return [Found("note", "redis memory", f"{server} has no maxmemory: the system ends it when memory runs out", "set maxmemory")]
    if used > FULL * most:
        says = f"{server} uses {used / most:.0%} of its maxmemory; when it is full no step can be written"
        return [Found("warn", "redis memory", says, "give it more, or keep ended runs for a shorter time (keep_s)")]
    return [Found("ok", "redis memory", f"{server} uses {used / most:.0%} of its maxmemory")]
