"""What differs between databases, and the form in which an operation is written once for all of them.

An operation is a transaction script: a generator that yields statements and is sent their answers. It holds the decisions; whoever
drives it holds the connection and the transaction: SQLite's own thread here, an async driver for a server.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

if TYPE_CHECKING:
    from sqlalchemy import Table

    from agentkit.clock import Clock

T = TypeVar("T")

ROWS, COUNT, MANY = range(3)
Params: TypeAlias = Sequence[Any]
Call: TypeAlias = tuple[str, Any, int]
"""SQL, its parameters (for MANY: a list of them), and what to answer: all rows, or how many rows were changed."""
Script: TypeAlias = Generator[Call, Any, T]


class Statement:
    """A statement prepared once. Calling it binds its parameters."""

    __slots__ = ("how", "sql")

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.how = ROWS if sql.lstrip().startswith(("SELECT", "WITH")) else COUNT

    def __call__(self, *params: object) -> Call:
        return self.sql, params, self.how

    def many(self, rows: Sequence[Params]) -> Call:
        """The same change for each of `rows`; the answer is how many rows were changed in all."""
        return self.sql, rows, MANY


class SqliteDialect:
    """SQLite: writers are alone in their transaction, so nothing needs a row lock, and time is this process's clock."""

    share = ""
    """Ends a SELECT of rows that no other transaction may change before this one ends."""
    exclusive = ""
    """Ends a SELECT of rows that this transaction will change."""
    tables = Statement("SELECT name FROM sqlite_master WHERE type = 'table'")

    def __init__(self, clock: Clock, *, strict: bool = True) -> None:
        self.clock = clock
        self._strict = strict

    def now(self) -> Script[float]:
        """The store's clock, seconds since 1970."""
        yield from ()
        return self.clock.time()

    def among(self, column: str) -> str:
        """A condition on `column`, with one parameter made by `listed`."""
        return f"{column} IN (SELECT value FROM json_each(?))"

    def each(self, table: str, column: str) -> str:
        """The rows of a table whose `column` is among one parameter made by `listed`, found by that column's index and no other."""
        return f"json_each(?) AS asked CROSS JOIN {table} ON {column} = asked.value"

    def listed(self, values: Iterable[str | int]) -> str:
        return "[" + ",".join([encode_basestring_ascii(value) if isinstance(value, str) else str(value) for value in values]) + "]"

    def or_ignore(self, table: str, columns: str) -> str:
        """An INSERT of one row that does nothing where a unique key is taken."""
        marks = ", ".join("?" * len(columns.split(",")))
        return f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING"

    def ddl(self, tables: Iterable[Table]) -> list[str]:
        """The statements that create tables and their indexes."""
        statements: list[str] = []
        for table in tables:
            # Appended here: SQLAlchemy learned this option after the oldest version that we support.
            statements.append(str(CreateTable(table).compile(dialect=sqlite.dialect())).rstrip() + (" STRICT" if self._strict else ""))
            statements += [
                str(CreateIndex(index).compile(dialect=sqlite.dialect())) for index in sorted(table.indexes, key=lambda i: str(i.name))
            ]
        return statements
