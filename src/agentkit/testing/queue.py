"""The laws of the `Queue` port as tests. An adapter's test file is a subclass with one fixture:

class TestMyQueue(QueueContract):
    @pytest.fixture
    async def queue(self, clock):
        queue = MyQueue(clock=clock, max_depth=self.max_depth)
        await queue.open()
        yield queue
        await queue.aclose()
"""

from __future__ import annotations

from agentkit.testing.queue_delivery import DeliveryLaws
from agentkit.testing.queue_order import OrderLaws


class QueueContract(DeliveryLaws, OrderLaws):
    """Every law of a queue. Needs the fixture `queue`: an open, empty one with `max_depth=self.max_depth` and the time of `clock`.

    Override `second` with another client of the same queue where there can be one. `supports_keys`, `supports_delay` and `holds_leases`
    say what the adapter offers: laws about the rest are skipped, and the report says so.
    """
