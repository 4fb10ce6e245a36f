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

from agentkit.testing.runs_children import ChildrenLaws
from agentkit.testing.runs_creation import CreationLaws
from agentkit.testing.runs_ownership import OwnershipLaws
from agentkit.testing.runs_signals import CancelLaws, ChangeLaws, SignalLaws
from agentkit.testing.runs_write import WriteLaws


class RunStoreContract(CreationLaws, OwnershipLaws, WriteLaws, SignalLaws, CancelLaws, ChildrenLaws, ChangeLaws):
    """x"""
