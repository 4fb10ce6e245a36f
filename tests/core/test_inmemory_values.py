from __future__ import annotations

import pytest

from agentkit.inmemory.values import InMemoryValues
from agentkit.testing.clock import FakeClock
from agentkit.testing.values import ValuesContract


class TestInMemoryValues(ValuesContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> InMemoryValues:
        return InMemoryValues(clock)
