"""What is to be said about the settings of a server. Pure: facts in, findings out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agentkit.ports.records import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_VERSION = {True: (10, 6), False: (8, 0)}  # of MariaDB and of MySQL: the first with SKIP LOCKED
LEAST_PACKET_BYTES = 4 << 20  # a flush is about 1 MB, and room for a value beside it
GUIDE = "docs/how-to/operate-mariadb.md"
ASKED = (
    "version", "read_only", "innodb_flush_log_at_trx_commit", "log_bin", "sync_binlog", "binlog_format", "max_allowed_packet", "wsrep_on",
)  # fmt: skip


def advice(facts: Mapping[str, str], durability: str) -> list[Finding]:
    """Findings about a server, from those of its variables that `ASKED` names, for runs of a durability class."""
    return [_version(facts), _durability(facts, durability), *_binlog(facts), *_role(facts), *_packet(facts)]


def _version(facts: Mapping[str, str]) -> Finding:
    version = facts.get("version", "unknown")
    mariadb = "MariaDB" in version
    name, least = "MariaDB" if mariadb else "MySQL", LEAST_VERSION[mariadb]
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < least:
        return Finding("fail", "mariadb", f"this is {name} {version}; agentkit needs {least[0]}.{least[1]} or newer", "upgrade the server")
    return Finding(
        "ok" if mariadb else "note", "mariadb", f"{name} {version}", "" if mariadb else f"agentkit is tested on MariaDB; see {GUIDE}"
    )


def _durability(facts: Mapping[str, str], durability: str) -> Finding:
    setting = facts.get("innodb_flush_log_at_trx_commit", "1")
    if setting == "1":
        return Finding("ok", "mariadb log", "each commit is on the disk before it is answered")
    loses = "a power cut" if setting == "2" else "a power cut or a crash of the server"
    says = f"innodb_flush_log_at_trx_commit is {setting}: {loses} loses up to a second of what was acknowledged"
    return Finding("note" if durability == "memory" else "warn", "mariadb log", says, "set it to 1")


def _binlog(facts: Mapping[str, str]) -> list[Finding]:
    if facts.get("log_bin") != "ON":
        return []
    found: list[Finding] = []
    if facts.get("binlog_format") == "STATEMENT":
        found.append(Finding("fail", "mariadb binlog", "binlog_format STATEMENT refuses READ COMMITTED", "set it to MIXED or ROW"))
    if facts.get("sync_binlog") != "1":
        says = "sync_binlog is not 1: after a power cut a replica may have what the primary lost, or lack it"
        found.append(Finding("note", "mariadb binlog", says, "set it to 1"))
    return found


def _role(facts: Mapping[str, str]) -> list[Finding]:
    found: list[Finding] = []
    if facts.get("read_only") not in {None, "OFF", "0"}:
        found.append(Finding("fail", "mariadb", "the server takes no writes: is it a replica?", "give the address of the primary"))
    if facts.get("wsrep_on") == "ON":
        says = "this is a node of a Galera cluster, whose share locks hold on one node alone"
        found.append(Finding("warn", "mariadb", says, f"give the same node's address to every process; see {GUIDE}"))
    return found


def _packet(facts: Mapping[str, str]) -> list[Finding]:
    size = int(facts.get("max_allowed_packet", LEAST_PACKET_BYTES))
    if size >= LEAST_PACKET_BYTES:
        return []
    return [Finding("warn", "mariadb", f"max_allowed_packet is {size} bytes: larger values are refused", "set it to 16M or more")]
