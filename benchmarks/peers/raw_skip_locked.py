"""The raw limit of a queue on PostgreSQL: leases of fifty by SKIP LOCKED, a task for each, one fenced statement that finishes them."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import tasks

TABLES = """
CREATE TABLE jobs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL, state smallint NOT NULL DEFAULT 0,
  attempt int NOT NULL DEFAULT 0, due timestamptz);
CREATE INDEX jobs_ready ON jobs (id) WHERE state = 0;
CREATE TABLE results (id bigint PRIMARY KEY, body bytea NOT NULL);
"""
PUT = "INSERT INTO jobs (body) VALUES ($1)"
LEASE = """
UPDATE jobs SET state = 1, attempt = attempt + 1, due = now() + interval '10 seconds'
WHERE id IN (SELECT id FROM jobs WHERE state = 0 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING id, attempt, body
"""
FINISH = """
WITH done AS (SELECT * FROM unnest($1::bigint[], $2::int[], $3::bytea[]) AS d (id, attempt, body)),
  gone AS (DELETE FROM jobs USING done WHERE jobs.id = done.id AND jobs.attempt = done.attempt AND state = 1 RETURNING jobs.id)
INSERT INTO results SELECT done.id, done.body FROM done JOIN gone USING (id)
"""
PAYLOAD = json.dumps(tasks.PAYLOAD).encode()


async def lease_and_finish(connection: Any, at_once: int, tally: tasks.Tally) -> None:
    done: list[tuple[int, int, bytes]] = []

    async def nothing(row: Any) -> None:
        payload = json.loads(row["body"])
        tally.did()
        done.append((row["id"], row["attempt"], json.dumps(len(payload)).encode()))

    while rows := await connection.fetch(LEASE, at_once):
        async with asyncio.TaskGroup() as bodies:
            for row in rows:
                bodies.create_task(nothing(row))
        await connection.execute(FINISH, *map(list, zip(*done, strict=True)))
        done.clear()


async def work(url: str, at_once: int, tally: tasks.Tally) -> None:
    """On two connections: while one waits for the disk the other has work."""
    async with asyncio.TaskGroup() as halves:
        for connection in (await asyncpg.connect(url), await asyncpg.connect(url)):
            halves.create_task(lease_and_finish(connection, at_once // 2, tally))


async def main() -> None:
    url, amount, at_once = tasks.asked()
    tally = tasks.Tally(amount)
    async with asyncpg.create_pool(url, min_size=tasks.PUT_AT_ONCE, max_size=tasks.PUT_AT_ONCE) as pool:
        await pool.execute(TABLES)
        put_rate = await tasks.put_all(tally.all, lambda number: pool.execute(PUT, PAYLOAD))
    await tasks.drain("raw asyncpg: SKIP LOCKED", put_rate, tally, work(url, at_once, tally))


asyncio.run(main())
