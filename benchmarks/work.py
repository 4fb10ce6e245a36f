"""The work that every contender does: runs of steps that take a state of about 1 KB and return it with one field changed."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio

from agentkit import Agent, Context, Runtime
from agentkit.agents.base import AnyAgent

State: TypeAlias = dict[str, Any]

STEPS = 10  # of a run
AT_ONCE = 50
JITTER_S = 0.005


def first_state() -> State:
    return {"n": 0, "customer": "customer-4711", "tags": [f"tag-{i}" for i in range(12)], "notes": "what was found so far. " * 34}


async def advance(state: State) -> State:
    return {**state, "n": state["n"] + 1}


async def advance_slowly(state: State) -> State:
    await anyio.sleep(random.uniform(0, JITTER_S))
    return {**state, "n": state["n"] + 1}


class LockStep(Agent[int, int]):
    """Each result is durable before the next step begins."""

    async def run(self, ctx: Context, input: int) -> int:
        state = first_state()
        for _ in range(input):
            state = await ctx.step("advance", advance, state)
            await ctx.durable()
        return int(state["n"])


class Jittered(Agent[int, int]):
    """As `LockStep`, but the steps take their time and fall out of step."""

    async def run(self, ctx: Context, input: int) -> int:
        state = first_state()
        for _ in range(input):
            state = await ctx.step("advance", advance_slowly, state)
            await ctx.durable()
        return int(state["n"])


class RunAhead(Agent[int, int]):
    """Steps without an effect need not wait for their predecessors' results to be durable."""

    async def run(self, ctx: Context, input: int) -> int:
        state = first_state()
        for _ in range(input):
            state = await ctx.step("advance", advance, state)
        return int(state["n"])


class Effects(Agent[int, int]):
    """Each step touches the outside world: its intent is durable before it starts, and so is all before it."""

    async def run(self, ctx: Context, input: int) -> int:
        state = first_state()
        for _ in range(input):
            state = await ctx.step("advance", advance, state, effect="rerun")
        return int(state["n"])


class Nothing(Agent[int, int]):
    """A run without a step."""

    async def run(self, ctx: Context, input: int) -> int:
        return input


async def bare(steps: int, step: Callable[[State], Awaitable[State]] = advance) -> int:
    """The same program with no library around it."""
    state = first_state()
    for _ in range(steps):
        state = await step(state)
    return int(state["n"])


async def side_by_side(programs: int, at_once: int, program: Callable[[int], Awaitable[object]]) -> float:
    """Start `programs`, at most `at_once` at a time; returns how many seconds they took together."""
    slots = anyio.CapacityLimiter(at_once)

    async def one(number: int) -> None:
        async with slots:
            await program(number)

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(programs):
            tasks.start_soon(one, number)
    return time.perf_counter() - began


async def steps_a_second(runtime: Runtime, agent: AnyAgent, *, runs: int, at_once: int = AT_ONCE, steps: int = STEPS) -> float:
    """Whole runs, from the call of `Runtime.run` to its result."""

    async def one(number: int) -> None:
        await runtime.run(agent, steps)

    return runs * steps / await side_by_side(runs, at_once, one)
