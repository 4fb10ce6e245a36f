"""All ports on one database, as one object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from agentkit.clock import SYSTEM, Clock
from agentkit.errors import InvalidSetting
from agentkit_sql.database import SqliteSettings
from agentkit_sql.limits import SqlLimits
from agentkit_sql.mariadb import MariadbSettings
from agentkit_sql.mariadb_runs import MariadbRuns
from agentkit_sql.port import SqlSettings, parsed
from agentkit_sql.postgresql import PostgresSettings
from agentkit_sql.postgresql_queue import PostgresQueue
from agentkit_sql.postgresql_runs import PostgresRuns
from agentkit_sql.queue import SqlQueue
from agentkit_sql.runs import SqliteRuns, SqlRuns
from agentkit_sql.values import SqlValues

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

SETTINGS: dict[str, type[SqliteSettings | PostgresSettings | MariadbSettings]] = {
    "sqlite": SqliteSettings,
    "postgresql": PostgresSettings,
    "mysql": MariadbSettings,
    "mariadb": MariadbSettings,
}
"""By the name that SQLAlchemy gives to a kind of database."""
RUNS: dict[type[SqlSettings], type[SqlRuns]] = {SqliteSettings: SqliteRuns, PostgresSettings: PostgresRuns, MariadbSettings: MariadbRuns}
QUEUES: dict[type[SqlSettings], type[SqlQueue]] = {PostgresSettings: PostgresQueue}
"""Where a kind of database has statements of its own for what is done most."""


class Sql:
    """The four ports on one database: `Runtime(state=Sql("sqlite:///agents.db").runs)`.

    Args:
        database: a URL, or the application's own SQLAlchemy engine. Of an engine only the URL is taken: the database is opened beside
            it, by connections of ours, and the engine is left alone.
        clock: the time of timers, leases and expiry.

    Raises:
        InvalidSetting: no database that is served here, or no file.
    """

    def __init__(self, database: str | Engine | AsyncEngine, *, clock: Clock = SYSTEM) -> None:
        url = database if isinstance(database, str) else _url_of(database)
        self.settings = settings_of(url)
        self.runs = runs_in(self.settings, clock)
        self.queue = queue_in(self.settings, clock)
        self.values = values_in(self.settings, clock)
        self.limits = limits_in(self.settings, clock)


def settings_of(url: str) -> SqlSettings:
    """The settings that a URL writes. Raises `InvalidSetting`."""
    backend = parsed(url, "sqlite:///relative.db or postgresql://host/database").get_backend_name()
    if backend not in SETTINGS:
        raise InvalidSetting("url", make_url(url).render_as_string(), f"agentkit_sql serves {', '.join(SETTINGS)}")
    return SETTINGS[backend].from_url(url)


def runs_in(settings: SqlSettings, clock: Clock) -> SqlRuns:
    """The run store in a database."""
    return RUNS.get(type(settings), SqlRuns)(settings, clock)


def queue_in(settings: SqlSettings, clock: Clock) -> SqlQueue:
    """The queue in a database."""
    return QUEUES.get(type(settings), SqlQueue)(settings, clock)


def values_in(settings: SqlSettings, clock: Clock) -> SqlValues:
    """The values in a database."""
    return SqlValues(settings, clock)


def limits_in(settings: SqlSettings, clock: Clock) -> SqlLimits:
    """The limits in a database."""
    return SqlLimits(settings, clock)


def _url_of(engine: Engine | AsyncEngine) -> str:
    """The engine's URL without what is for its driver alone."""
    return engine.url.set(drivername=engine.url.get_backend_name(), query={}).render_as_string(hide_password=False)
