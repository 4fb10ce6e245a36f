"""`Secret`: in a room of its own, for pydantic takes long to load what it is made of."""

from __future__ import annotations

from typing import Generic, TypeVar

import pydantic

T = TypeVar("T")


class Secret(pydantic.Secret[T], Generic[T]):
    """A value that a step or tool may use (`get_secret_value()`) and nobody may write down: `Secret[str]`.

    A fingerprint and a journal know it by its type, a text shows stars. A step cannot return one.
    """
