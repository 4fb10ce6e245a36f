"""PostgreSQL: its settings, how it says what the scripts need, and what its errors mean."""

from __future__ import annotations

from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field, SecretStr
from sqlalchemy.engine import URL

from agentkit.clock import SYSTEM
from agentkit.errors import (
    AdapterNotInstalled,
    AgentKitError,
    InvalidSetting,
    StoreBusy,
    StoreCorrupt,
    StoreRefused,
    StoreUnavailable,
)
from agentkit.ports.settings import settings_from
from agentkit_sql.dialect import ROWS, Dialect, Params, Script, Statement, compiled
from agentkit_sql.port import parsed
from agentkit_sql.postgresql_bell import Listener, Listening, PostgresBell
from agentkit_sql.schema import metadata
from agentkit_sql.server import Driver, Server
from agentkit_sql.server_settings import ServerSettings
from agentkit_sql.within import same_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Table

    from agentkit.clock import Clock
    from agentkit_sql.news import News

COMPILER = URL.create("postgresql+asyncpg").get_dialect()()  # writes DDL; no driver is loaded
FORMS = "postgresql://user:password@host:5432/database"
MIGRATION_LOCK = 0x61676B74  # "agkt": of all that share the database nobody else takes this one

HOT = "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0"
"""Rows that change all the time: room on their page for the next version, and vacuum after 2 % instead of 20 %, at full speed."""
COUNTER = "fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0"
"""A row or a few, changed thousands of times a minute: their page is cleaned in passing, and vacuum goes by number."""
STORAGE = {
    "runs": HOT,
    "tickets": HOT,
    "permits": HOT,
    "documents": HOT,
    "beats": COUNTER,
    "workers": COUNTER,
    "queue_state": COUNTER,
    "turns": COUNTER,
    "buckets": COUNTER,
    # Only ever added to, and deleted from in bulk: the map of visible pages must follow all the same.
    "journal": "autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_scale_factor = 0.05",
}


class PostgresSettings(ServerSettings):
    """What may stand in a `postgresql://` URL."""

    driver: Literal["asyncpg", "psycopg"]
    port: int = Field(default=5432, ge=1, le=65535)  # PostgreSQL's own
    database: str | None = None  # the driver's default: PGDATABASE, or the user's name
    schema_: str | None = Field(default=None, alias="schema")  # the role's search_path; it is created when it is missing
    sslmode: str = "prefer"  # libpq's own; write verify-full where the line is not yours
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    pgbouncer: bool = False  # a pooler in transaction mode stands before the server: nothing is kept in a session
    listen_url: SecretStr | None = None  # behind a pooler: the server itself, for LISTEN; without it changes are looked for once a second

    @classmethod
    def from_url(cls, url: str) -> PostgresSettings:
        """Read a URL. Raises `InvalidSetting` naming what is wrong with it."""
        parts = parsed(url, FORMS)
        driver = parts.drivername.partition("+")[2] or "asyncpg"
        if parts.get_backend_name() != "postgresql" or driver not in ("asyncpg", "psycopg"):
            raise InvalidSetting("url", _shown(parts), f"write {FORMS}, postgresql+asyncpg://… or postgresql+psycopg://…")
        given = {
            "driver": driver,
            "host": parts.host,
            "port": parts.port,
            "user": parts.username,
            "password": parts.password,
            "database": parts.database,
        }
        return settings_from(cls, {name: value for name, value in given.items() if value is not None}, parts.query, "postgresql")

    @property
    def store(self) -> str:
        return f"postgresql://{self.host}:{self.port}/{self.database or ''}"

    @property
    def dsn(self) -> str:
        """For the driver: as libpq reads it."""
        query = {"sslmode": self.sslmode, "sslrootcert": self.sslrootcert, "sslcert": self.sslcert, "sslkey": self.sslkey}
        socket = self.host.startswith("/")
        return URL.create(
            "postgresql",
            username=self.user,
            password=None if self.password is None else self.password.get_secret_value(),
            host=None if socket else self.host,
            port=None if socket else self.port,
            database=self.database,
            query={name: value for name, value in query.items() if value is not None}
            | ({"host": self.host, "port": str(self.port)} if socket else {}),
        ).render_as_string(hide_password=False)

    @property
    def connections(self) -> int:
        """How many a process opens at most: the pool's, the lane's, the beat's, and two of the bell's."""
        return self.pool_size + 4

    @property
    def session(self) -> dict[str, str]:
        """What the server shall keep to, for a session or for a transaction."""
        kept = {
            "statement_timeout": f"{self.statement_timeout_s * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{self.idle_in_transaction_s * 1000:.0f}",
        }
        return kept if self.schema_ is None else kept | {"search_path": quoted(self.schema_)}

    @property
    def own(self) -> dict[str, str]:
        """And in a session of our own. Our statements find rows by their keys, and to plan one anew takes as long as to carry it out.

        A plan that was made when a table was small must still be right when it has grown.
        """
        return {
            "default_transaction_isolation": "read committed",  # one snapshot for a whole transaction would miss what a lock waited for
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
            "jit": "off",
        }

    def dialect(self, clock: Clock) -> PostgresDialect:
        return PostgresDialect(clock, self.schema_)

    def names(self, url: URL) -> bool:
        return url.get_backend_name() == "postgresql" and same_server(url, self.host, self.port, self.database)

    async def attach(self, clock: Clock) -> Server:
        return await Server.attach(self, self._server, self.dialect(clock))

    def _server(self) -> Server:
        return Server(self.store, driver_of(self), bell=self._bell(), pool_size=self.pool_size, answer_s=self.answer_s)

    def _bell(self) -> Callable[[News], PostgresBell] | None:
        """Behind a pooler LISTEN needs the server itself."""
        if not self.pgbouncer:
            return partial(PostgresBell, driver_of(self))
        if self.listen_url is None:
            return None
        return partial(PostgresBell, driver_of(PostgresSettings.from_url(self.listen_url.get_secret_value())))


