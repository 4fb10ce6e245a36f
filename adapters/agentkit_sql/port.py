"""What the adapters of all ports have in common: settings from a URL, and a database that is opened and closed with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio
from pydantic import BaseModel, ConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidSetting, StoreUnavailable
from agentkit_sql.news import OTHER

if TYPE_CHECKING:
    from agentkit.clock import Clock
    from agentkit_sql.dialect import Dialect, Work

T = TypeVar("T")
S = TypeVar("S", bound="SqlSettings")


POOL, LANE, BEAT = "", "lane", "beat"
"""Whose connection to a server: LANE and BEAT have one each, so that neither waits behind anything else."""


class Store(Protocol):
    """A database that is open, and who waits for its changes."""

    async def read(self, work: Work[T]) -> T:
        """Run a script that changes nothing."""
        ...

    async def write(self, work: Work[T], *, sync: bool, topic: str = OTHER, line: str = POOL) -> T:
        """Run a script in a transaction; with `sync` it survives a power cut when this returns.

        Args:
            work: makes the script.
            sync: whether to wait for the disk.
            topic: whose waiters are told, `RUNS` or `QUEUE`.
            line: whose connection it takes, `LANE`, `BEAT` or one of the `POOL`.
        """
        ...

    def note(self, topic: str) -> None:
        """Tell those who wait for a change."""
        ...

    def token(self, topic: str) -> int:
        """What `changed` compares with, as it is now."""
        ...

    async def changed(self, topic: str, seen: int, timeout_s: float) -> int:
        """Wait until something about `topic` may have changed since `seen`, or the time is up; returns the new token."""
        ...

    async def detach(self) -> None:
        """Close it with its last user."""
        ...


class SqlSettings(BaseModel):
    """What may stand in a URL: each kind of database has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_depth: int

    @property
    def store(self) -> str:
        """What errors call the database: no secret is in it."""
        raise AssertionError("each kind of database says it")

    @property
    def min_lease_s(self) -> float:
        """The shortest lease under which a slow but living worker is never taken for dead."""
        raise AssertionError("each kind of database says it")

    def dialect(self, clock: Clock) -> Dialect:
        """How this database says what the scripts need."""
        raise AssertionError("each kind of database says it")

    def names(self, url: URL) -> bool:
        """Whether a URL, of an engine of the application's own, leads to this database."""
        raise AssertionError("each kind of database says it")

    async def attach(self, clock: Clock) -> Store:
        """Connect and migrate, or share what is open. Each call needs its `detach`."""
        raise AssertionError("each kind of database says it")


def parsed(url: str, forms: str) -> URL:
    """A URL in its parts. Raises `InvalidSetting`; `forms` says how to write it right."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as exc:
        raise InvalidSetting("url", url, f"not a URL; write {forms}") from exc


class SqlPort:
    """The adapter of a port: a database that is opened and closed with it."""

    def __init__(self, settings: SqlSettings, clock: Clock = SYSTEM) -> None:
        self.settings, self.clock = settings, clock
        self._opened: list[Store] = []

    @property
    def database(self) -> Store:
        """The open database. Raises `StoreUnavailable` before `open`."""
        if not self._opened:
            raise StoreUnavailable(self.settings.store, "it is not open: use it between open() and aclose()")
        return self._opened[-1]

    async def open(self) -> None:
        """Connect and migrate. May be called more than once; each call needs its `aclose`."""
        self._opened.append(await self.settings.attach(self.clock))

    async def aclose(self) -> None:
        """Disconnect with the last of its kind."""
        if self._opened:
            with anyio.CancelScope(shield=True):
                await self._opened.pop().detach()
