"""What happens to the worker of a journey, and how the journey must end all the same."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from agentkit import Runtime
from agentkit.testing.crash import Child, Crew
from tests.system import proof
from tests.system.app import PARTS, Effects, Journey, journey_of, submit_journey
from tests.system.conftest import Opened

RUNS = ["journey", *(f"journey/part#1/{i}" for i in range(PARTS))]


async def keeps_the_laws(runtime: Runtime, effects: Effects) -> None:
    """The history of the journey and its parts breaks no law."""
    assert await proof.faults(runtime.store, RUNS, effects.lines()) == []


async def ends_right(runtime: Runtime, effects: Effects) -> None:
    """The journey ends as if nothing had happened, and its history keeps every law."""
    assert await proof.result_of(runtime, "journey", Journey) == journey_of(5, 7)
    await keeps_the_laws(runtime, effects)


async def killed_at(point: str, crew: Crew, opened: Opened, effects: Effects) -> None:
    """A worker dies there, and another one ends the journey."""
    async with opened() as runtime:
        await submit_journey(runtime)
        worker = await crew.start(f"kill@{point}")
        await worker.reached(point)
        assert await worker.ended() == -9
        async with opened(worker=True):
            await ends_right(runtime, effects)


@asynccontextmanager
async def frozen_at(point: str, crew: Crew, opened: Opened, effects: Effects) -> AsyncGenerator[tuple[Runtime, Child]]:
    """A worker that stands still there, while another one has ended the journey."""
    async with opened() as runtime:
        await submit_journey(runtime)
        worker = await crew.start(f"stop@{point}")
        await worker.reached(point)
        await worker.stopped()
        async with opened(worker=True):
            await ends_right(runtime, effects)
        yield runtime, worker
