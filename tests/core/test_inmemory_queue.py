"""The in-memory queue keeps the laws of the port, and what is its own: threads, waiting, URLs."""

from __future__ import annotations

import pytest

from agentkit.inmemory.queue import InMemoryQueue
from agentkit.testing.clock import FakeClock
from agentkit.testing.queue import QueueContract


class TestInMemoryQueue(QueueContract):
    @pytest.fixture
    async def queue(self, clock: FakeClock) -> InMemoryQueue:
        return InMemoryQueue(clock, max_depth=self.max_depth)
