"""agentkit's queue alone, by its port: leases of a hundred tickets, a task for each, fenced finishes while the next are leased."""

from __future__ import annotations

import asyncio
import json

import anyio
import tasks

from agentkit.clock import SYSTEM
from agentkit.plugins import open_url
from agentkit.ports.queue import Lease, Queue, Ticket

KINDS = frozenset({"nothing@1"})
LEASE_S = 10.0
PAYLOAD = json.dumps(tasks.PAYLOAD)


def ticket(number: int) -> Ticket:
    """As many bytes as the others' payload: a ticket has none, the run has it."""
    return Ticket(f"task-{number}", "nothing", "1", trace=PAYLOAD)


async def work(queue: Queue, at_once: int, tally: tasks.Tally) -> None:
    """As a worker does: what a lease brought is done and finished while the next is asked for."""
    slots = anyio.Semaphore(2)  # one batch at work, one on its way to the server

    async def nothing(lease: Lease) -> None:
        json.loads(lease.ticket.trace)
        tally.did()

    async def do(leases: list[Lease]) -> None:
        async with anyio.create_task_group() as bodies:
            for lease in leases:
                bodies.start_soon(nothing, lease)
        if not all(await queue.finish(leases)):
            raise SystemExit("a ticket was lost")
        slots.release()

    async with anyio.create_task_group() as batches:
        while True:
            await slots.acquire()
            batches.start_soon(do, await queue.lease(at_once, wait_s=1, lease_s=LEASE_S, kinds=KINDS))


async def main() -> None:
    url, amount, at_once = tasks.asked()
    tally = tasks.Tally(amount)
    queue: Queue = open_url("queue", url, SYSTEM)
    await queue.open()
    put_rate = await tasks.put_all(tally.all, lambda number: queue.put([ticket(number)]))
    await tasks.drain("agentkit, the queue alone", put_rate, tally, work(queue, at_once, tally))


asyncio.run(main())
