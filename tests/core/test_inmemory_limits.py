from __future__ import annotations

import pytest

from agentkit.inmemory.limits import InMemoryLimits
from agentkit.testing.clock import FakeClock
from agentkit.testing.limits import LimitsContract


class TestInMemoryLimits(LimitsContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> InMemoryLimits:
        return InMemoryLimits(clock)
