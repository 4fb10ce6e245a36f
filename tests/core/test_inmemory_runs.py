"""The in-memory run store keeps the laws of the port, and what is its own: threads, waiting, URLs."""

from __future__ import annotations

import pytest

from agentkit.inmemory.runs import InMemoryRuns
from agentkit.testing.clock import FakeClock
from agentkit.testing.runs import RunStoreContract


class TestInMemoryRuns(RunStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> InMemoryRuns:
        return InMemoryRuns(clock)
