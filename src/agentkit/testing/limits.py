"""The laws of the `LimitStore` port as tests. An adapter's test file is a subclass with one fixture:

class TestMyLimits(LimitsContract):
    @pytest.fixture
    async def store(self, clock):
        store = MyLimits(clock)
        await store.open()
        yield store
        await store.aclose()
"""

from __future__ import annotations

from agentkit.testing.limits_buckets import BucketLaws
from agentkit.testing.limits_semaphores import SemaphoreLaws


class LimitsContract(SemaphoreLaws, BucketLaws):
    """Every law of a limit store. Needs the fixture `store`: an open, empty one with the time of `clock`.

    Override `second` with another client of the same store where there can be one.
    """