class PostgresDriver(Driver, Listener, Protocol):
    """Either driver."""

    async def connect(self) -> Listening: ...


def driver_of(settings: PostgresSettings) -> PostgresDriver:
    """The driver that the URL names. Raises `AdapterNotInstalled`."""
    try:
        module = import_module(f"agentkit_sql.postgresql_{settings.driver}")
    except ImportError as exc:
        scheme, extra = ("postgresql", "postgresql") if settings.driver == "asyncpg" else ("postgresql+psycopg", "psycopg")
        raise AdapterNotInstalled(scheme, extra) from exc
    made: PostgresDriver = module.open_driver(settings)
    return made


def begin(settings: PostgresSettings, *, sync: bool) -> str:
    """Opens a transaction. In a session of our own the timeouts are the session's."""
    local = dict(settings.session) if settings.pgbouncer else {}
    if not sync:
        local["synchronous_commit"] = "off"
    return "; ".join(["BEGIN ISOLATION LEVEL READ COMMITTED", *(f"SET LOCAL {name} TO {value}" for name, value in local.items())])


class PostgresDialect(Dialect):
    """PostgreSQL in READ COMMITTED; its own clock decides, unless a test hands in another."""

    share = " FOR SHARE"
    exclusive = " FOR UPDATE"
    unlocked = " FOR UPDATE SKIP LOCKED"
    tells_taken = True
    tables = Statement("SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")
    _now = Statement("SELECT extract(epoch FROM clock_timestamp())::float8")
    _serial = Statement("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))")

    def __init__(self, clock: Clock, schema: str | None = None) -> None:
        super().__init__(clock)
        self._schema = schema

    @property
    def given_now(self) -> float | None:
        """The parameter for `coalesce(?, …)`: None where the server's clock decides."""
        return None if self.clock is SYSTEM else self.clock.time()

    def now(self) -> Script[float]:
        given = self.given_now
        return float((yield self._now())[0][0]) if given is None else given

    def serial(self, name: str) -> Script[None]:
        yield self._serial(name)

    def migrating(self) -> Script[None]:
        yield Statement("SET LOCAL statement_timeout TO 0")()
        yield Statement("SELECT pg_advisory_xact_lock(?)")(MIGRATION_LOCK)
        if self._schema is not None:
            yield Statement(f"CREATE SCHEMA IF NOT EXISTS {quoted(self._schema)}")()

    def among(self, column: str) -> str:
        return f"{column} = ANY(?)"

    def each(self, table: str, column: str) -> str:
        return f"unnest(?::text[]) AS asked(value) JOIN {table} ON {column} = asked.value"

    def listed(self, values: Iterable[str | int]) -> list[str | int]:
        return list(values)

    def insert_free(self, table: str, columns: str, rows: Sequence[Params]) -> Script[set[Any]]:
        first = columns.partition(",")[0]
        statement = f"INSERT INTO {table} ({columns}) SELECT * FROM {unnested(table, columns)} ON CONFLICT DO NOTHING RETURNING {first}"
        return {row[0] for row in (yield statement, packed(table, columns, rows), ROWS)}

    def bulk(self, table: str, columns: str) -> Statement:
        return Bulk(table, columns)

    def ddl(self, tables: Iterable[Table]) -> list[str]:
        return compiled(tables, COMPILER, lambda table: f" WITH ({STORAGE[table.name]})" if table.name in STORAGE else "")


