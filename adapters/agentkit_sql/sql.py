"""All ports on one database, as one object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.clock import SYSTEM, Clock
from agentkit_sql.database import SqliteSettings
from agentkit_sql.limits import SqlLimits
from agentkit_sql.queue import SqlQueue
from agentkit_sql.runs import SqlRuns
from agentkit_sql.values import SqlValues

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine


class Sql:
    """The four ports on one database: `Runtime(state=Sql("sqlite:///agents.db"))`.

    Args:
        database: a URL, or the application's own SQLAlchemy engine. Of a SQLite engine only the file's name is taken: the file is opened
            beside it, by one connection of ours, and the engine is left alone.
        clock: the time of timers, leases and expiry.

    Raises:
        InvalidSetting: another database than SQLite, or no file.
    """

    def __init__(self, database: str | Engine | AsyncEngine, *, clock: Clock = SYSTEM) -> None:
        self.settings = SqliteSettings.from_url(database if isinstance(database, str) else _url_of(database))
        self.runs = SqlRuns(self.settings, clock)
        self.queue = SqlQueue(self.settings, clock)
        self.values = SqlValues(self.settings, clock)
        self.limits = SqlLimits(self.settings, clock)


def _url_of(engine: Engine | AsyncEngine) -> str:
    """The engine's URL without what is for its driver alone."""
    return engine.url.set(drivername=engine.url.get_backend_name(), query={}).render_as_string(hide_password=False)
