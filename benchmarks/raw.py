"""The raw limits: sqlite3 with nothing around it, fed by the same number of tasks."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

R = TypeVar("R")
JournalRow: TypeAlias = tuple[str, int, int, int, str, int, str, int, bytes, int, int]

JOURNAL = (
    "CREATE TABLE journal (run_id TEXT NOT NULL, seq INTEGER NOT NULL, fence INTEGER NOT NULL, kind INTEGER NOT NULL, key TEXT NOT NULL, "
    "attempt INTEGER NOT NULL, fp TEXT NOT NULL, codec INTEGER NOT NULL, body BLOB NOT NULL, at_ms INTEGER NOT NULL, "
    "took_us INTEGER NOT NULL, PRIMARY KEY (run_id, seq))"
)
INSERT = f"INSERT INTO journal VALUES ({', '.join('?' * 11)})"
FINGERPRINT = "0123456789abcdef advance " + "a" * 200  # as long as the one that the product stores beside a result


def connect(path: Path, synchronous: Literal["FULL", "NORMAL"], *tables: str) -> sqlite3.Connection:
    """A connection as the product opens its own."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(f"PRAGMA synchronous = {synchronous}").fetchall()
    for table in tables:
        connection.execute(table)
    return connection


def commit(connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Rows in a transaction of their own."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(statement, rows)
    connection.execute("COMMIT")


def journal_row(run_id: str, seq: int, body: bytes) -> JournalRow:
    """A row with as many bytes as the product writes for the same result."""
    return run_id, seq, 1, 1, f"advance#{seq}", 1, FINGERPRINT, 0, body, 1_700_000_000_000, 100


class CommitPerStep:
    """One thread owns the connection; every row is a transaction of its own."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, "FULL", JOURNAL)
        self._thread = ThreadPoolExecutor(1)

    async def write(self, row: JournalRow) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, commit, self._connection, INSERT, [row])

    def close(self) -> None:
        self._thread.shutdown()
        self._connection.close()


class GroupCommit:
    """The ceiling of what the product does: whatever came during the last commit goes into the next one, and nothing else happens."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, "FULL", JOURNAL)
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[JournalRow, asyncio.Future[None]]] = []
        self._busy = False

    async def write(self, row: JournalRow) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((row, done))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._flush, loop)
        await done

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._waiting = self._waiting, []
        sent = loop.run_in_executor(self._thread, commit, self._connection, INSERT, [row for row, _ in batch])
        sent.add_done_callback(lambda _: self._flushed(loop, [done for _, done in batch]))

    def _flushed(self, loop: asyncio.AbstractEventLoop, batch: list[asyncio.Future[None]]) -> None:
        for done in batch:
            done.set_result(None)
        self._busy = bool(self._waiting)
        if self._busy:
            self._flush(loop)

    def close(self) -> None:
        self._thread.shutdown()
        self._connection.close()


async def in_thread(function: Callable[[], R]) -> R:
    """Run a raw contender where it does not hold the event loop."""
    return await asyncio.to_thread(function)
