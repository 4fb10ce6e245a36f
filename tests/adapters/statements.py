"""The statements of the SQL adapters, to be looked at."""

from __future__ import annotations

from typing import Any, cast

from agentkit_sql.dialect import Statement


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
