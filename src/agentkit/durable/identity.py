"""Who a step is: the key that finds it in the journal, and the fingerprint that tells whether it is still the same call.

A key is the path of scopes, the name, and `#ordinal` or `=key`: `extract#1`, `gather#1/2/fetch#1`, `review=sku-17`. The ordinal is
taken when the verb is called, and only by the task that owns the scope: child tasks start in random order on trio, and overtake
each other on asyncio, so ordinals taken inside them would differ between replays.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from agentkit.errors import AmbiguousStep

PREVIEW_BYTES = 200  # enough to see which call it was; a digest alone cannot show both sides of a mismatch
DIGEST_CHARS = 16


class Scope:
    """A namespace of step names, owned by one task."""

    __slots__ = ("counts", "keys", "owner", "path")

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


current_scope: ContextVar[Scope | None] = ContextVar("agentkit_scope", default=None)
"""The scope that the body of the running step opens for steps nested in it."""


def short_name(key: str) -> str:
    """`file` of `a#1/file#1` and of `file=17`: what people type when it is unique."""
    return key.rpartition("/")[2].partition("#")[0].partition("=")[0]


_PLAIN: tuple[tuple[type | tuple[type, ...], Callable[[Any], object]], ...] = (
    (BaseModel, lambda v: v.model_dump(mode="json")),
    (enum.Enum, lambda v: v.value),
    ((datetime, date, time), lambda v: v.isoformat()),
    (timedelta, lambda v: v.total_seconds()),
    ((bytes, bytearray), lambda v: hashlib.blake2b(v, digest_size=8).hexdigest()),
    (AbstractSet, lambda v: sorted(map(str, v))),
    ((PurePath, UUID, Decimal), str),
)


def _plain(value: object) -> object:
    """What stands for a value in a fingerprint. Secrets and objects of the app by their type: their content is not the call's identity."""
    if hasattr(value, "get_secret_value"):  # pydantic's secrets; naming their types would import half of it
        return f"<{type(value).__name__}>"
    for types, plain in _PLAIN:
        if isinstance(value, types):
            return plain(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    return f"<{type(value).__qualname__}>"


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain).encode
_encode_unsorted = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=_plain).encode


def fingerprint(name: str, function: str, args: object) -> str:
    """Digest of the name and the arguments as canonical JSON, then the function's name (not hashed) and a preview."""
    try:
        text = _encode(args)
    except TypeError:  # keys of mixed types have no order
        text = _encode_unsorted(args)
    digest = hashlib.blake2b(f"{name} {text}".encode("utf-8", "surrogatepass"), digest_size=DIGEST_CHARS // 2).hexdigest()
    # Cut by bytes, and without half surrogates, which no store could hold.
    shown = text[:PREVIEW_BYTES] if text.isascii() else text.encode("utf-8", "ignore")[:PREVIEW_BYTES].decode("utf-8", "ignore")
    return f"{digest} {function} {shown}"


def same_call(recorded: str, asked: str) -> bool:
    """Whether two fingerprints name the same call. An empty one was never taken and fits all."""
    return not recorded or not asked or recorded[:DIGEST_CHARS] == asked[:DIGEST_CHARS]


def preview(fp: str) -> str:
    """The readable half of a fingerprint."""
    return fp[DIGEST_CHARS + 1 :] or "(nothing)"
