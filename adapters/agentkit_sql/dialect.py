"""What differs between databases, and the form in which an operation is written once for all of them.

An operation is a transaction script: a generator that yields statements and is sent their answers. It holds the decisions; whoever
drives it holds the connection and the transaction: SQLite's own thread, or an async driver of a server.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.engine import Dialect as Compiler

    from agentkit.clock import Clock

T = TypeVar("T")

ROWS, COUNT, MANY = range(3)
Params: TypeAlias = Sequence[Any]
Call: TypeAlias = tuple[str, Any, int]
"""SQL, its parameters (for MANY: a list of them), and what to answer: all rows, or how many rows were changed (MANY: nothing)."""
Script: TypeAlias = Generator[Call, Any, T]
Work: TypeAlias = Callable[[], Script[T]]
"""Makes a script: one for each time that it is run, for a server may undo a transaction and ask for it again."""


class Statement:
    """A statement prepared once. Calling it binds its parameters, which are written as `?` whatever the driver wants."""

    __slots__ = ("how", "sql")

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.how = ROWS if sql.lstrip().startswith(("SELECT", "WITH")) else COUNT

    def __call__(self, *params: object) -> Call:
        return self.sql, params, self.how

    def many(self, rows: Sequence[Params]) -> Call:
        """The same change for each of `rows`."""
        return self.sql, rows, MANY


class Dialect(ABC):
    """How one kind of database says what the scripts need."""

    share: str
    """Ends a SELECT of rows that no other transaction may change before this one ends."""
    exclusive: str
    """Ends a SELECT of rows that this transaction will change."""
    unlocked: str
    """The same, leaving out the rows that another transaction is changing: for work that anybody may do."""
    tables: Statement
    """The names of the tables that there are."""
    tells_taken = False
    """Whether `insert_free` finds out itself which keys are taken, so that nobody need look before."""
    add_column = "ADD COLUMN IF NOT EXISTS"
    """Of a migration: where each statement is a transaction of its own, one that was cut off is begun anew."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    @abstractmethod
    def now(self) -> Script[float]:
        """The store's clock, seconds since 1970."""

    @abstractmethod
    def serial(self, name: str) -> Script[None]:
        """Until this transaction ends, no other one passes here with the same name."""

    @abstractmethod
    def migrating(self) -> Script[None]:
        """Begins a migration: of many processes one goes on at a time."""

    @abstractmethod
    def among(self, column: str) -> str:
        """A condition on `column`, with one parameter made by `listed`."""

    @abstractmethod
    def each(self, table: str, column: str) -> str:
        """The rows of a table whose `column` is among one parameter made by `listed`, found by that column's index and no other."""

    @abstractmethod
    def listed(self, values: Iterable[str | int]) -> object:
        """The parameter of `among` and `each`."""

    @abstractmethod
    def insert_free(self, table: str, columns: str, rows: Sequence[Params]) -> Script[set[Any]]:
        """Insert the rows whose unique keys are free; returns the first column of these."""

    @abstractmethod
    def ddl(self, tables: Iterable[Table]) -> list[str]:
        """The statements that create tables and their indexes."""

    def in_union(self, column: str) -> str:
        """A column of text, in a SELECT that others are united with."""
        return column

    def or_ignore(self, table: str, columns: str) -> str:
        """An INSERT of one row that does nothing where a unique key is taken."""
        marks = ", ".join("?" * len(columns.split(",")))
        return f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING"

    def bulk(self, table: str, columns: str) -> Statement:
        """An INSERT for `many` rows."""
        marks = ", ".join("?" * len(columns.split(",")))
        return Statement(f"INSERT INTO {table} ({columns}) VALUES ({marks})")


def compiled(tables: Iterable[Table], dialect: Compiler, ending: Callable[[Table], str]) -> list[str]:
    """CREATE statements of tables, each followed by what `ending` says of it, and of their indexes."""
    statements: list[str] = []
    for table in tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)).rstrip() + ending(table))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in sorted(table.indexes, key=lambda i: str(i.name))]
    return statements


class SqliteDialect(Dialect):
    """SQLite: writers are alone in their transaction, so nothing needs a lock, and time is this process's clock."""

    share = exclusive = unlocked = ""
    tables = Statement("SELECT name FROM sqlite_master WHERE type = 'table'")
    add_column = "ADD COLUMN"

    def __init__(self, clock: Clock, *, strict: bool = True) -> None:
        super().__init__(clock)
        self._strict = strict

    def now(self) -> Script[float]:
        yield from ()
        return self.clock.time()

    def serial(self, name: str) -> Script[None]:
        yield from ()

    def migrating(self) -> Script[None]:
        yield from ()

    def among(self, column: str) -> str:
        return f"{column} IN (SELECT value FROM json_each(?))"

    def each(self, table: str, column: str) -> str:
        return f"json_each(?) AS asked CROSS JOIN {table} ON {column} = asked.value"

    def listed(self, values: Iterable[str | int]) -> str:
        return "[" + ",".join([encode_basestring_ascii(value) if isinstance(value, str) else str(value) for value in values]) + "]"

    def insert_free(self, table: str, columns: str, rows: Sequence[Params]) -> Script[set[Any]]:
        # The caller has looked what is there, and nobody else has written since.
        yield self.or_ignore(table, columns), rows, MANY
        return {row[0] for row in rows}

    def ddl(self, tables: Iterable[Table]) -> list[str]:
        # Appended here: SQLAlchemy learned this option after the oldest version that we support.
        return compiled(tables, sqlite.dialect(), lambda table: " STRICT" if self._strict else "")
