"""The statements of the SQL adapters, to be looked at, and those that make a schema an older one."""

from __future__ import annotations

from typing import Any, cast

from agentkit_sql.dialect import Statement

WITHOUT_WEIGHTS = (
    "ALTER TABLE tickets DROP COLUMN weight",
    "ALTER TABLE dead_tickets DROP COLUMN weight",
    "UPDATE schema_version SET version = 1",
)
"""Make a schema what it was before tickets had weights."""


def statements(scripts: object) -> dict[str, str]:
    """All that an adapter or its scripts hold, by where they stand."""
    found: dict[str, str] = {}
    held: dict[str, Any] = vars(scripts)
    for name, one in held.items():
        several = cast("list[object]", one if isinstance(one, list) else [one])
        for number, statement in enumerate(several):
            if isinstance(statement, Statement):
                found[f"{type(scripts).__name__}.{name}.{number}"] = statement.sql
            elif type(statement).__module__.startswith("agentkit_sql.") and hasattr(statement, "__dict__"):
                found |= statements(statement)
    return found
