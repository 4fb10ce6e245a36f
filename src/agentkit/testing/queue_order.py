"""Laws of a queue: who is next, who has to wait, and how much waits."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
from anyio.lowlevel import checkpoint

from agentkit.errors import QueueFull
from agentkit.ports.queue import Depth, Lease, Queue, Ticket
from agentkit.testing.contract import Advance, as_time_passes, later, needs, race
from agentkit.testing.queue_base import KIND, QueueBase, runs, ticket, tickets


class OrderLaws(QueueBase):
    """Keys, priorities, tenants, delays and bounds."""

    async def test_tickets_of_one_priority_and_tenant_are_leased_in_the_order_of_their_puts(self, queue: Queue, second: Queue) -> None:
        sent = tickets(60)
        for client, batch in ((queue, sent[:20]), (second, sent[20:40]), (queue, sent[40:])):
            await client.put(batch)
        first = await self.take(queue, 25)
        assert runs(first + await self.take_all(queue)) == [each.run_id for each in sent]

    async def test_what_is_given_back_keeps_its_place_in_the_line(self, queue: Queue) -> None:
        await queue.put(tickets(5))
        leases = await self.take(queue, 3)
        assert await queue.give_back([leases[2], leases[0]]) == [True, True]
        assert runs(await self.take_all(queue)) == [each.run_id for each in (tickets(5)[0], *tickets(5)[2:])]

    async def test_a_ticket_whose_lease_ran_out_keeps_its_place_in_the_line(self, queue: Queue, advance: Advance) -> None:
        needs(self.holds_leases, "holds_leases")
        await queue.put(tickets(3))
        assert await self.take(queue)
        await advance(1.25 * self.lease_s)
        assert runs(await self.take_all(queue)) == [each.run_id for each in tickets(3)]

    @pytest.mark.parametrize("n", [1, 12])
    async def test_higher_priorities_go_first_by_weight(self, queue: Queue, n: int) -> None:
        for priority in (0, 1, 2):
            await queue.put(tickets(96, priority=priority))
        leases = [lease for _ in range(96 // n) for lease in await self.take(queue, n)]
        had = Counter(lease.ticket.priority for lease in leases)
        assert had[2] > 1.5 * had[1] > 2 * had[0]

    @pytest.mark.parametrize("n", [1, 4])
    async def test_a_low_ticket_ages_past_a_stream_of_high_ones(self, queue: Queue, n: int) -> None:
        await queue.put([ticket("low", priority=0)])
        for batch in range(48 // n):
            await queue.put([ticket(f"high-{batch}-{number}", priority=2) for number in range(2 * n)])
            if "run-low" in runs(await self.take(queue, n)):
                return
        raise AssertionError("48 high tickets went before one low ticket that was there first")

    async def test_tenants_share_the_queue_however_much_one_of_them_put(self, queue: Queue) -> None:
        await queue.put(tickets(500, tenant="flood"))
        await queue.put(tickets(20, tenant="brook") + tickets(20, tenant="rill"))
        had = Counter([lease.ticket.tenant for _ in range(60) for lease in await self.take(queue)])
        assert all(had[tenant] >= 15 for tenant in ("flood", "brook", "rill")), had

    async def test_a_batch_is_shared_between_tenants_too(self, queue: Queue) -> None:
        await queue.put(tickets(500, tenant="flood"))
        await queue.put(tickets(20, tenant="brook"))
        had = Counter(lease.ticket.tenant for lease in await self.take(queue, 40))
        assert had["brook"] >= 15

    @pytest.mark.parametrize("n", [1, 8])
    async def test_a_tenant_of_three_times_the_weight_gets_three_times_the_turns(self, queue: Queue, n: int) -> None:
        await queue.put(tickets(60, tenant="light") + tickets(60, tenant="heavy", weight=3))
        assert 29 <= await self._turns_of(queue, "heavy", 40, n) <= 31

    async def test_a_tenant_that_comes_late_gets_the_turns_of_its_weight_from_then_on(self, queue: Queue) -> None:
        await queue.put(tickets(100, tenant="light"))
        await self.take(queue, 50)
        await queue.put(tickets(60, tenant="heavy", weight=3))
        assert 29 <= await self._turns_of(queue, "heavy", 40) <= 31

    async def test_a_tenant_with_nothing_waiting_saves_no_turns_up(self, queue: Queue) -> None:
        await queue.put(tickets(4, tenant="heavy", weight=4) + tickets(100, tenant="light"))
        await self.take(queue, 50)
        await queue.put([ticket(f"again-{n}", tenant="heavy", weight=4) for n in range(60)])
        assert 31 <= await self._turns_of(queue, "heavy", 40) <= 33

    @pytest.mark.parametrize("way", ["delay", "retry", "redrive"])
    async def test_a_ticket_keeps_its_weight_wherever_it_goes(self, queue: Queue, advance: Advance, way: str) -> None:
        needs(way != "delay" or self.supports_delay, "supports_delay")
        sent = tickets(60, tenant="heavy", weight=3)
        await queue.put(sent, delay_s=self.lease_s if way == "delay" else 0.0)
        if way == "delay":
            await advance(1.25 * self.lease_s)
        elif way == "retry":
            assert all(await queue.retry(await self.take(queue, 60), 0.0))
        else:
            assert all(await queue.bury(await self.take(queue, 60), "poison"))
            assert len(await queue.redrive()) == 60
        assert (await self.depth_of(queue)).ready == 60
        await queue.put(tickets(60, tenant="light"))
        first = await self.take_soon(queue, advance, 40)
        assert 29 <= sum(lease.ticket in sent for lease in first) <= 31

    async def test_a_weight_below_one_counts_as_one(self, queue: Queue) -> None:
        await queue.put(tickets(30, tenant="light") + tickets(30, tenant="none", weight=0) + tickets(30, tenant="less", weight=-3))
        had = Counter([lease.ticket.tenant for _ in range(30) for lease in await self.take(queue)])
        assert all(9 <= had[tenant] <= 11 for tenant in ("light", "none", "less")), had

    async def _turns_of(self, queue: Queue, tenant: str, turns: int, n: int = 1) -> int:
        """How many of the next turns the tenant gets, when tickets are leased by `n`."""
        leases = [lease for _ in range(turns // n) for lease in await self.take(queue, n)]
        assert len(leases) == turns
        return sum(lease.ticket.tenant == tenant for lease in leases)

    async def test_a_tenant_gets_its_own_tickets_in_their_order(self, queue: Queue) -> None:
        await queue.put([each for pair in zip(tickets(30, tenant="a"), tickets(30, tenant="b"), strict=True) for each in pair])
        leases = await self.take_all(queue)
        for tenant in ("a", "b"):
            assert [lease.ticket for lease in leases if lease.ticket.tenant == tenant] == tickets(30, tenant=tenant)

    async def test_tickets_of_one_key_are_leased_in_order_one_at_a_time(self, queue: Queue, second: Queue) -> None:
        needs(self.supports_keys, "supports_keys")
        sent = tickets(5, key="order-8")
        await queue.put(sent)
        await queue.put([ticket("free")])
        first = await self.take(queue, 10)
        assert sorted(runs(first)) == sorted([sent[0].run_id, "run-free"])
        assert await self.take(second, 10) == []
        assert await queue.finish(first) == [True, True]
        assert runs(await self.take_all(second, finish=True)) == [each.run_id for each in sent[1:]]

    async def test_a_key_is_free_again_after_any_answer(self, queue: Queue) -> None:
        needs(self.supports_keys, "supports_keys")
        await queue.put(tickets(4, key="k"))
        assert await queue.bury(await self.take(queue, 10), "poison") == [True]
        assert await queue.retry(await self.take(queue, 10), 1000.0 * self.supports_delay) == [True]
        assert await queue.give_back(await self.take(queue, 10)) == [True]
        assert len(await self.take(queue, 10)) == 1

    async def test_the_next_of_a_key_wakes_a_waiting_lease_when_it_gets_free(self, queue: Queue, second: Queue, advance: Advance) -> None:
        needs(self.supports_keys, "supports_keys")
        await queue.put(tickets(2, key="k"))
        held = await self.take(queue, lease_s=100 * self.lease_s)

        async def finish_and_take() -> list[Lease]:
            answers = await race(partial(self.take, second, wait_s=2 * self.lease_s), partial(later, partial(self._finish, queue, held)))
            return [lease for answer in answers if isinstance(answer, list) for lease in answer]

        leases, waited_s = await as_time_passes(advance, self.lease_s / 2, finish_and_take)
        assert runs(leases) == [tickets(2, key="k")[1].run_id]
        assert waited_s < self.lease_s / 2

    async def _finish(self, queue: Queue, leases: list[Lease]) -> list[Lease]:
        assert await queue.finish(leases) == [True]
        return []

    async def test_a_key_whose_holder_died_goes_on_with_the_same_ticket(self, queue: Queue, second: Queue, advance: Advance) -> None:
        needs(self.supports_keys, "supports_keys")
        await queue.put(tickets(2, key="k"))
        lost = await self.take(queue, 10)
        await advance(1.25 * self.lease_s)
        assert runs(await self.take_soon(second, advance, 10)) == runs(lost)

    async def test_racing_consumers_never_hold_two_tickets_of_a_key(self, queue: Queue, second: Queue) -> None:
        needs(self.supports_keys, "supports_keys")
        for key in ("a", "b", "c"):
            await queue.put(tickets(20, key=key))
        held: Counter[str] = Counter()
        order: dict[str, list[str]] = {"a": [], "b": [], "c": []}

        async def consume(client: Queue) -> int:
            most = 0
            while leases := await self.take(client, 2):
                held.update(lease.ticket.key for lease in leases)
                most = max(most, *held.values())
                for lease in leases:
                    order[lease.ticket.key].append(lease.ticket.run_id)
                await checkpoint()
                held.subtract(lease.ticket.key for lease in leases)
                await client.finish(leases)
            return most

        assert max(most for most in await race(*(partial(consume, queue), partial(consume, second))) if isinstance(most, int)) == 1
        for lease in await self.take_all(queue, finish=True):
            order[lease.ticket.key].append(lease.ticket.run_id)
        assert order == {key: [each.run_id for each in tickets(20, key=key)] for key in order}

    async def test_a_delayed_ticket_is_leased_when_it_is_due_and_not_before(self, queue: Queue, advance: Advance) -> None:
        needs(self.supports_delay, "supports_delay")
        await queue.put([ticket(1)], delay_s=self.lease_s)
        await queue.put([ticket(2)])
        now = await self.take(queue, 10)
        assert runs(now) == ["run-2"]
        assert await queue.finish(now) == [True]
        await advance(self.lease_s / 2)
        assert await self.take(queue) == []
        leases, _ = await as_time_passes(advance, 0.75 * self.lease_s, partial(self.take, queue, wait_s=2 * self.lease_s))
        assert runs(leases) == ["run-1"]

    async def test_a_waiting_lease_sees_a_delay_that_was_put_while_it_waited(self, queue: Queue, second: Queue, advance: Advance) -> None:
        needs(self.supports_delay, "supports_delay")

        async def put_and_take() -> list[Lease]:
            answers = await race(partial(self.take, queue, wait_s=4 * self.lease_s), partial(later, partial(self._put_delayed, second)))
            return [lease for answer in answers if isinstance(answer, list) for lease in answer]

        leases, _ = await as_time_passes(advance, 0.75 * self.lease_s, put_and_take)
        assert runs(leases) == ["run-1"]

    async def _put_delayed(self, queue: Queue) -> list[Lease]:
        await queue.put([ticket(1)], delay_s=self.lease_s / 2)
        return []

    @pytest.mark.parametrize("answer", ["retry", "give_back"])
    async def test_what_is_to_come_back_later_comes_back_later(self, queue: Queue, advance: Advance, answer: str) -> None:
        needs(self.supports_delay, "supports_delay")
        await queue.put([ticket(1)])
        leases = await self.take(queue)
        if answer == "retry":
            assert await queue.retry(leases, self.lease_s) == [True]
        else:
            assert await queue.give_back(leases, delay_s=self.lease_s) == [True]
        await advance(self.lease_s / 2)
        assert await self.take(queue) == []
        await advance(0.75 * self.lease_s)
        assert runs(await self.take_soon(queue, advance)) == ["run-1"]

    async def test_a_delayed_ticket_is_undelivered_for_dedup_and_cancel(self, queue: Queue) -> None:
        needs(self.supports_delay, "supports_delay")
        await queue.put([ticket(1), ticket(2)], delay_s=self.lease_s)
        await queue.put([ticket(1)])
        assert await self.take(queue) == []
        assert await queue.cancel(["run-1"]) == 1
        assert (await self.depth_of(queue))[:2] == (0, 1)

    async def test_a_put_over_the_bound_is_refused_whole(self, queue: Queue, second: Queue) -> None:
        sent = await self.fill(queue, self.max_depth - 1)
        with pytest.raises(QueueFull) as refused:
            await second.put(tickets(2, tenant="late"))
        assert refused.value.retry_after_s > 0
        assert refused.value.limit == self.max_depth
        assert (await self.depth_of(queue)).ready == self.max_depth - 1
        await second.put([sent[0], sent[1], ticket("last")])
        with pytest.raises(QueueFull):
            await second.put([ticket("one more")])
        await second.put(sent[:2])
        leases = await self.take(queue, 100)
        await queue.finish(leases)
        await second.put([ticket("one more")])

    async def test_racing_puts_never_go_over_the_bound(self, queue: Queue, second: Queue) -> None:
        await self.fill(queue, self.max_depth - 5)
        outcomes = await race(
            *(partial(client.put, [ticket(f"{name}-{n}")]) for name, client in (("a", queue), ("b", second)) for n in range(10))
        )
        assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == 15
        assert (await self.depth_of(queue)).ready == self.max_depth

    async def test_depth_counts_ready_delayed_leased_and_dead_apart_for_each_version(self, queue: Queue, second: Queue) -> None:
        await queue.put([*tickets(6), Ticket("other", "reviewer", "4")])
        await queue.put([ticket("later")], delay_s=self.lease_s * self.supports_delay)
        assert await queue.bury(await self.take(queue, 1), "poison") == [True]
        await self.take(queue, 2)
        depth = await second.depth()
        expected = Depth(ready=3, delayed=1, leased=2, dead=1) if self.supports_delay else Depth(ready=4, leased=2, dead=1)
        assert depth[KIND][:4] == expected[:4]
        assert depth["reviewer@4"][:4] == (1, 0, 0, 0)

    async def test_a_ticket_whose_delay_is_over_counts_as_ready_though_nobody_asked_for_one(
        self, queue: Queue, second: Queue, advance: Advance
    ) -> None:
        needs(self.supports_delay, "supports_delay")
        await queue.put(tickets(3), delay_s=self.lease_s)
        await queue.put([ticket("later")], delay_s=4 * self.lease_s)
        await advance(1.25 * self.lease_s)
        assert (await self.depth_of(second))[:4] == (3, 1, 0, 0)

    async def test_depth_tells_the_age_of_the_oldest_undelivered_ticket(self, queue: Queue, advance: Advance) -> None:
        tolerance_s = 0.2 * self.lease_s
        await queue.put([ticket(1)])
        await advance(self.lease_s / 2)
        await queue.put([ticket(2)])
        assert (await self.depth_of(queue)).oldest_s == pytest.approx(self.lease_s / 2, abs=tolerance_s)
        leases = await self.take(queue)
        assert (await self.depth_of(queue)).oldest_s == pytest.approx(0.0, abs=tolerance_s)
        await queue.give_back(leases)
        assert (await self.depth_of(queue)).oldest_s == pytest.approx(self.lease_s / 2, abs=tolerance_s)
