"""The raw limit: one sqlite3 commit a step, WAL, synchronous=FULL, one connection on a thread of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing

import plan

from benchmarks.raw import CommitPerStep, journal_row


async def main() -> None:
    plans, at_once, folder = plan.asked()
    with closing(CommitPerStep(folder / "raw.db")) as raw:

        async def run(name: str) -> int:
            state = plan.first_state()
            for seq in range(1, plan.STEPS + 1):
                state = plan.advanced(state)
                await raw.write(journal_row(name, seq, json.dumps(state).encode()))
            return int(state["n"])

        await plan.measure("raw sqlite3", plans, at_once, run)


asyncio.run(main())
