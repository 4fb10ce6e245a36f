"""What a plan is written in: steps, references to results, conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

Op = Literal["eq", "ne", "lt", "gt", "in", "empty", "not_empty"]


class Written(BaseModel):
    """The base of what a plan is written in: closed, and not changed once it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Ref(Written):
    """The result of an earlier step, or a part of it: `hotel`, `hotel.price`, `flights.0.id`."""

    ref: str


class When(Written):
    """A condition on the result of an earlier step: the step is skipped where it does not hold. Data, never an expression."""

    ref: str
    op: Op = "eq"
    value: JsonValue = None


def _as_json(given: Any) -> Any:
    """An argument with each reference that lies deeper in it as the plain data that it is."""
    if isinstance(given, dict):
        return {name: _plain(part) for name, part in cast("dict[str, Any]", given).items()}
    return [_plain(part) for part in cast("list[Any]", given)] if isinstance(given, list | tuple) else given


def _plain(part: Any) -> Any:
    return {"ref": part.ref} if isinstance(part, Ref) else _as_json(part)


Deep: TypeAlias = JsonValue | Sequence[JsonValue | Ref] | Mapping[str, JsonValue | Ref]
Value: TypeAlias = Annotated[Ref | Deep, Field(union_mode="left_to_right"), BeforeValidator(_as_json)]
"""An argument. A reference is tried first, for it is JSON too."""


class PlanStep(Written):
    """One call of a tool or an agent.

    Args:
        id: what other steps refer to: letters, digits, `_` and `-`.
        use: the name of a tool or an agent.
        args: arguments by name; an agent has one, `input`. `{"ref": "hotel.price"}` stands for the result of another step, at any depth.
        after: steps that must have ended before, beside those that are referred to.
        when: skip the step unless this holds.
        attempts: how often the call is made until it succeeds.
        undo: the tool that takes the step back, instead of the tool's own undo. It is given the arguments of this step that it names,
            and `result`.
    """

    id: str
    use: str
    args: dict[str, Value] = {}
    after: list[str] = []
    when: When | None = None
    attempts: int = 1
    undo: str | None = None


def refs_of(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each reference inside an argument, as (path to it, what it refers to)."""
    if (ref := as_ref(value)) is not None:
        yield path, ref
    elif isinstance(value, dict):
        for name, part in cast("dict[str, object]", value).items():
            yield from refs_of(part, (*path, name))
    elif isinstance(value, list):
        for i, part in enumerate(cast("list[object]", value)):
            yield from refs_of(part, (*path, str(i)))


def as_ref(value: object) -> str | None:
    """What a value refers to, or None when it is no reference."""
    if isinstance(value, Ref):
        return value.ref
    if isinstance(value, dict) and list(cast("dict[object, object]", value)) == ["ref"]:
        ref = cast("dict[str, object]", value)["ref"]
        return ref if isinstance(ref, str) else None
    return None


def target_of(ref: str) -> str:
    """The step that a reference refers to."""
    return ref.partition(".")[0]


def needs_of(step: PlanStep) -> list[str]:
    """The steps whose results it needs, in the order in which they are named."""
    found = [target_of(ref) for value in step.args.values() for _, ref in refs_of(value)]
    return list(dict.fromkeys(found + ([target_of(step.when.ref)] if step.when else [])))


def comes_after(step: PlanStep) -> list[str]:
    """The steps that must have ended before it."""
    return list(dict.fromkeys([*step.after, *needs_of(step)]))
