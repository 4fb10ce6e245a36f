"""MariaDB and MySQL: their settings, how they say what the scripts need, and what their errors mean."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib import import_module
from math import ceil
from typing import TYPE_CHECKING, Any

from pydantic import Field
from sqlalchemy.types import REAL, Integer, LargeBinary, Text, TypeEngine

from agentkit.clock import SYSTEM
from agentkit.errors import AdapterNotInstalled, AgentKitError, InvalidSetting, StoreBusy, StoreCorrupt, StoreRefused, StoreUnavailable
from agentkit.ports.settings import settings_from
from agentkit_sql.dialect import Dialect, Params, Script, Statement
from agentkit_sql.port import parsed
from agentkit_sql.schema import NUMBERED
from agentkit_sql.server import Driver, Server
from agentkit_sql.server_settings import ServerSettings
from agentkit_sql.within import same_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Column, Index, Table
    from sqlalchemy.engine import URL

    from agentkit.clock import Clock

FORMS = "mysql://user:password@host:3306/database"
KEY_BYTES = 1024  # two of them and some numbers fit into an index of InnoDB, which takes 3,072 bytes
OR_NOTHING = " ON DUPLICATE KEY UPDATE "
"""An INSERT with this does nothing where the key is taken. INSERT IGNORE would, too, and store a key that is too long cut off."""
LOCK = "SELECT GET_LOCK(?, ?)"
"""The driver gives such locks back with the transaction's end: the server would keep them as long as the connection."""
TYPES: dict[type[TypeEngine[Any]], str] = {Integer: "BIGINT", REAL: "DOUBLE", Text: "LONGTEXT", LargeBinary: "LONGBLOB"}
"""What a type of SQLite is called here; text in an index is bytes of a bounded number."""
COMPARED = re.compile(r"\b(\w+) = \d+")
FURTHER: dict[str, list[tuple[str, ...]]] = {"workers": [("died_at",)]}
"""Indexes that only these servers need: a statement locks all rows that it looks at, and the sweep shall not lock the living."""
NEEDLESS = frozenset({"journal_snapshots"})
"""Indexes of few rows elsewhere, which would have all of them here: an eighth of the work of an INSERT, for what is found without."""
MIGRATION_WAIT_S = 5  # a first migration takes less than one


class MariadbSettings(ServerSettings):
    """What may stand in a `mysql://` or `mariadb://` URL."""

    port: int = Field(default=3306, ge=1, le=65535)  # the server's own
    database: str
    unix_socket: str | None = None
    ssl: bool = False  # without ssl_ca the server's certificate is not checked
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None

    @classmethod
    def from_url(cls, url: str) -> MariadbSettings:
        """Read a URL. Raises `InvalidSetting` naming what is wrong with it."""
        parts = parsed(url, FORMS)
        driver = parts.drivername.partition("+")[2] or "asyncmy"
        if parts.get_backend_name() not in ("mysql", "mariadb") or driver != "asyncmy":
            raise InvalidSetting("url", parts.render_as_string(), f"write {FORMS}, mariadb://… or mysql+asyncmy://…")
        if not parts.database:
            raise InvalidSetting("url", parts.render_as_string(), f"names no database: write {FORMS}")
        given = {"host": parts.host, "port": parts.port, "user": parts.username, "password": parts.password, "database": parts.database}
        return settings_from(cls, {name: value for name, value in given.items() if value is not None}, parts.query, "mysql")

    @property
    def store(self) -> str:
        return f"mysql://{self.host}:{self.port}/{self.database}"

    @property
    def timeout_s(self) -> float:
        return ceil(super().timeout_s)  # the server counts whole seconds

    @property
    def session(self) -> list[str]:
        """What a connection says first: on both servers."""
        waiting = f"innodb_lock_wait_timeout = {ceil(self.statement_timeout_s)}"
        return [
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",  # the default reads of the past and locks gaps
            # Quotes name columns; nothing is cut or rounded to fit; time never goes back by an hour in autumn.
            f"SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES', sql_notes = 0, time_zone = '+00:00', {waiting}",
            # Our long lists are of keys that are unique: to count what each finds before it is looked up is to look it up twice.
            "SET SESSION eq_range_index_dive_limit = 1",
        ]

    @property
    def session_of_mariadb(self) -> str:
        """And on MariaDB."""
        idle_s = ceil(self.idle_in_transaction_s)
        return f"SET SESSION max_statement_time = {self.statement_timeout_s}, idle_transaction_timeout = {idle_s}"

    @property
    def session_of_mysql(self) -> str:
        """And on MySQL: it cuts any connection that is idle for so long, in a transaction or not, and times SELECTs alone."""
        return (
            f"SET SESSION max_execution_time = {ceil(self.statement_timeout_s * 1000)}, wait_timeout = {ceil(self.idle_in_transaction_s)}"
        )

    def dialect(self, clock: Clock) -> MariadbDialect:
        return MariadbDialect(clock, self.database, self.statement_timeout_s)

    def names(self, url: URL) -> bool:
        return url.get_backend_name() in ("mysql", "mariadb") and same_server(url, self.host, self.port, self.database)

    async def attach(self, clock: Clock) -> Server:
        return await Server.attach(self, self._server, self.dialect(clock))

    def _server(self) -> Server:
        return Server(self.store, driver_of(self), pool_size=self.pool_size, answer_s=self.answer_s)


