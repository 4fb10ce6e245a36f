"""Verbs for concurrency inside one run: branches with names of their own, the first of several, a time limit."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from agentkit.agents.waiting import begin
from agentkit.durable.codec import PLAIN
from agentkit.durable.execution import Interrupted, TimeLimit, time_limits
from agentkit.durable.parking import Wait
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from agentkit.agents.context import Context
    from agentkit.durable.execution import Execution

R = TypeVar("R")


async def gather(ctx: Context, key: str, branches: Sequence[Callable[[Context], Awaitable[R]]], max_parallel: int) -> list[R]:
    """All results in order. Every branch runs to its end, so that which error is raised does not depend on time."""
    results: dict[int, R] = {}
    errors: dict[int, Exception] = {}
    limiter = anyio.Semaphore(max_parallel)

    async def one(i: int) -> None:
        async with limiter:
            try:
                results[i] = await branches[i](ctx.branch_at(f"{key}/{i + 1}/"))
            except Exception as exc:  # noqa: BLE001 - it is raised below, when all have ended
                errors[i] = exc

    async with anyio.create_task_group() as tasks:
        for i in range(len(branches)):
            tasks.start_soon(one, i)
    if errors:
        raise errors[min(errors)]
    return [results[i] for i in range(len(branches))]


async def first(ctx: Context, key: str, branches: Sequence[Callable[[Context], Awaitable[R]]]) -> R:
    """The branch that ended first. A replay runs only that one; what the others recorded is forgotten."""
    ex = ctx.execution
    record = ex.journal.known(key)
    if record is not None and record.outcome is not None:
        winner = int(PLAIN.decode(record.outcome.body, key)["winner"])
        for i in {*range(len(branches))} - {winner}:
            ex.journal.forget(f"{key}/{i + 1}/")
        return await branches[winner](ctx.branch_at(f"{key}/{winner + 1}/"))
    ex.check_open()
    winner, outcome = await _race(ctx, key, branches)
    ex.check_open()
    ex.journal.note(EntryKind.RESULT, key, {"winner": winner})
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def _race(ctx: Context, key: str, branches: Sequence[Callable[[Context], Awaitable[R]]]) -> tuple[int, R | Exception]:
    """Run all until one ends; that one, and what it came to."""
    ended: dict[int, R | Exception] = {}

    async def one(i: int) -> None:
        try:
            outcome: R | Exception = await branches[i](ctx.branch_at(f"{key}/{i + 1}/"))
        except Exception as exc:  # noqa: BLE001 - an error may win the race too
            outcome = exc
        if not ended:
            ended[i] = outcome
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for i in range(len(branches)):
            tasks.start_soon(one, i)
    return next(iter(ended.items()))


@asynccontextmanager
async def timeout(ex: Execution, key: str, seconds: float) -> AsyncGenerator[None]:
    """Cut the block at a time by the store's clock. That it struck is journalled; a replay then cuts it where the journal ends."""
    record = ex.journal.known(key)
    limit = TimeLimit(anyio.CancelScope(), struck=record is not None and record.outcome is not None)
    until = 0.0 if limit.struck else await begin(ex, key, record, seconds)
    token = time_limits.set((*time_limits.get(), limit))
    try:
        async with anyio.create_task_group() as tasks:
            if not limit.struck:
                tasks.start_soon(partial(_strike, ex, key, limit, until))
            with limit.scope:
                yield
            tasks.cancel_scope.cancel()
    except Interrupted as cut:
        if cut.limit is not limit:
            raise
    except BaseExceptionGroup as group:
        _reraise(group, limit)
    finally:
        time_limits.reset(token)
    if limit.struck:
        raise TimeoutError(f"ctx.timeout({seconds:g}): time is up")


async def _strike(ex: Execution, key: str, limit: TimeLimit, until: float) -> None:
    """Wait for the time, then cut the block; not while replaying, for what is recorded did happen in time."""
    wait = Wait(anyio.Event(), "", None, until, passive=True)
    ex.waits.add(wait)
    try:
        ex.nudge()
        await wait.event.wait()
        while ex.journal.replaying:  # noqa: ASYNC110 - replaying ends with some call of the run's, not with an event
            await anyio.sleep(0.01)
    finally:
        ex.waits.remove(wait)
    ex.journal.note(EntryKind.ERROR, key, {"kind": "TimeoutError", "message": ""})
    limit.struck = True
    limit.scope.cancel()


def _reraise(group: BaseExceptionGroup[Any], limit: TimeLimit) -> None:
    """What came out of the block, without the task group's wrapping."""
    inner = [e for e in group.exceptions if not (isinstance(e, Interrupted) and e.limit is limit)]
    if len(inner) == 1:
        raise inner[0]
    if inner:
        raise group
