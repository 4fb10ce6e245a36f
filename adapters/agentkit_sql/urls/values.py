"""The values by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.clock import SYSTEM
from agentkit_sql.sql import settings_of, values_in

if TYPE_CHECKING:
    from agentkit.clock import Clock
    from agentkit_sql.values import SqlValues


def from_url(url: str, *, clock: Clock = SYSTEM) -> SqlValues:
    """The values in the database that a URL names; its driver is loaded when it is opened. Raises `InvalidSetting`."""
    return values_in(settings_of(url), clock)
