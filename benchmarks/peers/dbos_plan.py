"""DBOS: a workflow of steps. It needs SQLite 3.42; where Python's own is older, the one of pysqlite3 takes its place."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import sqlite3
import sys
from importlib.metadata import version
from typing import Any

import plan

NEEDED = (3, 42, 0)
told = ""
if plan.asked()[0].startswith("sqlite") and sqlite3.sqlite_version_info < NEEDED:
    try:
        import pysqlite3
    except ImportError:
        raise SystemExit(f"DBOS needs SQLite 3.42, Python's own here is {sqlite3.sqlite_version}, and pysqlite3 is not installed") from None
    told = f" (on the SQLite of pysqlite3: it needs 3.42, Python's own is {sqlite3.sqlite_version})"
    sys.modules["sqlite3"] = pysqlite3

from dbos import DBOS  # noqa: E402 - after SQLite is chosen


@DBOS.step()
async def advance(state: dict[str, Any]) -> dict[str, Any]:
    return plan.advanced(state)


@DBOS.workflow()
async def work() -> int:
    state = plan.first_state()
    for _ in range(plan.STEPS):
        state = await advance(state)
    return int(state["n"])


async def main() -> None:
    url, plans, at_once = plan.asked()
    DBOS(
        config={
            "name": "plans",
            "system_database_url": url,
            "sys_db_pool_size": plan.CONNECTIONS,
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    try:
        await plan.measure(f"DBOS {version('dbos')}{told}", plans, at_once, lambda name: work())
    finally:
        DBOS.destroy()


asyncio.run(main())
