"""The limits by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.clock import SYSTEM
from agentkit_sql.sql import limits_in, settings_of

if TYPE_CHECKING:
    from agentkit.clock import Clock
    from agentkit_sql.limits import SqlLimits


def from_url(url: str, *, clock: Clock = SYSTEM) -> SqlLimits:
    """The limits in the database that a URL names; its driver is loaded when it is opened. Raises `InvalidSetting`."""
    return limits_in(settings_of(url), clock)
