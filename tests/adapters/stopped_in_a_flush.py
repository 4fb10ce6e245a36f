"""A process that stops itself (SIGSTOP) in a flush, right before its COMMIT: `python -m tests.adapters.stopped_in_a_flush URL`.

It takes the run `run-1`, stops, and says what its write answered when somebody lets it go on.
"""

from __future__ import annotations

import os
import signal
import sys

import anyio

from agentkit.errors import StoreError
from agentkit.testing.runs_base import claim, entry, write
from agentkit_sql import Sql
from agentkit_sql.mariadb_asyncmy import AsyncmyConnection

plain = AsyncmyConnection.plain


async def stop_at_commit(self: AsyncmyConnection, sql: str) -> None:
    """Send the rows, then stop."""
    if sql == "COMMIT":
        await self.rows("SELECT 1", ())
        os.kill(os.getpid(), signal.SIGSTOP)
    await plain(self, sql)


async def main(url: str) -> None:
    store = Sql(url).runs
    await store.open()
    await store.register("worker-that-stops", "review@3", "host")
    run = await claim(store, "worker-that-stops", "run-1")
    await store.write("worker-that-stops", [write(run, [entry(1)])])
    AsyncmyConnection.plain = stop_at_commit  # type: ignore[method-assign]
    try:
        # More than entries, which would go in one statement.
        answer = str(await store.write("worker-that-stops", [write(run, [entry(2)], clear_crashes=True)]))
    except StoreError as exc:
        answer = type(exc).__name__
    print(answer, flush=True)
    os._exit(0)  # its connections are cut: there is nothing to close


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
