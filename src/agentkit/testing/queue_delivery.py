"""Laws of a queue: nothing is lost, nothing is answered by a zombie, nothing is put twice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from agentkit.ports.queue import Lease, Queue, Ticket
from agentkit.testing.contract import Advance, as_time_passes, later, needs, race
from agentkit.testing.queue_base import SERVED, QueueBase, runs, ticket, tickets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ANSWERS: dict[str, Callable[[Queue, list[Lease]], Awaitable[list[bool]]]] = {
    "renew": lambda queue, leases: queue.renew(leases, 1_000_000.0),
    "finish": lambda queue, leases: queue.finish(leases),
    "give_back": lambda queue, leases: queue.give_back(leases),
    "retry": lambda queue, leases: queue.retry(leases, 0.0),
    "bury": lambda queue, leases: queue.bury(leases, "said a zombie"),
}
each_answer = pytest.mark.parametrize("answer", list(ANSWERS))


class DeliveryLaws(QueueBase):
    """At least once, fenced, counted, without doubles."""

    async def test_it_offers_what_its_test_says(self, queue: Queue) -> None:
        offered = (queue.supports_keys, queue.supports_delay, queue.holds_leases)
        assert offered == (self.supports_keys, self.supports_delay, self.holds_leases)

    async def test_it_may_be_opened_again_and_each_opening_is_closed_by_itself(self, queue: Queue) -> None:
        await queue.open()
        await queue.aclose()
        await queue.put([ticket(1)])
        assert runs(await self.take(queue)) == ["run-1"]

    async def test_what_one_client_put_another_leases_as_it_was(self, queue: Queue, second: Queue) -> None:
        key = "order:8" if self.supports_keys else ""
        sent = Ticket("Run é:7", "reviewer", "3", wake=12, tenant="acmé", priority=2, key=key, trace="00-ab-cd-01")
        await queue.put([sent])
        assert [(lease.ticket, lease.deliveries) for lease in await self.take(second)] == [(sent, 1)]

    async def test_a_leased_ticket_is_not_given_to_anybody_else(self, queue: Queue, second: Queue) -> None:
        await queue.put([ticket(1)])
        assert await self.take(queue)
        assert await self.take(second) == []

    async def test_of_ten_thousand_tickets_two_racing_consumers_get_each_once(self, queue: Queue, second: Queue) -> None:
        sent = await self.fill(queue, 10_000)

        async def consume(client: Queue) -> list[Lease]:
            leases: list[Lease] = []
            while batch := await self.take(client, 100):
                assert all(await client.finish(batch))
                leases += batch
                assert len(leases) <= len(sent), "it gives out more than was put"
            return leases

        outcomes = await race(*(partial(consume, client) for client in (queue, second)))
        got = [run_id for leases in outcomes if isinstance(leases, list) for run_id in runs(leases)]
        assert sorted(got) == sorted(each.run_id for each in sent)
        assert await self.take(queue) == []

    async def test_a_lease_gives_no_more_than_was_asked_for(self, queue: Queue) -> None:
        await queue.put(tickets(5))
        assert [len(await self.take(queue, n)) for n in (0, 2, 10)] == [0, 2, 3]

    async def test_a_lease_gives_only_what_the_caller_serves_version_by_version(self, queue: Queue) -> None:
        await queue.put([ticket(3), Ticket("run-4", "reviewer", "4"), Ticket("run-w", "writer", "3")])
        assert await self.take(queue, 10, kinds=set()) == []
        assert runs(await self.take(queue, 10, kinds={"reviewer@4", "nobody@1"})) == ["run-4"]
        assert sorted(runs(await self.take(queue, 10, kinds={"reviewer@3", "writer@3"}))) == ["run-3", "run-w"]

    async def test_a_waiting_lease_is_woken_by_a_put_and_does_not_sit_out_its_wait(
        self, queue: Queue, second: Queue, advance: Advance
    ) -> None:
        async def put_and_take() -> list[list[Lease] | Exception | None]:
            return await race(partial(self.take, queue, 10, wait_s=2 * self.lease_s), partial(later, partial(second.put, [ticket(1)])))

        (leases, _), waited_s = await as_time_passes(advance, self.lease_s / 2, put_and_take)
        assert isinstance(leases, list)
        assert runs(leases) == ["run-1"]
        assert waited_s < self.lease_s / 2

    async def test_a_waiting_lease_comes_back_empty_when_its_wait_is_over(self, queue: Queue, advance: Advance) -> None:
        wait_s = self.lease_s / 2
        leases, waited_s = await as_time_passes(advance, 2 * wait_s, partial(self.take, queue, wait_s=wait_s))
        assert leases == []
        assert waited_s >= wait_s * 0.9

    async def test_a_cancelled_lease_takes_nothing_with_it(self, queue: Queue, advance: Advance) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(self.take, queue, 10, wait_s=self.lease_s))
            await anyio.wait_all_tasks_blocked()
            await queue.put(tickets(3))
            group.cancel_scope.cancel()
        found, _ = await as_time_passes(advance, 1.25 * self.lease_s, partial(self._take_three, queue))
        assert sorted(found) == runs_of_three()

    async def _take_three(self, queue: Queue) -> list[str]:
        found: list[str] = []
        while len(found) < 3:
            found += runs(await self.take(queue, 10, wait_s=self.lease_s, lease_s=100 * self.lease_s))
        return found

    async def test_a_lease_that_ran_out_is_delivered_again_within_a_quarter_lease_more_on_a_silent_queue(
        self, queue: Queue, second: Queue, advance: Advance
    ) -> None:
        needs(self.holds_leases, "holds_leases")
        await queue.put([ticket(1)])
        assert await self.take(queue)
        again, waited_s = await as_time_passes(advance, 1.25 * self.lease_s, partial(self.take, second, wait_s=2 * self.lease_s))
        assert runs(again) == ["run-1"]
        assert waited_s >= 0.9 * self.lease_s

    async def test_every_expired_lease_of_a_dead_consumer_is_delivered_again(self, queue: Queue, second: Queue, advance: Advance) -> None:
        needs(self.holds_leases, "holds_leases")
        await queue.put(tickets(50))
        lost = await self.take(queue, 50)
        await advance(1.25 * self.lease_s)
        assert sorted(runs(await self.take_soon(second, advance, 100))) == sorted(runs(lost))

    async def test_a_renewed_lease_is_not_delivered_again(self, queue: Queue, second: Queue, advance: Advance) -> None:
        needs(self.holds_leases, "holds_leases")
        await queue.put([ticket(1)])
        leases = await self.take(queue)
        for _ in range(4):
            await advance(0.6 * self.lease_s)
            assert await queue.renew(leases, self.lease_s) == [True]
            assert await self.take(second) == []
        assert await queue.finish(leases) == [True]

    async def test_a_finished_ticket_never_comes_back(self, queue: Queue, advance: Advance) -> None:
        await queue.put([ticket(1)])
        assert await queue.finish(await self.take(queue)) == [True]
        await advance(1.5 * self.lease_s)
        assert await self.take(queue) == []
        assert await self.depth_of(queue) == (0, 0, 0, 0, 0.0)

    @each_answer
    async def test_an_answer_of_a_zombie_changes_nothing_and_is_told_so(
        self, queue: Queue, second: Queue, advance: Advance, answer: str
    ) -> None:
        needs(self.holds_leases, "holds_leases")
        await queue.put([ticket(1)])
        zombies = await self.take(queue)
        await advance(1.25 * self.lease_s)
        holders = await self.take_soon(second, advance)
        before = await self.depth_of(queue)
        assert await ANSWERS[answer](queue, zombies) == [False]
        assert (await self.depth_of(queue))[:4] == before[:4] == (0, 0, 1, 0)
        assert await self.take(queue) == []
        assert await second.finish(holders) == [True]

    @each_answer
    async def test_an_answer_of_a_zombie_does_not_lengthen_the_lease_of_another(
        self, queue: Queue, second: Queue, advance: Advance, answer: str
    ) -> None:
        needs(self.holds_leases, "holds_leases")
        await queue.put([ticket(1)])
        zombies = await self.take(queue)
        await advance(1.25 * self.lease_s)
        assert await self.take_soon(second, advance)
        await ANSWERS[answer](queue, zombies)
        await advance(1.25 * self.lease_s)
        assert runs(await self.take_soon(queue, advance)) == ["run-1"]

    @each_answer
    async def test_a_lease_that_was_finished_takes_no_second_answer(self, queue: Queue, answer: str) -> None:
        await queue.put([ticket(1)])
        leases = await self.take(queue)
        assert await queue.finish(leases) == [True]
        assert await ANSWERS[answer](queue, leases) == [False]
        assert await self.take(queue) == []
        assert await queue.dead() == []

    @each_answer
    async def test_a_zombie_has_no_power_over_a_later_copy_of_its_ticket(
        self, queue: Queue, second: Queue, advance: Advance, answer: str
    ) -> None:
        needs(self.holds_leases, "holds_leases")
        await queue.put([ticket(1)])
        zombies = await self.take(queue)
        await advance(1.25 * self.lease_s)
        assert await second.finish(await self.take_soon(second, advance)) == [True]
        await queue.put([ticket(1)])
        later = await self.take(second)
        assert await ANSWERS[answer](queue, zombies) == [False]
        assert await second.finish(later) == [True]

    async def test_of_many_racing_answers_to_one_lease_exactly_one_counts(self, queue: Queue, second: Queue) -> None:
        await queue.put([ticket(1)])
        leases = await self.take(queue)
        ends = [ANSWERS[name] for name in ("finish", "give_back", "retry", "bury")]
        assert (await race(*(partial(end, client, leases) for end in ends for client in (queue, second)))).count([True]) == 1

    async def test_answers_are_told_one_by_one_in_their_order(self, queue: Queue) -> None:
        await queue.put(tickets(4))
        leases = await self.take(queue, 4)
        assert await queue.finish([leases[1], leases[3]]) == [True, True]
        assert await queue.finish(leases) == [True, False, True, False]
        assert await queue.finish([]) == []

    async def test_the_attempts_of_a_ticket_grow_and_never_repeat(self, queue: Queue, advance: Advance) -> None:
        needs(self.holds_leases, "holds_leases")
        attempts: list[int] = []

        async def lease_again() -> list[Lease]:
            leases = await self.take_soon(queue, advance)
            attempts.extend(lease.attempt for lease in leases)
            return leases

        await queue.put([ticket(1)])
        await queue.give_back(await lease_again())
        await queue.retry(await lease_again(), 0.0)
        await lease_again()
        await advance(1.25 * self.lease_s)
        await queue.bury(await lease_again(), "enough")
        await queue.redrive()
        await queue.finish(await lease_again())
        await queue.put([ticket(1)])
        await lease_again()
        assert len(attempts) == 6
        assert attempts == sorted(set(attempts))

    async def test_deliveries_without_an_answer_are_counted(self, queue: Queue, advance: Advance) -> None:
        needs(self.holds_leases, "holds_leases")
        await queue.put([ticket(1)])
        for deliveries in (1, 2, 3):
            assert [lease.deliveries for lease in await self.take_soon(queue, advance)] == [deliveries]
            await advance(1.25 * self.lease_s)

    @pytest.mark.parametrize("answer", ["give_back", "retry"])
    async def test_a_delivery_that_was_given_back_or_is_to_be_retried_does_not_count(
        self, queue: Queue, advance: Advance, answer: str
    ) -> None:
        await queue.put([ticket(1)])
        for _ in range(3):
            leases = await self.take_soon(queue, advance)
            assert [lease.deliveries for lease in leases] == [1]
            assert await ANSWERS[answer](queue, leases) == [True]
        needs(self.holds_leases, "holds_leases")
        await self.take_soon(queue, advance)
        await advance(1.25 * self.lease_s)
        assert [lease.deliveries for lease in await self.take_soon(queue, advance)] == [2]

    async def test_a_ticket_whose_copy_still_waits_is_not_put_twice(self, queue: Queue, second: Queue) -> None:
        await queue.put([ticket(1), ticket(1)])
        await second.put([ticket(1), ticket(2), ticket(2)])
        assert sorted(runs(await self.take(queue, 10))) == ["run-1", "run-2"]

    async def test_racing_puts_of_one_ticket_leave_one(self, queue: Queue, second: Queue) -> None:
        await race(*(partial(client.put, [ticket(1)]) for client in (queue, second) for _ in range(10)))
        assert runs(await self.take(queue, 10)) == ["run-1"]

    async def test_a_new_wake_of_a_run_is_not_swallowed_while_its_old_ticket_waits(self, queue: Queue) -> None:
        await queue.put([ticket(1)])
        await queue.put([ticket(1, wake=1)])
        assert sorted(lease.ticket.wake for lease in await self.take(queue, 10)) == [0, 1]

    async def test_a_put_made_after_the_lease_of_its_copy_is_delivered(self, queue: Queue, second: Queue) -> None:
        await queue.put([ticket(1)])
        leases = await self.take(queue)
        await second.put([ticket(1)])
        assert await queue.finish(leases) == [True]
        assert [(lease.ticket, lease.deliveries) for lease in await self.take(queue)] == [(ticket(1), 1)]

    @pytest.mark.parametrize("answer", ["give_back", "retry"])
    async def test_a_put_made_after_the_lease_of_its_copy_survives_that_copy_coming_back(self, queue: Queue, answer: str) -> None:
        await queue.put([ticket(1)])
        leases = await self.take(queue)
        await queue.put([ticket(1)])
        assert await ANSWERS[answer](queue, leases) == [True]
        assert runs(await self.take(queue)) == ["run-1"]

    async def test_a_ticket_may_be_put_again_after_it_was_finished(self, queue: Queue) -> None:
        for _ in range(3):
            await queue.put([ticket(1)])
            leases = await self.take(queue)
            assert runs(leases) == ["run-1"]
            assert await queue.finish(leases) == [True]

    async def test_a_buried_ticket_waits_among_the_dead_with_its_reason(self, queue: Queue, second: Queue) -> None:
        await queue.put([ticket(1), Ticket("run-2", "writer", "1")])
        for kind in (*SERVED, "writer@1"):
            assert await queue.bury(await self.take(queue, kinds={kind}), f"{kind} killed its process") == [True]
        assert await self.take(queue, 10) == []
        dead = sorted(letter[:3] for letter in await second.dead())
        assert dead == [(ticket(1), "reviewer@3 killed its process", 1), (Ticket("run-2", "writer", "1"), "writer@1 killed its process", 1)]
        assert [letter.ticket.run_id for letter in await second.dead(kind="writer")] == ["run-2"]
        assert len(await second.dead(limit=1)) == 1

    async def test_what_is_redriven_is_delivered_once_and_as_new(self, queue: Queue, second: Queue) -> None:
        await queue.put(tickets(3))
        buried = await self.take(queue, 3)
        await queue.bury(buried, "poison")
        assert await second.redrive([buried[0].ticket.run_id, "run-unknown"]) == [buried[0].ticket.run_id]
        assert [(lease.ticket, lease.deliveries) for lease in await self.take(queue, 10)] == [(buried[0].ticket, 1)]
        assert await second.redrive(kind="writer") == []
        assert sorted(await second.redrive(kind="reviewer")) == sorted(runs(buried[1:]))
        assert await second.redrive() == []
        assert sorted(runs(await self.take(queue, 10))) == sorted(runs(buried[1:]))
        assert await queue.dead() == []

    async def test_cancel_drops_what_is_undelivered_and_nothing_else(self, queue: Queue, second: Queue) -> None:
        await queue.put([ticket(1)])
        leased = await self.take(queue)
        await queue.put([ticket(2), ticket(2, wake=1), ticket(3)])
        assert await second.cancel(["run-1", "run-2", "run-unknown"]) == 2
        assert await queue.finish(leased) == [True]
        assert runs(await self.take(queue, 10)) == ["run-3"]
        await queue.put([ticket(2)])
        assert runs(await self.take(queue, 10)) == ["run-2"]


def runs_of_three() -> list[str]:
    return sorted(each.run_id for each in tickets(3))
