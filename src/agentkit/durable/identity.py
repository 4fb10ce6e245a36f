"""Who a step is: the key that finds it in the journal, and the fingerprint that tells whether it is still the same call.

A key is the path of scopes, the name, and `#ordinal` or `=key`: `extract#1`, `gather#1/2/fetch#1`, `review=sku-17`. The ordinal is
taken when the verb is called, and only by the task that owns the scope: child tasks start in random order on trio, and overtake
each other on asyncio, so ordinals taken inside them would differ between replays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, Protocol, cast

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from agentkit.errors import AmbiguousStep

PREVIEW_BYTES = 200  # enough to see which call it was; a digest alone cannot show both sides of a mismatch
DIGEST_CHARS = 16


class Scope:
    """A namespace of step names, owned by one task."""

    __slots__ = ("counts", "owner", "path")

    def __init__(self, path: str, owner: object) -> None:
        self.path, self.owner = path, owner
        self.counts: dict[str, int] = {}

    def take(self, name: str, key: str | None, task: object) -> str:
        """The key of the next call of `name`. Without a key of its own: raises `AmbiguousStep` from a task that does not own the scope."""
        if key is not None:
            return f"{self.path}{name}={key}"
        if self.owner is not task:
            if self.owner is not None:
                raise AmbiguousStep(
                    self.path + name, "called from a task that does not own this scope, so its order could differ in a replay"
                )
            self.owner = task
        n = self.counts.get(name, 0) + 1
        self.counts[name] = n
        return f"{self.path}{name}#{n}"


class Nesting(Protocol):
    """A step whose body runs."""

    def inside(self) -> Scope:
        """The scope of the steps that it takes."""
        ...


current_scope: ContextVar[Nesting | None] = ContextVar("agentkit_scope", default=None)
"""The step whose body runs here: what it calls is named under it."""


def short_name(key: str) -> str:
    """`file` of `a#1/file#1` and of `file=17`: what people type when it is unique."""
    return key.rpartition("/")[2].partition("#")[0].partition("=")[0]


_SCALARS = frozenset({str, int, float, bool, type(None)})


def _canonical(value: Any) -> Any:
    """The value with every order that could differ between processes settled: keys of mappings, elements of sets.

    Secrets, and objects that JSON does not know, stand there by their type: their content is not the call's identity.
    """
    kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]  a cast here is a twentieth of a fingerprint
    if kind in _SCALARS:
        return value
    if kind is dict:
        settled: dict[object, object] = {}
        try:
            keys = sorted(value)
        except TypeError:  # keys of mixed types
            keys = sorted(value, key=str)
        for key in keys:
            part = value[key]
            settled[key] = part if type(part) in _SCALARS else _canonical(part)
        return settled
    if kind is list or kind is tuple:
        return value if _SCALARS.issuperset(map(type, value)) else [_canonical(part) for part in value]
    return _canonical_object(value)


def _canonical_object(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _canonical(part) for name, part in value.__dict__.items()}
    if isinstance(value, AbstractSet):
        return sorted(map(str, cast("AbstractSet[object]", value)))
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _canonical(getattr(value, f.name)) for f in fields(value)}
    return _by_type(value) if hasattr(value, "get_secret_value") else value


def _by_type(value: object) -> str:
    return f"<{type(value).__qualname__}>"


def fingerprint(name: str, function: str, args: object) -> str:
    """Digest of the name and the arguments as canonical JSON, then the function's name (not hashed) and a preview."""
    canonical = _canonical(args)
    try:
        text = to_json(canonical, fallback=_by_type, bytes_mode="base64", inf_nan_mode="constants")
    except PydanticSerializationError:  # half surrogates, which no store could hold either
        text = json.dumps(canonical, default=_by_type).encode()
    made = _begun(name).copy()
    made.update(text)
    return f"{made.hexdigest()[:DIGEST_CHARS]} {function} {text[:PREVIEW_BYTES].decode('utf-8', 'ignore')}"


@lru_cache(maxsize=1024)
def _begun(name: str) -> Any:
    """The digest of a call, up to its arguments: a copy is made in less time than a new one is looked up."""
    return hashlib.sha1(name.encode() + b" ", usedforsecurity=False)


def digest(text: bytes) -> str:
    """Tells two calls apart that somebody wrote by mistake, not by malice, and at every step: hence the fastest that Python has."""
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()[:DIGEST_CHARS]


def same_call(recorded: str, asked: str) -> bool:
    """Whether two fingerprints name the same call. An empty one was never taken and fits all."""
    return not recorded or not asked or recorded[:DIGEST_CHARS] == asked[:DIGEST_CHARS]


def preview(fp: str) -> str:
    """The readable half of a fingerprint."""
    return fp[DIGEST_CHARS + 1 :] or "(nothing)"
