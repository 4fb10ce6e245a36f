"""What a plan may use: tools as they are, and agents as if they were tools of one argument."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from inspect import cleandoc
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, create_model

INPUT = "input"  # the one argument of an agent


class Usable(Protocol):
    """What a plan must know of a tool."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def effect(self) -> str | None: ...

    @property
    def arguments(self) -> type[BaseModel]: ...

    @property
    def returns(self) -> Any: ...

    @property
    def has_undo(self) -> bool: ...


class UsableAgent(Protocol):
    """What a plan must know of an agent's class."""

    name: str
    input_type: Any
    output_type: Any


class Use(NamedTuple):
    """A tool or an agent by its name. `effect` None: it can be repeated, and there is nothing to take back."""

    name: str
    description: str
    arguments: type[BaseModel]
    returns: Any
    effect: str | None
    has_undo: bool
    is_agent: bool


def uses_of(tools: Iterable[Usable], agents: Iterable[Any]) -> dict[str, Use]:
    """By name. Raises `ValueError` when two have the same."""
    made: dict[str, Use] = {}
    for use in [*map(_tool, tools), *map(_agent, agents)]:
        if use.name in made:
            raise ValueError(f"two of a plan's tools and agents are named {use.name!r}: a plan would not tell them apart")
        made[use.name] = use
    return made


def _tool(tool: Usable) -> Use:
    return Use(tool.name, tool.description, tool.arguments, tool.returns, tool.effect, tool.has_undo, is_agent=False)


@lru_cache(maxsize=256)  # making a model takes a millisecond, and a plan is checked in each replay
def _agent(agent: UsableAgent) -> Use:
    arguments = create_model(f"{agent.name} input", __config__=ConfigDict(extra="forbid"), input=(agent.input_type, ...))
    said = cleandoc(getattr(agent, "__doc__", None) or "")
    return Use(agent.name, said, arguments, agent.output_type, None, has_undo=False, is_agent=True)
