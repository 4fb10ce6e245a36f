"""The laws of the queue, on SQS."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TypeVar

import anyio
import pytest

from agentkit.errors import QueueFull
from agentkit.ports.queue import Queue
from agentkit.testing.contract import Advance, race
from agentkit.testing.queue import QueueContract
from agentkit.testing.queue_base import runs, tickets
from agentkit_sqs import SqsQueue, SqsSettings
from tests.adapters.opening import opened

T = TypeVar("T")
DUPLICATES = "SQS standard queues have no dedup: the claim refuses the second ticket"
ORDER = "SQS standard queues are only roughly in order, and a ticket that comes back is put anew"
PRIORITY = "SQS knows no priorities: give what is urgent an agent and so a queue of its own"
SHARES = "SQS shares fairly between tenants by itself (MessageGroupId), which this server does not do"
UNFOUND = "SQS finds no message by what is in it: the claim refuses the ticket of a run that has ended"
BOUND = "the counts of SQS are late, so puts that race may go over the bound"
AGE = "SQS tells no ages: the age is a bound, see test_sqs_decisions"

NOT_HELD = {
    "test_a_batch_is_shared_between_tenants_too": SHARES,
    "test_a_cancelled_lease_takes_nothing_with_it": "what a cancelled request was given comes back with its lease, as a second delivery",
    "test_a_delayed_ticket_is_undelivered_for_dedup_and_cancel": DUPLICATES,
    "test_a_low_ticket_ages_past_a_stream_of_high_ones": PRIORITY,
    "test_a_tenant_gets_its_own_tickets_in_their_order": ORDER,
    "test_a_tenant_of_three_times_the_weight_gets_three_times_the_turns": SHARES,
    "test_a_tenant_that_comes_late_gets_the_turns_of_its_weight_from_then_on": SHARES,
    "test_a_tenant_with_nothing_waiting_saves_no_turns_up": SHARES,
    "test_a_ticket_keeps_its_weight_wherever_it_goes": SHARES,
    "test_a_ticket_whose_copy_still_waits_is_not_put_twice": DUPLICATES,
    "test_a_ticket_whose_lease_ran_out_keeps_its_place_in_the_line": ORDER,
    "test_a_weight_below_one_counts_as_one": SHARES,
    "test_a_put_over_the_bound_is_refused_whole": DUPLICATES,
    "test_cancel_drops_what_is_undelivered_and_nothing_else": UNFOUND,
    "test_depth_tells_the_age_of_the_oldest_undelivered_ticket": AGE,
    "test_higher_priorities_go_first_by_weight": PRIORITY,
    "test_of_ten_thousand_tickets_two_racing_consumers_get_each_once": "SQS gives one twice now and then: none is lost, see below",
    "test_racing_puts_never_go_over_the_bound": BOUND,
    "test_racing_puts_of_one_ticket_leave_one": DUPLICATES,
    "test_tenants_share_the_queue_however_much_one_of_them_put": SHARES,
    "test_tickets_of_one_priority_and_tenant_are_leased_in_the_order_of_their_puts": ORDER,
    "test_what_is_given_back_keeps_its_place_in_the_line": ORDER,
}
"""What SQS cannot promise. The page for operators says the same."""


def without(laws: dict[str, str]) -> Callable[[type[T]], type[T]]:
    """Leave these tests out of a suite."""

    def drop(suite: type[T]) -> type[T]:
        for name in laws:
            assert callable(getattr(suite, name)), f"no such law: {name}"
            setattr(suite, name, None)
        return suite

    return drop


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@without(NOT_HELD)
class TestSqsQueue(QueueContract):
    supports_keys = False
    lease_s = 2.0  # SQS counts in whole seconds
    max_depth = 120  # this server takes milliseconds for a message

    @pytest.fixture
    def advance(self) -> Advance:
        """SQS keeps its own time. What the suite loses between two steps is made up for in the next, so that both times pass alike."""
        due = 0.0

        async def sleep(seconds: float) -> None:
            nonlocal due
            now = time.monotonic()
            due = (due if now - due < self.lease_s / 4 else now) + seconds
            await anyio.sleep(max(0.0, due - now))

        return sleep

    @pytest.fixture
    async def queue(self, sqs_url: str) -> AsyncIterator[Queue]:
        async with opened(self.client(sqs_url)) as queue:
            yield queue

    @pytest.fixture
    async def second(self, queue: Queue, sqs_url: str) -> AsyncIterator[Queue]:
        async with opened(self.client(sqs_url)) as other:
            yield other

    def client(self, url: str) -> SqsQueue:
        return SqsQueue(SqsSettings.from_url(f"{url}&max_depth={self.max_depth}"))

    async def test_of_many_tickets_two_racing_consumers_lose_none(self, queue: Queue, second: Queue) -> None:
        sent = await self.fill(queue, self.max_depth)

        async def consume(client: Queue) -> list[str]:
            got: list[str] = []
            while batch := await self.take(client, 25, lease_s=30.0):
                assert all(await client.finish(batch))
                got += runs(batch)
            return got

        outcomes = await race(partial(consume, queue), partial(consume, second))
        assert {run_id for got in outcomes if isinstance(got, list) for run_id in got} == {each.run_id for each in sent}

    async def test_a_put_over_the_bound_is_refused_and_nothing_of_it_is_written(self, queue: Queue, second: Queue) -> None:
        await self.fill(queue, self.max_depth - 1)
        with pytest.raises(QueueFull) as refused:
            await second.put(tickets(2, tenant="late"))
        assert (refused.value.limit, refused.value.retry_after_s > 0) == (self.max_depth, True)
        assert (await self.depth_of(queue)).ready == self.max_depth - 1
        await second.put(tickets(1, tenant="last"))
