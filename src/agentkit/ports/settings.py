"""Settings from a URL: what it says in its places, and the options after its `?`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from agentkit.errors import InvalidSetting, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

S = TypeVar("S", bound=BaseModel)


def settings_from(
    model: type[S], placed: Mapping[str, Any], options: Mapping[str, Any], scheme: str, *, in_place: Collection[str] = ()
) -> S:
    """An adapter's settings. Raises `InvalidSetting` naming the option that is wrong.

    Args:
        placed: fields by what the URL says in its places.
        options: fields by what stands after its `?`.
        scheme: for errors.
        in_place: the fields that are no options, where they are more than `placed`.
    """
    known = {field.alias or name for name, field in model.model_fields.items()} - set(in_place or placed)
    for name, value in options.items():
        if name not in known:
            raise InvalidSetting(name, value, f"no option of {scheme}:// (known: {', '.join(sorted(known))}){nearest(name, known)}")
    try:
        return model.model_validate({**placed, **options})
    except ValidationError as exc:
        fault = exc.errors()[0]
        name = str(fault["loc"][0]) if fault["loc"] else "url"
        raise InvalidSetting(name, {**placed, **options}.get(name, fault["input"]), fault["msg"]) from exc