def driver_of(settings: MariadbSettings) -> Driver:
    """The driver. Raises `AdapterNotInstalled`."""
    try:
        module = import_module("agentkit_sql.mariadb_asyncmy")
    except ImportError as exc:
        raise AdapterNotInstalled("mysql", "mariadb") from exc
    made: Driver = module.open_driver(settings)
    return made


class Often(str):
    """A statement that is worth preparing."""

    __slots__ = ()


class MariadbDialect(Dialect):
    """MariaDB or MySQL in READ COMMITTED; its own clock decides, unless a test hands in another."""

    share = " LOCK IN SHARE MODE"  # MariaDB knows no FOR SHARE
    exclusive = " FOR UPDATE"
    unlocked = " FOR UPDATE SKIP LOCKED"
    tables = Statement("SELECT table_name FROM information_schema.tables WHERE table_schema = database()")
    _now = Statement("SELECT unix_timestamp(now(6)) + 0e0")
    _lock = Statement(LOCK)
    _version = Statement("SELECT version()")

    def __init__(self, clock: Clock, database: str, wait_s: float) -> None:
        super().__init__(clock)
        self._database, self._wait_s = database, ceil(wait_s)
        self._collation = ""

    def now(self) -> Script[float]:
        if self.clock is not SYSTEM:
            return self.clock.time()
        return float((yield self._now())[0][0])

    def serial(self, name: str) -> Script[None]:
        yield from self._alone(name, self._wait_s)

    def migrating(self) -> Script[None]:
        yield from self._alone("migration", MIGRATION_WAIT_S)
        [(version,)] = yield self._version()
        # For text that is no key: keys are bytes, which both servers compare alike.
        self._collation = "utf8mb4_nopad_bin" if "MariaDB" in version else "utf8mb4_0900_bin"

    def _alone(self, name: str, wait_s: int) -> Script[None]:
        # Such locks are the whole server's, and their names have at most 64 characters.
        digest = sha256(f"{self._database}\0{name}".encode()).hexdigest()[:48]
        for _ in range(wait_s):
            [(got,)] = yield self._lock(f"agentkit:{digest}", 1)
            if got == 1:
                return
        raise StoreBusy(self._database, f"others held {name!r} for {wait_s} s")

    def among(self, column: str) -> str:
        return f"{column} IN ?"

    def each(self, table: str, column: str) -> str:
        return f"{table} ON {column} IN ?"

    def listed(self, values: Iterable[str | int]) -> tuple[str | int | None, ...]:
        return tuple(values) or (None,)  # an empty list is no SQL; nothing equals NULL

    def insert_free(self, table: str, columns: str, rows: Sequence[Params]) -> Script[set[Any]]:
        # The caller has looked what is there. Whoever inserted since undoes this transaction, and it looks again.
        yield self.bulk(table, columns).many(rows)
        return {row[0] for row in rows}

    def in_union(self, column: str) -> str:
        return f"CONVERT({column} USING utf8mb4)"  # long keys would become BLOBs there, as the values are

    def or_ignore(self, table: str, columns: str) -> str:
        first = columns.partition(",")[0]
        return f"{self.bulk(table, columns).sql}{OR_NOTHING}{first} = {first}"

    def ddl(self, tables: Iterable[Table]) -> list[str]:
        return [created(table, self._collation) for table in tables]


