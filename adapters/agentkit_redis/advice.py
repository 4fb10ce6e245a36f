"""What is to be said about the settings of a server. Pure: facts in, findings out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agentkit.ports.records import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentkit.ports.records import Level

LEAST_VERSION = (7, 0)
FULL = 0.8  # of maxmemory: a burst of runs fills the rest in minutes
GUIDE = "docs/how-to/operate-redis.md"


def facts_of(info: str, config: Mapping[str, str]) -> dict[str, str]:
    """The lines of INFO, and the settings that one may read."""
    return dict(re.findall(r"^(\w+):(.*?)\r?$", info, re.MULTILINE)) | dict(config)


def advice(server: str, facts: Mapping[str, str], durability: str) -> list[Finding]:
    """Findings about one server, for runs of a durability class."""
    return [
        _version(server, facts),
        *_role(server, facts),
        _durability(server, facts, durability),
        *_eviction(server, facts),
        *_memory(server, facts),
    ]


def _version(server: str, facts: Mapping[str, str]) -> Finding:
    version = facts.get("redis_version", "unknown")
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < LEAST_VERSION:
        return Finding("fail", "redis", f"{server} is Redis {version}; agentkit needs 7.0 or newer", "upgrade the server")
    return Finding("ok", "redis", f"{server} is Redis {version}")


def _role(server: str, facts: Mapping[str, str]) -> list[Finding]:
    if facts.get("role") != "slave":
        return []
    return [
        Finding("fail", "redis", f"{server} is a replica and takes no writes", "give the address of the primary, or use redis+sentinel://")
    ]


def _durability(server: str, facts: Mapping[str, str], durability: str) -> Finding:
    """Whether the log of the server matches the class of the runs."""
    if facts.get("aof_last_write_status", "ok") != "ok":
        return Finding("fail", "redis log", f"{server} cannot write its append-only file", "look at its log, make room on its disk")
    if facts.get("aof_enabled") != "1":
        says = f"{server} keeps no append-only file: when it ends, all since its last snapshot is lost"
        level: Level = "note" if durability == "memory" else "warn"
        return Finding(level, "redis log", says, f"appendonly yes, appendfsync everysec or always; see {GUIDE}")
    fsync = facts.get("appendfsync", "unknown")
    if fsync == "always":
        return Finding("ok", "redis log", f"{server} syncs its log before it answers")
    loses = {"everysec": "the last second or two", "no": "half a minute or more"}.get(fsync, "more than the last second, maybe")
    level = "warn" if durability == "strict" or fsync != "everysec" else "note"
    return Finding(level, "redis log", f"{server}: appendfsync is {fsync}: a power cut loses {loses}", "appendfsync always loses nothing")


def _eviction(server: str, facts: Mapping[str, str]) -> list[Finding]:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    says = f"{server}: maxmemory-policy is {policy}: when its memory is full it deletes runs, journals and tickets without a word"
    return [Finding("fail", "redis memory", says, "CONFIG SET maxmemory-policy noeviction, and a server of its own for caches")]


def _memory(server: str, facts: Mapping[str, str]) -> list[Finding]:
    most, used = int(facts.get("maxmemory", 0)), int(facts.get("used_memory", 0))
    if not most:
        return [Finding("note", "redis memory", f"{server} has no maxmemory: the system ends it when memory runs out", "set maxmemory")]
    if used > FULL * most:
        says = f"{server} uses {used / most:.0%} of its maxmemory; when it is full no step can be written"
        return [Finding("warn", "redis memory", says, "give it more, or keep ended runs for a shorter time (keep_s)")]
    return [Finding("ok", "redis memory", f"{server} uses {used / most:.0%} of its maxmemory")]
