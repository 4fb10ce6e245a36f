"""The app that the system tests run and kill: every kind of step, with its effects noted in a side file."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.lowlevel import current_token

from agentkit import Agent, Context, Done, Runtime, Signal, StepContext
from agentkit.tasks import Home
from agentkit.testing.crash_child import hand, reach, stand_still
from agentkit_sql.sqlite import Job

EFFECTS_FILE = "EFFECTS_FILE"
PARTS = 3


class Effects:
    """The outside world: one line for each effect, written by one call, so that a kill leaves all of it or nothing."""

    def __init__(self, path: str) -> None:
        self.path = path

    def happen(self, step: StepContext, value: object = None) -> None:
        line = {"key": step.idempotency_key, "fence": step.fence, "attempt": step.attempt, "pid": os.getpid(), "value": value}
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
        finally:
            os.close(file)

    def lines(self) -> list[dict[str, Any]]:
        path = Path(self.path)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def effects_here() -> Effects:
    return Effects(os.environ[EFFECTS_FILE])


async def plan(step: StepContext, n: int) -> int:
    effects_here().happen(step)
    reach("inside step plan")
    return n + 1


async def charge(step: StepContext, n: int) -> int:
    reach("inside step charge, before its effect")
    effects_here().happen(step)
    reach("inside step charge, after its effect")
    return n * 2


async def probe_charge(n: int) -> Done[int] | None:
    run_id = f"probed-{n}"
    happened = any(line["key"] == f"{run_id}:charge#1" for line in effects_here().lines())
    return Done(n * 2) if happened else None


async def linger(step: StepContext, seconds: float) -> int:
    """Takes its time, as a call to a slow service."""
    effects_here().happen(step)
    reach("inside step linger")
    await anyio.sleep(seconds)
    return 1


async def block(step: StepContext, seconds: float) -> int:
    """Blocks the event loop, as careless code does; the second time it has learned."""
    effects_here().happen(step)
    reach("inside step block")
    if step.attempt == 1:
        time.sleep(seconds)  # noqa: ASYNC251  the very thing under test
    return 1


async def work(step: StepContext, n: int) -> int:
    await anyio.sleep(0.2)  # longer than a run holds its slot before it parks, so that the parent surely parks
    effects_here().happen(step)
    return n * 2


class Part(Agent[int, int]):
    """A child of a journey."""

    async def run(self, ctx: Context, input: int) -> int:
        return await ctx.step("work", work, input, effect="rerun", timeout_s=2.0)


class Journey(Agent[int, int]):
    """A bit of everything: a pure step, an effect, children, a signal, another effect."""

    go = Signal(int)

    async def run(self, ctx: Context, input: int) -> int:
        planned = await ctx.step("plan", plan, input)
        charged = await ctx.step("charge", charge, planned, effect="rerun", timeout_s=1.0)
        parts = await ctx.map("part", Part, range(PARTS), max_parallel=2)
        went = await ctx.wait_for(self.go)
        return await ctx.step("file", charge, charged + sum(parts) + went, effect="rerun", timeout_s=1.0)


def journey_of(n: int, went: int) -> int:
    """What `Journey` comes to."""
    return 2 * (2 * (n + 1) + sum(2 * i for i in range(PARTS)) + went)


class Charged(Agent[str, int]):
    """One effect under the policy that the input names: `rerun`, `fail`, `ask` or `probe`."""

    async def run(self, ctx: Context, input: str) -> int:
        policy, _, n = input.partition(" ")
        if policy == "probe":
            return await ctx.step("charge", charge_quietly, int(n), effect="ask", probe=probe_charge, timeout_s=1.0)
        return await ctx.step("charge", charge, int(n), effect=_policy(policy), timeout_s=1.0)


async def charge_quietly(step: StepContext, n: int) -> int:
    """`charge`, whose probe gets the same arguments."""
    return await charge(step, n)


def _policy(name: str) -> Any:
    return name


class Nap(Agent[float, int]):
    """Sleeps long enough to park, then works."""

    async def run(self, ctx: Context, input: float) -> int:
        await ctx.step("plan", plan, 0)
        await ctx.sleep(input)
        return await ctx.step("charge", charge, 1, effect="rerun", timeout_s=1.0)


class Slow(Agent[float, int]):
    """Steps that last."""

    async def run(self, ctx: Context, input: float) -> int:
        await ctx.step("plan", plan, 0)
        await ctx.step("linger", linger, input)
        return await ctx.step("last", plan, 1)


class Blocking(Agent[float, int]):
    """A step that blocks its worker's event loop."""

    async def run(self, ctx: Context, input: float) -> int:
        await ctx.step("block", block, input, effect="rerun", timeout_s=60.0)
        return await ctx.step("last", plan, 1)


