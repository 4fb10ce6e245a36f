"""The form in which a model is asked for a plan: one variant for each tool and agent, with its arguments as named fields.

So no part of the schema is open: a server that holds answers strictly accepts it (`agentkit.inference.schema.closed` writes it as those
want it), and a model cannot name a tool that does not exist. What validates is made of plain `PlanStep`s.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, Union

from pydantic import AfterValidator, BaseModel, Field, SerializeAsAny, create_model
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from agentkit.plan.steps import Op, PlanStep, Written
from agentkit.plan.uses import Use

Scalar: TypeAlias = str | bool | int | float | None


class _Ref(Written):
    """The result of another step, or a part of it."""

    ref: str = Field(description="id of a step, or a part of its result: 'hotel.price', 'flights.0.id'")


class _When(Written):
    """Skip the step unless this holds."""

    ref: str = Field(description="id of a step, or a part of its result")
    op: Op = "eq"
    value: Scalar | list[Scalar] = None


def steps_for(uses: Mapping[str, Use]) -> Any:
    """The type of `steps` in a plan that uses nothing else. Raises `ValueError` without any tool or agent."""
    if not uses:
        raise ValueError("a plan needs something to use: give schema_for(tools=[…]) or agents=[…]")
    tools = tuple(name for name, use in uses.items() if not use.is_agent)
    variants = tuple(_variant(use, tools) for use in uses.values())
    chosen: Any = variants[0] if len(variants) == 1 else Annotated[Union[variants], Field(discriminator="use")]  # noqa: UP007
    return list[Annotated[SerializeAsAny[chosen], AfterValidator(_plain)]]


def _variant(use: Use, tools: tuple[str, ...]) -> type[BaseModel]:
    undo: Any = Union[Literal[tools], None] if tools else None  # noqa: UP007
    fields: dict[str, Any] = {
        "id": (str, Field(description="short and unique: letters, digits, '_' and '-'")),
        "use": (Literal[use.name], ...),
        "args": (_arguments(use), ...),
        "after": (list[str], Field(default=[], description="ids of steps that must have ended before, beside those referred to")),
        "when": (_When | None, None),
        "attempts": (int, 1),
        "undo": (undo, Field(default=None, description="the tool that takes the step back, instead of the tool's own undo")),
    }
    return create_model(f"Use_{_word(use.name)}", __base__=Written, __doc__=use.description or None, **fields)


def _arguments(use: Use) -> type[BaseModel]:
    fields: dict[str, Any] = {name: _field(field) for name, field in use.arguments.model_fields.items()}
    return create_model(f"Args_{_word(use.name)}", __base__=Written, **fields)


def _field(field: FieldInfo) -> tuple[Any, Any]:
    """A reference is tried first: a mapping might take its form for one of its own values."""
    declared: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    parts: list[Any] = [_Ref, declared]
    if typing.get_origin(field.annotation) is list:
        either: Any = Union[_Ref, typing.get_args(field.annotation)[0]]  # noqa: UP007
        parts.append(list[either])
    default: Any = ... if field.is_required() else field.get_default(call_default_factory=True)
    return Union[tuple(parts)], Field(default, description=field.description, union_mode="left_to_right")  # noqa: UP007


def _word(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _plain(step: BaseModel) -> PlanStep:
    """A step of the closed form as the plain one; arguments that were not given stay away."""
    return PlanStep.model_validate(to_jsonable_python(step.model_dump(exclude_unset=True)))
