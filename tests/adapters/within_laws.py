"""What every store keeps that creates runs in the application's own transaction. A file of laws gives the fixtures, on asyncio alone."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from agentkit.errors import InvalidSetting
from agentkit.testing.runs_base import get, new, sweep
from agentkit_sql import SqlRuns

AWKWARD = bytes(range(256)) + b"'; --"


class WithinLaws:
    """`store`; the application's `engine` on its database, with a table `customers (name)`; and its `elsewhere`, on another database."""

    async def test_a_run_created_in_a_transaction_that_is_rolled_back_never_was(self, store: SqlRuns, engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("INSERT INTO customers VALUES ('ann')")
            assert [created.answer for created in await store.create_within(connection, [new("run-1")])] == ["created"]
            await connection.rollback()
            assert (await connection.exec_driver_sql("SELECT count(*) FROM customers")).scalar() == 0
        assert await store.get(["run-1"]) == [None]

    async def test_a_run_created_in_a_transaction_that_commits_is_found_by_the_sweep(self, store: SqlRuns, engine: AsyncEngine) -> None:
        several = [new("run-1", input=AWKWARD), *(new(f"run-{n}") for n in range(2, 9))]
        async with AsyncSession(engine) as session:
            assert [created.answer for created in await store.create_within(session, several)] == ["created"] * 8
            assert await store.get(["run-1"]) == [None], "nobody sees it before the commit"
            await session.commit()
        assert {ticket.run_id for ticket in (await sweep(store)).tickets} == {run.run_id for run in several}
        assert (await get(store, "run-1")).input == AWKWARD
        async with engine.begin() as connection:
            [again] = await store.create_within(connection, [new("run-1", input=AWKWARD)])
        assert again.answer == "exists"

    async def test_another_database_or_no_transaction_at_all_is_refused(self, store: SqlRuns, elsewhere: AsyncEngine) -> None:
        async with elsewhere.connect() as connection:
            with pytest.raises(InvalidSetting, match="on the database that holds the runs"):
                await store.create_within(connection, [new("run-1")])
        with pytest.raises(InvalidSetting, match="AsyncSession"):
            await store.create_within("a transaction", [new("run-1")])
