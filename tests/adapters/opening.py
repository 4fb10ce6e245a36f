"""Stores that are open as long as a block lasts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar
from uuid import uuid4

from agentkit_sql import Sql, SqlRuns

IMPATIENT = "statement_timeout_s=0.5&idle_in_transaction_s=0.5"
"""A server that ends what blocks others within half a second."""
HASTY = "statement_timeout_s=1&idle_in_transaction_s=1"
"""The same on MariaDB, which counts whole seconds."""


class Openable(Protocol):
    """An adapter of any port."""

    async def open(self) -> None: ...

    async def aclose(self) -> None: ...


S = TypeVar("S", bound=Openable)


def with_options(url: str, *options: str) -> str:
    """A URL, with more options than it had."""
    given = "&".join(filter(None, options))
    return f"{url}{'&' if '?' in url else '?'}{given}" if given else url


@asynccontextmanager
async def opened(store: S) -> AsyncGenerator[S]:
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


def connected(url: str, options: str = "") -> AbstractAsyncContextManager[SqlRuns]:
    """A run store with connections of its own, as another process has them."""
    own = f"max_depth={uuid4().int % 1_000_000 + 1}"
    return opened(Sql(with_options(url, own, options)).runs)