class Waiting(Agent[int, int]):
    """Waits for a signal, for as long as it takes."""

    go = Signal(int)

    async def run(self, ctx: Context, input: int) -> int:
        return input + await ctx.wait_for(self.go)


class Echo(Agent[int, int]):
    """Nothing but a run."""

    async def run(self, ctx: Context, input: int) -> int:
        return input


class Wide(Agent[int, int]):
    """A parent of very many."""

    async def run(self, ctx: Context, input: int) -> int:
        return sum(await ctx.map("echo", Echo, range(input), max_parallel=500))


class Bulky(Agent[int, int]):
    """Steps with big results: so many of 50,000 bytes."""

    async def run(self, ctx: Context, input: int) -> int:
        await ctx.step("plan", plan, 0)
        return sum([len(await ctx.step("bulk", bulk, 50_000)) for _ in range(input)])


async def bulk(step: StepContext, size: int) -> str:
    await anyio.sleep(0.1)
    effects_here().happen(step)
    return os.urandom(size // 2).hex()


AGENTS = (Part, Journey, Charged, Nap, Slow, Blocking, Waiting, Echo, Wide, Bulky)


def runtime() -> Runtime:
    """The runtime of a child process, by its environment."""
    made = Runtime.from_env(agents=AGENTS)
    if made.settings.state.startswith("sqlite"):
        _halt_inside_sweeps(made.store)
        hand.stand_still = partial(stand_still_between_transactions, made.store)
    return made


def stand_still_between_transactions(store: Any) -> None:
    """Stop in the thread that owns the file, where it has no transaction open: one would lock the file for everybody.

    That a process stopped inside a transaction does lock it has tests of its own, with points inside the sweep.
    """
    owner = store.database._owner
    if threading.current_thread() is owner._thread:
        stand_still()
        return
    awake = threading.Event()

    def script() -> Generator[Any, Any, None]:
        stand_still()
        awake.set()
        yield from ()

    owner.put(Job(script(), current_token().native_token, Home().gate(), write=False, sync=False, topic=""))
    awake.wait()


def _halt_inside_sweeps(store: Any) -> None:
    """Points between the statements of one transaction: only the adapter's own scripts know where they are."""
    scripts = store._sweeping
    sweep = scripts.sweep

    def halting(reap: Mapping[str, int], **given: Any) -> Generator[Any, Any, Any]:
        script = sweep(reap, **given)
        try:
            call = next(script)
            for number in itertools.count(1):
                answer = yield call
                if reap:
                    reach(f"inside sweep reap, after statement {number}")
                call = script.send(answer)
        except StopIteration as end:
            return end.value

    scripts.sweep = halting


async def submit_journey(runtime: Runtime) -> None:
    """Submit a run and signal it, as an app does."""
    handle = await runtime.submit(Journey, 5, run_id="journey")
    await handle.signal(Journey.go, 7, id="go")


async def wake_waiting(runtime: Runtime) -> None:
    """Signal a run that waits."""
    await runtime.handle("waiting", Waiting).signal(Waiting.go, 7, id="go")
