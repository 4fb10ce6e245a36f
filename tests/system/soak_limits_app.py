"""What a process of the soak of limits does: many callers, who hold permits of one shared semaphore for a moment, again and again."""

from __future__ import annotations

import itertools
import json
import os
import random
import time

import anyio

from agentkit import Runtime
from agentkit.errors import Overloaded, PermitLost, StoreUnavailable
from agentkit.resilience import semaphore
from agentkit.resilience.policy import Policy
from agentkit.resilience.semaphore import Semaphore
from agentkit.resilience.state import using

BOOK, LEASE = "LIMIT_BOOK", "LIMIT_LEASE_S"
LET_IN = "let in"
"""Said when the first call of a process has its permits."""
NAME = "slots"
PERMITS = 8
WEIGHTS = (1, 1, 1, 2, 3)
CALLERS = 6  # a process: with four of them three times what fits, so that each free permit is wanted
HOLD_S = (0.02, 0.4)
POLICIES = {
    weight: Policy(f"weight {weight}", limits=[Semaphore(NAME, PERMITS, shared=True, weight=weight, max_wait_s=600)]) for weight in WEIGHTS
}


def write(call: str, what: str, weight: int) -> None:
    """A line, by one call, so that a kill leaves all of it or nothing. The monotonic clock is that of the whole machine."""
    line = {"pid": os.getpid(), "call": call, "what": what, "weight": weight, "at": time.monotonic()}
    file = os.open(os.environ[BOOK], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


class Process:
    """The callers of one process."""

    let_in = False

    async def work(self) -> None:
        """Call until killed."""
        write("", "at work", 0)
        async with anyio.create_task_group() as callers:
            for number in range(CALLERS):
                callers.start_soon(self._calls, number)

    async def _calls(self, number: int) -> None:
        for count in itertools.count(1):
            weight = random.choice(WEIGHTS)
            call = f"{number}.{count}"
            try:
                await POLICIES[weight].call(self._hold, call, weight)
            except (Overloaded, PermitLost, StoreUnavailable) as exc:
                write(call, type(exc).__name__, weight)

    async def _hold(self, call: str, weight: int) -> None:
        """Called with the permits: they are held at least from the first line to the second."""
        write(call, "begin", weight)
        if not self.let_in:
            self.let_in = True
            print(LET_IN, flush=True)
        try:
            await anyio.sleep(random.uniform(*HOLD_S))
        finally:
            write(call, "end", weight)


async def work(opened: Runtime) -> None:
    """What `Crew` lets a child do."""
    semaphore.LEASE_S = float(os.environ[LEASE])  # nobody waits for one that suits slow networks
    with using(opened.engine.services.policies):
        await Process().work()


def runtime() -> Runtime:
    return Runtime.from_env()
