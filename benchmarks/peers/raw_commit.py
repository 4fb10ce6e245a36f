"""The raw limit of a step: one commit of its driver. sqlite3 with WAL and synchronous=FULL on a thread of its own; asyncpg on a pool."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import asyncpg
import plan

from benchmarks.raw import JOURNAL, CommitPerStep, JournalRow, journal_row

Write = Callable[[JournalRow], Awaitable[object]]


@asynccontextmanager
async def sqlite(url: str) -> AsyncGenerator[Write]:
    with closing(CommitPerStep(Path(url.removeprefix("sqlite:///")))) as raw:
        yield raw.write


@asynccontextmanager
async def postgresql(url: str) -> AsyncGenerator[Write]:
    async with asyncpg.create_pool(url, min_size=plan.CONNECTIONS, max_size=plan.CONNECTIONS) as pool:
        await pool.execute(JOURNAL.replace("INTEGER", "BIGINT").replace("BLOB", "BYTEA"))
        insert = f"INSERT INTO journal VALUES ({', '.join(f'${n}' for n in range(1, 12))})"

        async def write(row: JournalRow) -> None:
            await pool.execute(insert, *row)

        yield write


async def main() -> None:
    url, plans, at_once = plan.asked()
    driver, opened = ("sqlite3", sqlite) if url.startswith("sqlite") else ("asyncpg", postgresql)
    async with opened(url) as write:

        async def run(name: str) -> int:
            state = plan.first_state()
            for seq in range(1, plan.STEPS + 1):
                state = plan.advanced(state)
                await write(journal_row(name, seq, json.dumps(state).encode()))
            return int(state["n"])

        await plan.measure(f"raw {driver}", plans, at_once, run)


asyncio.run(main())
