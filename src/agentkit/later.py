"""Rooms that are loaded when they are first used: all of them at once would make `import agentkit` half as slow again."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Later:
    """A module that is loaded when something of it is asked for. For type checkers it is imported under `TYPE_CHECKING`."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)
