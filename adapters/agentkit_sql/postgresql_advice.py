"""What is to be said about the settings of a PostgreSQL server. Pure: facts in, findings out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.ports.records import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_VERSION = 12_00_00  # the oldest that its makers still mend, when this was written; 15 is what the tests run on
GUIDE = "docs/how-to/operate-postgresql.md"
ASKED = (
    "server_version", "server_version_num", "fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names",
    "autovacuum", "max_connections", "transaction_read_only", "in_hot_standby",
)  # fmt: skip
FACTS = "SELECT name, setting FROM pg_settings WHERE name = ANY(?)"


def advice(facts: Mapping[str, str], durability: str, *, connections: int) -> list[Finding]:
    """Findings about a server, from those of its settings that `ASKED` names.

    Args:
        facts: the settings by name.
        durability: the strictest class among the agents.
        connections: how many a process opens.
    """
    return [_version(facts), _disk(facts, durability), *_replicas(facts), *_vacuum(facts), *_room(facts, connections), *_role(facts)]


def _version(facts: Mapping[str, str]) -> Finding:
    says = f"PostgreSQL {facts.get('server_version', 'unknown')}"
    if int(facts.get("server_version_num", LEAST_VERSION)) < LEAST_VERSION:
        return Finding("fail", "postgresql", f"{says}: agentkit needs 12 or newer", "upgrade the server")
    return Finding("ok", "postgresql", says)


def _disk(facts: Mapping[str, str], durability: str) -> Finding:
    lenient = durability == "memory"
    for name in ("fsync", "full_page_writes"):
        if facts.get(name) == "off":
            return Finding(
                "note" if lenient else "fail", "postgresql disk", f"{name} is off: a power cut may ruin the database", "turn it on"
            )
    if facts.get("synchronous_commit") == "off":
        says = "synchronous_commit is off: a crash of the server loses up to a second of what was acknowledged"
        return Finding(
            "note" if durability in {"memory", "relaxed"} else "warn", "postgresql disk", says, "turn it on; relaxed agents ask for less"
        )
    return Finding("ok", "postgresql disk", "each durable commit is on the disk before it is answered")


def _replicas(facts: Mapping[str, str]) -> list[Finding]:
    if facts.get("synchronous_standby_names") or facts.get("synchronous_commit") not in {"remote_write", "remote_apply"}:
        return []
    says = f"synchronous_commit is {facts['synchronous_commit']}, but no replica is named: commits wait for none"
    return [Finding("note", "postgresql replicas", says, f"set synchronous_standby_names; see {GUIDE}")]


def _vacuum(facts: Mapping[str, str]) -> list[Finding]:
    if facts.get("autovacuum") != "off":
        return []
    return [Finding("fail", "postgresql", "autovacuum is off: the queue becomes slower by the hour", "turn it on")]


def _room(facts: Mapping[str, str], connections: int) -> list[Finding]:
    most = int(facts.get("max_connections", 100))
    if most >= 4 * connections:
        return []
    says = f"max_connections is {most}, and each process opens up to {connections}"
    return [Finding("warn", "postgresql", says, f"raise it, lower ?pool_size=, or put PgBouncer in front; see {GUIDE}")]


def _role(facts: Mapping[str, str]) -> list[Finding]:
    if facts.get("in_hot_standby") == "on" or facts.get("transaction_read_only") == "on":
        return [Finding("fail", "postgresql", "the server takes no writes: is it a replica?", "give the address of the primary")]
    return []
