"""The tables, and how an older file becomes a newer one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import DOUBLE_PRECISION, REAL, BigInteger, Column, Identity, Index, Integer, LargeBinary, MetaData, Table, Text, text

from agentkit.errors import SchemaTooNew
from agentkit_sql.dialect import Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.types import TypeEngine

    from agentkit_sql.dialect import Dialect, Script

metadata = MetaData()
NUMBERED = "no"
"""The column that the database fills by counting."""


ELSEWHERE: dict[type[TypeEngine[Any]], dict[str, TypeEngine[Any]]] = {
    Integer: {"postgresql": BigInteger()},
    REAL: {"postgresql": DOUBLE_PRECISION()},  # REAL has six digits there
    Text: {"postgresql": Text(collation="C")},  # byte for byte
}
"""What a type of SQLite is called on a server."""


def _on_servers(kind: type[TypeEngine[Any]]) -> TypeEngine[Any]:
    made = kind()
    for database, there in ELSEWHERE.get(kind, {}).items():
        made = made.with_variant(there, database)
    return made


def _table(name: str, key: str, /, **columns: type[TypeEngine[Any]]) -> Table:
    """Columns whose type is written as `Text`, …; a name that ends in `_` may be NULL (the `_` is dropped)."""
    keys = key.split()
    made = [
        Column(
            column.rstrip("_"),
            _on_servers(kind),
            *[Identity()] * (column == NUMBERED),
            primary_key=column in keys,
            nullable=column.endswith("_"),
            autoincrement=column == NUMBERED,
        )
        for column, kind in columns.items()
    ]
    return Table(name, metadata, *made)


def _index(name: str, table: Table, columns: str, where: str | None = None, *, unique: bool = False) -> None:
    condition = None if where is None else text(where)
    Index(name, *(table.c[column] for column in columns.split()), unique=unique, sqlite_where=condition, postgresql_where=condition)


schema_version = _table("schema_version", "version", version=Integer)

# The fence and the heartbeat are two rows: on a server a beat would wait behind the flushes that share-lock the fence.
workers = _table("workers", "worker_id", worker_id=Text, dead=Integer, died_at_=REAL)
beats = _table("beats", "worker_id", worker_id=Text, beat=Integer, kinds=Text, host=Text, at=REAL)

# `no` is the run's name inside the database: 12 bytes of index an entry instead of 60, and what runs that began together write
# lies together. With 50 runs at a time it halves the pages of a commit.
runs = _table(
    "runs", "no",
    no=Integer, run_id=Text, kind=Text, version=Text, status=Integer, owner_=Text, fence=Integer, wake=Integer, inbox_seq=Integer,
    ticketed_at_=REAL,  # when a ticket was last known to be put; NULL: none
    crashes=Integer, priority=Integer, tenant=Text, key=Text, parent_id_=Text, parent_key=Text, idx=Integer,
    holds_slot=Integer,  # of its join's window
    notify=Integer, depth=Integer, seed=Integer, deadline_=REAL, wake_at_=REAL, waiting_for=Text, keep_s=REAL, trace=Text, meta=Text,
    created_at=REAL, updated_at=REAL, expires_at_=REAL,
    input=LargeBinary, result=LargeBinary,  # last: what is read and changed often then stays on the row's first page
)  # fmt: skip
_index("runs_by_id", runs, "run_id", unique=True)
_index("runs_owned", runs, "owner", "owner IS NOT NULL")
_index("runs_ready", runs, "ticketed_at", "status = 1")
_index("runs_due", runs, "wake_at", "status = 3 AND wake_at IS NOT NULL")
_index("runs_untold", runs, "run_id", "notify = 1")
_index("runs_children", runs, "parent_id parent_key idx", "parent_id IS NOT NULL")
_index("runs_in_window", runs, "parent_id parent_key idx", "status = 3 AND waiting_for = 'window'")
_index("runs_expiring", runs, "expires_at", "expires_at IS NOT NULL")

# An ordinary table with a unique index: keyed by its primary key alone an entry of 1 KB would cost 4.7 KB (an overflow page each).
journal = _table(
    "journal", "run_no seq",
    run_no=Integer, seq=Integer, fence=Integer, kind=Integer, key=Text, attempt=Integer, fp=Text, codec=Integer, body=LargeBinary,
    at_ms=Integer, took_us=Integer,
)  # fmt: skip
_index("journal_snapshots", journal, "run_no seq", "kind = 9")

inbox = _table("inbox", "run_id id", run_id=Text, id=Text, seq=Integer, topic=Text, body=LargeBinary, taken_seq_=Integer)
_index("inbox_untaken", inbox, "run_id topic", "taken_seq IS NULL")

joins = _table(
    "joins", "run_id key",
    run_id=Text, key=Text, total=Integer, need_good=Integer, max_bad=Integer, slots=Integer, good=Integer, bad=Integer, active=Integer,
    fired=Integer,
)  # fmt: skip

tickets = _table(
    "tickets", "n",
    n=Integer, id=Text, run_id=Text, kind=Text, version=Text, wake=Integer, tenant=Text, priority=Integer, key=Text, trace=Text,
    weight=Integer, served=Text, state=Integer, turn=REAL, due=REAL, put_at=REAL, tries=Integer, deliveries=Integer,
)  # fmt: skip
_index("tickets_undelivered", tickets, "id", "state <> 1", unique=True)
_index("tickets_ready", tickets, "served priority turn n put_at", "state = 0")
_index("tickets_leased", tickets, "due", "state = 1")
_index("tickets_delayed", tickets, "due", "state = 2")
_index("tickets_keyed", tickets, "key state n", "key <> ''")
# The turn of each tenant's newest ticket: where its next one begins.
turns = _table("turns", "tenant priority", tenant=Text, priority=Integer, turn=REAL)

dead_tickets = _table(
    "dead_tickets", "id",
    id=Text, run_id=Text, kind=Text, version=Text, wake=Integer, tenant=Text, priority=Integer, key=Text, trace=Text,
    weight=Integer, served=Text, reason=Text, deliveries=Integer, died_at=REAL,
)  # fmt: skip
_index("dead_tickets_by_age", dead_tickets, "died_at")

queue_state = _table(
    "queue_state", "one",
    one=Integer, last_n=Integer, waiting=Integer, credit0=Integer, credit1=Integer, credit2=Integer, turn0=REAL, turn1=REAL, turn2=REAL,
)  # fmt: skip

documents = _table("documents", "key", key=Text, value=LargeBinary, version=Integer, expires_at_=REAL)
_index("documents_expiring", documents, "expires_at", "expires_at IS NOT NULL")

# Who holds permits of a semaphore, and who stands in line for permits or for tokens.
permits = _table(
    "permits", "name holder",
    name=Text, holder=Text, n=Integer, tenant=Text, weight=REAL, turn=REAL, granted=Integer, expires_at=REAL,
)  # fmt: skip
buckets = _table("buckets", "name", name=Text, level=REAL, burst=REAL, rate=REAL, at=REAL)
reservations = _table("reservations", "name key", name=Text, key=Text, amount=REAL, settled=Integer, at=REAL)
_index("reservations_by_age", reservations, "at")


def _weigh_tickets(dialect: Dialect) -> list[str]:
    # Processes of the version before go on: what they put weighs 1.
    return [f"ALTER TABLE {table} {dialect.add_column} weight INTEGER DEFAULT 1 NOT NULL" for table in (tickets.name, dead_tickets.name)]


FIRST = 1
MIGRATIONS: tuple[Callable[[Dialect], list[str]], ...] = (_weigh_tickets,)
"""What turns version `FIRST + i` into the next one; a new file is made of the tables above at once."""
NEWEST = FIRST + len(MIGRATIONS)


def is_current(dialect: Dialect) -> Script[bool]:
    """Whether there is nothing to migrate: asked first, for a file that another process has locked can still be read."""
    return (yield from _version(dialect)) == NEWEST


def _version(dialect: Dialect) -> Script[int | None]:
    """None: nothing is there, or what a first migration left where each of its statements is a transaction of its own."""
    if schema_version.name not in {row[0] for row in (yield dialect.tables())}:
        return None
    found = yield Statement("SELECT version FROM schema_version")()
    return found[0][0] if found else None


def migrate(dialect: Dialect, store: str, migrations: Sequence[Callable[[Dialect], list[str]]] = MIGRATIONS) -> Script[None]:
    """Bring the schema to the newest version; to be run in one write transaction, so that of many processes one does it.

    Raises:
        SchemaTooNew: a newer agentkit made it.
    """
    newest = FIRST + len(migrations)
    yield from dialect.migrating()
    found = yield from _version(dialect)
    if found is None:
        yield from _create(dialect, newest)
        return
    if found > newest:
        raise SchemaTooNew(store, found, newest)
    for step in migrations[found - FIRST :]:
        for line in step(dialect):
            yield Statement(line)()
    if found < newest:
        yield Statement("UPDATE schema_version SET version = ?")(newest)


def _create(dialect: Dialect, version: int) -> Script[None]:
    for line in dialect.ddl(metadata.sorted_tables):
        yield Statement(line)()
    yield Statement("INSERT INTO queue_state VALUES (1, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0)")()
    yield Statement('INSERT INTO documents ("key", value, version, expires_at) VALUES (?, ?, 0, NULL)')("", b"")
    yield Statement("INSERT INTO schema_version (version) VALUES (?)")(version)
