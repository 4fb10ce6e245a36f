"""What the tests of limits share."""

from __future__ import annotations

import pytest

from agentkit.ports.limits import LimitStore
from agentkit.testing.contract import Contract


class LimitsBase(Contract):
    @pytest.fixture
    def second(self, store: LimitStore) -> LimitStore:
        """Another client of the same store, as another process would have it."""
        return store