def created(table: Table, collation: str) -> str:
    """One statement for a table and its indexes, as each is a transaction of its own: one that was cut off is made up for by the next.

    There are no partial indexes: the columns that a condition compares with a number come first in the index instead.
    """
    primary = tuple(column.name for column in table.primary_key)
    indexes = {primary: f"PRIMARY KEY ({_quoted(primary)})"}
    generated: list[str] = []
    for index in sorted((index for index in table.indexes if index.name not in NEEDLESS), key=lambda index: str(index.name)):
        names, condition = tuple(index.columns.keys()), _condition(index)
        if index.unique and condition:
            # Of the rows that the condition leaves out the value is NULL, and NULLs are no duplicates of each other.
            generated.append(f"live_{names[0]} VARBINARY({KEY_BYTES}) AS (CASE WHEN {condition} THEN {names[0]} END) UNIQUE")
        else:
            names = (*COMPARED.findall(condition), *names)
        indexes.setdefault(names, f"{'UNIQUE ' * (index.unique and not condition)}INDEX {index.name} ({_quoted(names)})")
    indexes |= {names: f"INDEX ({_quoted(names)})" for names in FURTHER.get(table.name, ())}
    keyed = {name for names in indexes for name in names}
    columns = [_column(column, keyed=column.name in keyed) for column in table.columns]
    return (
        f"CREATE TABLE IF NOT EXISTS {table.name} ({', '.join((*columns, *generated, *indexes.values()))}) "
        f"ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = {collation}"
    )


def _condition(index: Index) -> str:
    where = index.dialect_options["postgresql"]["where"]
    return "" if where is None else str(where)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _column(column: Column[Any], *, keyed: bool) -> str:
    kind = f"VARBINARY({KEY_BYTES})" if keyed and isinstance(column.type, Text) else TYPES[type(column.type)]
    ending = " AUTO_INCREMENT" * (column.name == NUMBERED)
    return f'"{column.name}" {kind}{"" if column.nullable else " NOT NULL"}{ending}'


# What an error's number means here.
WRONG_SETTING = {
    1044: "grant the user the rights on the database",
    1045: "check user and password",
    1049: "create the database first, or correct its name",
    1142: "grant the user the right: CREATE, ALTER and INDEX at the first start, then SELECT, INSERT, UPDATE, DELETE",
    1227: "grant the user the right",
    1665: "set binlog_format = ROW or MIXED on the server",
    1698: "check user and password",
}
BUSY = {
    1021: "the server's disk is full",
    1040: "raise the server's max_connections, or lower pool_size",
    1053: "the server is stopping",
    1114: "the server's disk is full",
    1203: "raise the user's max_user_connections, or lower pool_size",
    1205: "look for what holds its rows (information_schema.innodb_trx)",
    1290: "is this a replica, or a server in read-only mode? Name the primary",
    1836: "the server is in read-only mode; name the primary",
    1969: "it took longer than statement_timeout_s; look for what holds its rows, or raise it and the lease",
    3024: "it took longer than statement_timeout_s",
}
UNFIT = frozenset({1048, 1062, 1118, 1153, 1264, 1366, 1406, 3140})
CORRUPT = frozenset({1034, 1194, 1712, 1877})
UNDONE = frozenset({1020, 1062, 1213})
"""Undone for another transaction's sake. 1062: of two that insert one key at the same time the second looks again, and finds it."""
DUPLICATE = 1062


def by_number(number: int, text: str, store: str) -> AgentKitError:
    """The error of the port for a server's: the one place where they meet."""
    if number in WRONG_SETTING:
        return InvalidSetting("url", store, f"{text}: {WRONG_SETTING[number]}")
    if number in BUSY:
        return StoreBusy(store, f"{text} ({BUSY[number]})")
    if number in UNFIT:
        return StoreRefused(f"{store}: the server does not take the data: {text}. Nothing was written")
    if number in CORRUPT:
        return StoreCorrupt(store, text)
    return StoreUnavailable(store, f"{text} (error {number})")
