"""Names of queues: `agents__digest__1` holds what waits for version 1 of `digest`, and `agents__digest__1__dead` what was given up.

SQS lets nobody ask for some of a queue's messages, so each version of an agent has a queue of its own: a worker is given what it
serves and nothing else, and each pool is scaled by its own depth. What SQS allows in no name is written as `_` and two hexadecimal
digits for each byte; `__` never stands inside of a part, so a name can be read back.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agentkit.errors import InvalidKey

MAX_CHARS = 80  # of a name in SQS
DEAD = "__dead"

_PLAIN = re.compile(r"[A-Za-z0-9-]")
_CODED = re.compile(r"((?:_[0-9a-f]{2})+)")


class Place(NamedTuple):
    """A queue of this deployment."""

    served_by: str
    dead: bool


def live(prefix: str, served_by: str) -> str:
    """The queue of a `name@version`. Raises `InvalidKey` where that is longer than SQS allows."""
    agent, _, version = served_by.rpartition("@")
    name = f"{prefix}__{_coded(agent)}__{_coded(version)}"
    if len(name + DEAD) > MAX_CHARS:
        raise InvalidKey(served_by, f"its queue {name + DEAD!r} would have more than {MAX_CHARS} characters: shorten the agent's name")
    return name


def dead(prefix: str, served_by: str) -> str:
    """Where its dead letters lie."""
    return live(prefix, served_by) + DEAD


def place(prefix: str, name: str) -> Place | None:
    """What a queue is for; None: it is none of ours."""
    parts = name.removeprefix(f"{prefix}__").removesuffix(DEAD).split("__")
    if not name.startswith(f"{prefix}__") or len(parts) != 2:
        return None
    return Place("@".join(_decoded(part) for part in parts), name.endswith(DEAD))


def _coded(part: str) -> str:
    return "".join(one if _PLAIN.fullmatch(one) else "".join(f"_{byte:02x}" for byte in one.encode()) for one in part)


def _decoded(part: str) -> str:
    return _CODED.sub(lambda coded: bytes.fromhex(coded[0].replace("_", "")).decode(errors="replace"), part)
