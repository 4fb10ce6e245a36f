"""The work of every durable peer: plans of steps that take a state of about 1 KB. Imports nothing: each runs in its own environment."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

STEPS = 10
CONNECTIONS = 20  # of a pool: with more, PostgreSQL commits fewer rows a second here


def first_state() -> dict[str, Any]:
    return {"n": 0, "customer": "customer-4711", "tags": [f"tag-{i}" for i in range(12)], "notes": "what was found so far. " * 34}


def advanced(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "n": state["n"] + 1}


def asked() -> tuple[str, int, int]:
    """The URL of the database, how many plans, and how many at once."""
    return sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


async def measure(peer: str, plans: int, at_once: int, run: Callable[[str], Awaitable[int]]) -> None:
    """Run the plans and print the rate as JSON. A plan that does not end at its last step is no measurement."""
    slots = asyncio.Semaphore(at_once)

    async def one(name: str) -> None:
        async with slots:
            ended = await run(name)
        if ended != STEPS:
            raise SystemExit(f"{name} of {peer} ended at step {ended}")

    async def all_of(kind: str, count: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(one(f"{kind}-{number}"))

    await all_of("warm", min(plans, at_once))
    began, used = time.perf_counter(), time.process_time()
    await all_of("plan", plans)
    steps = plans * STEPS
    said = {"rate": steps / (time.perf_counter() - began), "cpu_us": (time.process_time() - used) * 1_000_000 / steps}
    print(json.dumps({"peer": peer, **said}))
