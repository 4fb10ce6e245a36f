"""The laws of the `RunStore` port as tests. An adapter's test file is a subclass with one fixture:

class TestMyRuns(RunStoreContract):
    @pytest.fixture
    async def store(self, clock):
        store = MyRuns(clock=clock)
        await store.open()
        yield store
        await store.aclose()
"""

from __future__ import annotations

from agentkit.testing.runs_creation import CreationLaws


class RunStoreContract(CreationLaws):
    """x"""
