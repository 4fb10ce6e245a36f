"""Values that are used but never written down: known by their type, kept out of journals, logs, spans and the texts of errors.

`Secret`, pydantic's own types and anything else with `get_secret_value` are such values.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, cast

import pydantic

from agentkit.errors import RunError

STARS = "**********"  # as pydantic writes a secret
MAX_DEPTH = 50  # deeper than arguments are that somebody wrote
MIN_CHARS = 4  # a shorter one is found in every text


def secrets_in(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, secret) of each secret inside a value."""
    if path.count("[") > MAX_DEPTH:  # it holds itself
        return
    if hasattr(value, "get_secret_value"):
        yield path, value
    elif isinstance(value, pydantic.BaseModel):
        yield from _in_parts(value.__dict__, path)
    elif isinstance(value, Mapping):
        yield from _in_parts(cast("Mapping[object, Any]", value), path)
    elif isinstance(value, list | tuple | AbstractSet):
        yield from _in_parts(dict(enumerate(cast("list[Any]", value))), path)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _in_parts({field.name: getattr(value, field.name) for field in fields(value)}, path)
    elif isinstance(value, partial):
        yield from secrets_in((value.args, value.keywords), path)


def _in_parts(parts: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, part in parts.items():
        yield from secrets_in(part, f"{path}[{name!r}]")


def without_secrets(error: Exception, *given: object) -> Exception:
    """The error, or one that says the same with stars, where its text holds a secret of what was given to the failed call."""
    words = [word for _, secret in secrets_in(given) if len(word := _text(secret.get_secret_value())) >= MIN_CHARS]
    if not words or not any(word in line for line in traceback.format_exception(error) for word in words):
        return error
    message = error.message if isinstance(error, RunError) else str(error)
    for word in words:
        message = message.replace(word, STARS)
    return RunError(error.kind if isinstance(error, RunError) else type(error).__name__, message)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
