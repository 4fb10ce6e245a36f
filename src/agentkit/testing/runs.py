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
from agentkit.testing.runs_listing import ListingLaws, PurgeLaws
from agentkit.testing.runs_ownership import OwnershipLaws
from agentkit.testing.runs_recovery import TakeOverLaws, TicketLaws, TimerLaws
from agentkit.testing.runs_signals import CancelLaws, ChangeLaws, SignalLaws
from agentkit.testing.runs_write import WriteLaws


class RunStoreContract(
    CreationLaws,
    OwnershipLaws,
    WriteLaws,
    SignalLaws,
    CancelLaws,
    ChangeLaws,
    ChildrenLaws,
    TakeOverLaws,
    TimerLaws,
    TicketLaws,
    ListingLaws,
    PurgeLaws,
):
    """Every law of a run store. Needs the fixture `store`: an open, empty one with the time of `clock`.

    Override `second` with another client of the same storage where there can be one, and `reopen` where the store is `durable`: a call
    that closes `store` and opens its storage anew. A store that keeps a server's time overrides `advance` with a real sleep.
    """
