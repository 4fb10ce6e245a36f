"""Where the function of a tool runs: in the event loop, on a thread, or in a process of its own."""

from __future__ import annotations

from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio.to_thread

from agentkit.agents.process import in_a_process
from agentkit.durable.execution import current_execution

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

Executor = Literal["async", "thread", "process"]
Run: TypeAlias = "Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Coroutine[Any, Any, Any]]"


async def in_the_loop(fn: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """A plain function called so must not block."""
    value = fn(*args, **named)
    return await value if isawaitable(value) else value


async def on_a_thread(fn: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any], *, abandon: bool) -> Any:
    """A thread cannot be stopped: a cancelled call leaves it to itself, if it is free of effects; else the call ends with it."""
    execution = current_execution.get()
    limiter = None if execution is None else execution.host.threads
    return await anyio.to_thread.run_sync(partial(fn, *args, **named), abandon_on_cancel=abandon, limiter=limiter)


def executor_of(tool: str, fn: Callable[..., Any], asked: Executor | None, *, context: bool, effect: bool) -> Run:
    """How to call the function. Raises TypeError for what cannot run there."""
    is_async = iscoroutinefunction(fn)
    kind: Executor = asked or ("async" if is_async else "thread")
    if is_async and kind != "async":
        raise TypeError(f"tool {tool!r}: an async function runs in the event loop, not under executor={kind!r}; make it a plain one")
    if kind == "async":
        return in_the_loop
    if kind == "thread":
        return partial(on_a_thread, abandon=not effect)
    if context:
        raise TypeError(f"tool {tool!r}: a StepContext does not reach another process; take what it needs as arguments")
    if "<" in fn.__qualname__:
        raise TypeError(f"tool {tool!r}: another process cannot import {fn.__qualname__}; define it at the top of a module")
    return partial(in_a_process, tool)
