"""The suites of the ports on a backend that a URL names. A file of laws is one of each, and the fixture `backend`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from agentkit.ports.limits import LimitStore
from agentkit.ports.queue import Queue
from agentkit.ports.runs import RunStore
from agentkit.ports.values import ValueStore
from agentkit.testing.clock import FakeClock
from agentkit.testing.limits import LimitsContract
from agentkit.testing.queue import QueueContract
from agentkit.testing.runs import RunStoreContract
from agentkit.testing.values import ValuesContract
from tests.adapters.opening import opened, with_options


class Ports(Protocol):
    """All adapters of one backend, as `Sql` and `Redis` have them."""

    @property
    def runs(self) -> RunStore: ...

    @property
    def queue(self) -> Queue: ...

    @property
    def values(self) -> ValueStore: ...

    @property
    def limits(self) -> LimitStore: ...


@dataclass(frozen=True)
class Backend:
    """Where the stores of one test lie, empty at its start."""

    ports: Callable[..., Ports]
    url: str
    own: str
    """An option that matters to nobody: who is given it shares no connection with who is not, as another process shares none."""

    def at(self, clock: FakeClock, *options: str) -> Ports:
        """Adapters with options in their URL."""
        return self.ports(with_options(self.url, *options), clock=clock)


class RunLaws(RunStoreContract):
    @pytest.fixture
    async def store(self, backend: Backend, clock: FakeClock) -> AsyncIterator[RunStore]:
        async with opened(backend.at(clock).runs) as store:
            yield store

    @pytest.fixture
    async def second(self, store: RunStore, backend: Backend, clock: FakeClock) -> AsyncIterator[RunStore]:
        async with opened(backend.at(clock, backend.own).runs) as second:
            yield second

    @pytest.fixture
    async def reopen(self, store: RunStore) -> Callable[[], Awaitable[RunStore]]:
        async def reopened() -> RunStore:
            await store.aclose()
            await store.open()
            return store

        return reopened


class QueueLaws(QueueContract):
    @pytest.fixture
    def bounded(self) -> str:
        return f"max_depth={self.max_depth}"

    @pytest.fixture
    async def queue(self, bounded: str, backend: Backend, clock: FakeClock) -> AsyncIterator[Queue]:
        async with opened(backend.at(clock, bounded).queue) as queue:
            yield queue

    @pytest.fixture
    async def second(self, queue: Queue, bounded: str, backend: Backend, clock: FakeClock) -> AsyncIterator[Queue]:
        async with opened(backend.at(clock, bounded, backend.own).queue) as second:
            yield second


class ValueLaws(ValuesContract):
    @pytest.fixture
    async def store(self, backend: Backend, clock: FakeClock) -> AsyncIterator[ValueStore]:
        async with opened(backend.at(clock).values) as store:
            yield store

    @pytest.fixture
    async def second(self, store: ValueStore, backend: Backend, clock: FakeClock) -> AsyncIterator[ValueStore]:
        async with opened(backend.at(clock, backend.own).values) as second:
            yield second


class LimitLaws(LimitsContract):
    @pytest.fixture
    async def store(self, backend: Backend, clock: FakeClock) -> AsyncIterator[LimitStore]:
        async with opened(backend.at(clock).limits) as store:
            yield store

    @pytest.fixture
    async def second(self, store: LimitStore, backend: Backend, clock: FakeClock) -> AsyncIterator[LimitStore]:
        async with opened(backend.at(clock, backend.own).limits) as second:
            yield second
