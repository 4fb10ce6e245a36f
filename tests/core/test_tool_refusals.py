"""What cannot be a tool is refused where it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentkit import NotSerialisable, StepContext, tool


class Bank:
    """No result of a step: pydantic knows no schema of it."""


def no_types(a, b=1): ...  # type: ignore[no-untyped-def]
def any_arguments(**options: int) -> None: ...
def anything(value: Any) -> None: ...
def a_mapping(values: dict[str, int]) -> None: ...
async def asynchronous(n: int) -> None: ...
def with_context(step: StepContext, n: int) -> None: ...
def underscored(_n: int) -> None: ...


WRONG: list[tuple[Callable[..., object], dict[str, Any], str]] = [
    (no_types, {}, "parameter 'a': needs a type"),
    (any_arguments, {}, "parameter 'options': a model must be told of each argument"),
    (anything, {}, "argument value: it may be anything; name its type"),
    (a_mapping, {}, "argument values: a mapping with any keys cannot be described; use a model, or a list of pairs"),
    (asynchronous, {"executor": "thread"}, "an async function runs in the event loop, not under executor='thread'"),
    (asynchronous, {"executor": "process"}, "an async function runs in the event loop"),
    (with_context, {"executor": "process"}, "a StepContext does not reach another process"),
    (lambda: None, {}, "a name has 1 to 64 letters"),
    (asynchronous, {"name": "pay back"}, "a name has 1 to 64 letters"),
    (underscored, {}, "must not start with an underscore"),
]


@pytest.mark.parametrize(("fn", "options", "problem"), WRONG)
def test_what_no_model_could_call_is_refused_where_it_is_written(fn: Callable[..., object], options: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        tool(**options)(fn)


def test_a_result_that_could_not_be_kept_is_refused_where_the_tool_is_written() -> None:
    async def connect() -> Bank:
        return Bank()

    with pytest.raises(NotSerialisable, match="result type of tool 'connect'"):
        tool(connect)


def test_a_function_that_another_process_cannot_import_is_refused() -> None:
    def local(n: int) -> int:
        return n

    with pytest.raises(TypeError, match=r"another process cannot import .*<locals>\.local"):
        tool(executor="process")(local)
