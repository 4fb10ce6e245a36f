"""Values to JSON bytes and back, by the type a function or an agent declares.

A step returns `decode(encode(result))` the first time too, so that a replay sees exactly what the first run saw.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isfinite
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from agentkit.durable.secrets import STARS, secrets_in
from agentkit.errors import NotSerialisable

MAX_DEPTH = 200  # where pydantic's own writer gives up
UNWRITTEN = "it is a secret, which is never written down"
MARK = STARS.encode()

_LOOSE: tuple[tuple[Any, type], ...] = ((dict, dict), (dict[str, Any], dict), (list, list), (list[Any], list))
"""Declared types that say nothing of what is inside, and the class of their values."""

_strict = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))


class Codec:
    """How values of one type are stored. Without a type only plain JSON is taken, so that nothing changes shape unseen."""

    __slots__ = ("_adapter", "_dump", "_loose", "_validate", "declared")

    def __init__(self, declared: Any = None) -> None:
        self.declared = declared
        self._adapter: TypeAdapter[Any] | None = None if declared in (None, Any) else TypeAdapter(declared)
        self._loose = next((kind for known, kind in _LOOSE if declared == known), None)
        if self._adapter is not None:
            # What the adapter's own methods call: every result passes here twice, and their keywords cost as much as the work.
            self._dump, self._validate = self._adapter.serializer.to_json, self._adapter.validator.validate_json

    def encode(self, value: Any, what: str) -> bytes:
        """Bytes of JSON. Raises `NotSerialisable` with the path inside the value."""
        try:
            if self._adapter is None:
                return _strict.encode(value).encode()
            # Of a loose one there is nothing to warn of, and the writer asks for its errors at half its price again.
            body = self._dump(value, warnings=False if type(value) is self._loose else "error")
        except (TypeError, ValueError, RecursionError, PydanticSerializationError) as exc:
            path, problem = blame(value)
            raise NotSerialisable(what, path, problem or str(exc)) from exc
        if b"*" in body and MARK in body:  # it would come back as stars; the first question costs half as much, and is enough
            for where, _ in secrets_in(value):
                raise NotSerialisable(what, where, UNWRITTEN)
        return body

    def decode(self, body: bytes, what: str) -> Any:
        """The value again. Raises `NotSerialisable` when the bytes do not fit the declared type."""
        try:
            if self._adapter is None:
                return from_json(body)
            if self._loose is not None and type(found := from_json(body, cache_strings="keys")) is self._loose:
                return found  # the validator would say the same at a third more
            return self._validate(body)
        except (ValidationError, ValueError) as exc:
            raise NotSerialisable(what, *_first_fault(exc)) from exc

    def round_trip(self, value: Any, what: str) -> tuple[bytes, Any]:
        body = self.encode(value, what)
        return body, self.decode(body, what)


PLAIN = Codec()


def _first_fault(exc: Exception) -> tuple[str, str]:
    if not isinstance(exc, ValidationError):
        return "", str(exc)
    fault = exc.errors(include_url=False)[0]
    return "".join(f"[{p!r}]" if isinstance(p, int) else f".{p}" for p in fault["loc"]), fault["msg"]


def fields_of(body: bytes) -> dict[str, Any]:
    """The fields of a small JSON object of our own; none for an empty body."""
    found: dict[str, Any] = from_json(body) if body else {}
    return found


def _parts(value: Any) -> Iterable[tuple[object, Any]]:
    return cast("Iterable[tuple[object, Any]]", value.items() if hasattr(value, "items") else enumerate(value))


def blame(value: Any, path: str = "") -> tuple[str, str]:
    """(path, problem) of the first part that JSON cannot hold; ("", "") when all of it can."""
    if path.count("[") > MAX_DEPTH:
        return path[:80] + "…", f"it is nested more than {MAX_DEPTH} deep, or holds itself"
    if hasattr(value, "get_secret_value"):
        return path, UNWRITTEN
    if isinstance(value, float) and not isfinite(value):
        return path, f"{value} is no number in JSON"
    if isinstance(value, dict | list | tuple):
        faults = (blame(part, f"{path}[{key!r}]") for key, part in _parts(value))
        return next((fault for fault in faults if fault[1]), ("", ""))
    try:
        to_json(value)
    except Exception as exc:  # noqa: BLE001 - whatever a user's own serialiser raises is what is to blame
        return path, str(exc)
    if value is not None and not isinstance(value, str | int | float | bool):
        return path, f"a {type(value).__qualname__} is not plain JSON"
    return "", ""