class Bulk(Statement):
    """An INSERT of rows that are handed over column by column."""

    __slots__ = ("_columns", "_table")

    def __init__(self, table: str, columns: str) -> None:
        super().__init__(f"INSERT INTO {table} ({columns}) SELECT * FROM {unnested(table, columns)}")
        self._table, self._columns = table, columns

    def many(self, rows: Sequence[Params]) -> tuple[str, Any, int]:
        return self.sql, packed(self._table, self._columns, rows), self.how


def by_column(rows: Sequence[Params]) -> list[list[Any]]:
    """Rows as columns."""
    return [list(column) for column in zip(*rows, strict=True)]


def numbers(values: Iterable[float | None]) -> str:
    """An array of numbers as PostgreSQL writes it: a driver takes ten times as long to pack one."""
    return f"{{{','.join(['NULL' if value is None else repr(value + 0) for value in values])}}}"


def integers(values: Iterable[int]) -> str:
    """The same for whole numbers, none of them missing."""
    return f"{{{','.join(map(str, values))}}}"


def packed(table: str, columns: str, rows: Sequence[Params]) -> list[Any]:
    """Rows as `unnested` takes them."""
    return [column if kind in PACKED else numbers(column) for kind, column in zip(kinds_of(table, columns), by_column(rows), strict=True)]


def unnested(table: str, columns: str) -> str:
    """Rows for a table, from parameters made by `packed`."""
    arrays = [f"?::{kind}[]" if kind in PACKED else f"?::text::{kind}[]" for kind in kinds_of(table, columns)]
    return f"unnest({', '.join(arrays)})"


@lru_cache
def kinds_of(table: str, columns: str) -> list[str]:
    """The types of columns of a table."""
    known = metadata.tables[table].c
    types = [known[column.strip().strip('"')].type for column in columns.split(",")]
    return [kind.compile(COMPILER).partition(" COLLATE")[0] for kind in types]


PACKED = frozenset({"TEXT", "BYTEA"})
"""Types whose arrays a driver packs; those of numbers go as text."""


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _shown(parts: URL) -> str:
    return parts.render_as_string()


# What an SQLSTATE means here: by its class (two characters) or exactly.
WRONG_SETTING = {
    "28": "check user and password, and pg_hba.conf on the server",
    "3D": "create the database first, or correct its name",
    "3F": "create the schema first, or correct ?schema=",
    "42501": "grant the role the right: it needs CREATE on the schema at the first start, then SELECT, INSERT, UPDATE, DELETE",
}
BUSY = {
    "53": "the server is short of something: free it (disk, memory, connections)",
    "55P03": "another transaction holds the rows",
    "57014": "it took longer than statement_timeout_s; look for what holds its rows (pg_stat_activity), or raise it and the lease",
    "57P03": "the server is starting or stopping",
    "25006": "this is a replica or the database is read-only: name the primary",
    "40": "other transactions were always first",
}
UNFIT = {"22": "", "23": "", "54": ""}
CORRUPT = {"XX001": "", "XX002": ""}
UNDONE = frozenset({"40001", "40P01", "23505"})
"""Undone for another transaction's sake. 23505: of two that insert one key at the same time the second looks again, and finds it."""


def _found(state: str, table: dict[str, str]) -> str | None:
    return table.get(state, table.get(state[:2]))


def by_state(state: str, text: str, store: str) -> AgentKitError:
    """The error of the port for an SQLSTATE: the one place where they meet."""
    rule = _found(state, WRONG_SETTING)
    if rule is not None:
        return InvalidSetting("url", store, f"{text}: {rule}")
    rule = _found(state, BUSY)
    if rule is not None:
        return StoreBusy(store, f"{text} ({rule})")
    if _found(state, UNFIT) is not None:
        return StoreRefused(f"{store}: PostgreSQL does not take the data: {text}. Nothing was written")
    if _found(state, CORRUPT) is not None:
        return StoreCorrupt(store, text)
    return StoreUnavailable(store, f"{text} (SQLSTATE {state})")
