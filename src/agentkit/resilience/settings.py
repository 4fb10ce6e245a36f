"""Checks of settings, made where they are written."""

from __future__ import annotations

from agentkit.errors import InvalidSetting


def require(name: str, value: object, holds: bool, rule: str) -> None:
    """Raises `InvalidSetting` unless the rule holds."""
    if not holds:
        raise InvalidSetting(name, value, rule)


def at_least(name: str, value: float, least: float) -> None:
    """Raises `InvalidSetting` below `least`, and for what is no number."""
    require(name, value, value >= least, f"must be {least:g} or more")


def above_zero(name: str, value: float) -> None:
    """Raises `InvalidSetting` unless above 0."""
    require(name, value, value > 0, "must be above 0")


def share(name: str, value: float) -> None:
    """Raises `InvalidSetting` unless above 0 and at most 1."""
    require(name, value, 0 < value <= 1, "must be above 0 and at most 1")
