"""Laws of semaphores whose permits are leased."""

from __future__ import annotations

from functools import partial

import pytest
from anyio.lowlevel import checkpoint

from agentkit.errors import InvalidLimit
from agentkit.ports.limits import Grant, LimitStore
from agentkit.testing.contract import Advance, race
from agentkit.testing.limits_base import LimitsBase


class SemaphoreLaws(LimitsBase):
    """Never too many, never leaked, nobody starved."""

    async def ask(self, store: LimitStore, holder: str, *, permits: int = 1, weight: int = 1, tenant: str = "", name: str = "gpu") -> Grant:
        return await store.acquire(name, holder, permits=permits, weight=weight, lease_s=self.lease_s, tenant=tenant)

    async def asked(self, store: LimitStore, *holders: str, permits: int = 1, weight: int = 1, tenant: str = "") -> list[bool]:
        """Whether each was granted, asking in this order."""
        return [(await self.ask(store, holder, permits=permits, weight=weight, tenant=tenant)).granted for holder in holders]

    async def served(self, store: LimitStore, waiting: dict[str, str], *, permits: int = 1) -> list[str]:
        """Let all of `waiting` (holder to tenant) ask again and again; who is granted is done at once. Returns their order."""
        order: list[str] = []
        while len(order) < len(waiting):
            granted = [
                holder for holder, tenant in waiting.items() if holder not in order and await self._serve(store, holder, tenant, permits)
            ]
            assert granted, f"nobody was granted; {order} were before"
            order += granted
        return order

    async def _serve(self, store: LimitStore, holder: str, tenant: str, permits: int) -> bool:
        granted = (await self.ask(store, holder, permits=permits, tenant=tenant)).granted
        return granted and await store.release("gpu", holder)

    async def test_it_may_be_opened_again_and_each_opening_is_closed_by_itself(self, store: LimitStore) -> None:
        await store.open()
        await store.aclose()
        assert await self.asked(store, "a") == [True]

    async def test_permits_are_given_until_none_is_left(self, store: LimitStore, second: LimitStore) -> None:
        assert await self.asked(store, "a", "b", permits=3) == [True, True]
        assert await self.asked(second, "c", "d", permits=3) == [True, False]
        assert await store.release("gpu", "a") is True
        assert await self.asked(second, "d", "e", permits=3) == [True, False]

    async def test_who_is_not_granted_is_told_when_to_ask_again(self, store: LimitStore) -> None:
        assert await self.ask(store, "a") == Grant(granted=True)
        refused = await self.ask(store, "b")
        assert not refused.granted
        assert 0 < refused.retry_after_s < self.lease_s

    async def test_semaphores_of_different_names_know_nothing_of_each_other(self, store: LimitStore) -> None:
        assert [(await self.ask(store, "a", name=name)).granted for name in ("gpu", "GPU", "gpu ")] == [True, True, True]
        assert await store.release("GPU", "a") is True
        assert await self.asked(store, "b") == [False]

    @pytest.mark.parametrize("weight", [4, 0, -1])
    async def test_a_weight_that_can_never_fit_is_refused(self, store: LimitStore, weight: int) -> None:
        with pytest.raises(InvalidLimit):
            await self.ask(store, "a", permits=3, weight=weight)
        assert await self.asked(store, "b", permits=3, weight=3) == [True]

    async def test_the_weights_of_racing_holders_never_exceed_the_permits(self, store: LimitStore, second: LimitStore) -> None:
        held: dict[str, int] = {}
        most = 0

        async def work(client: LimitStore, number: int) -> None:
            nonlocal most
            holder, weight = f"holder-{number}", 1 + number % 3
            for _ in range(3):
                while not (await self.ask(client, holder, permits=5, weight=weight, tenant=f"t{number % 2}")).granted:
                    await checkpoint()
                held[holder] = weight
                most = max(most, sum(held.values()))
                await checkpoint()
                del held[holder]
                assert await client.release("gpu", holder) is True

        outcomes = await race(*(partial(work, (store, second)[number % 2], number) for number in range(8)))
        assert outcomes == [None] * 8
        assert 3 <= most <= 5

    async def test_acquiring_again_under_the_same_holder_is_the_same_grant(self, store: LimitStore, second: LimitStore) -> None:
        assert await self.asked(store, "a", "a", permits=2) == [True, True]
        assert await self.asked(second, "a", "b", "c", permits=2) == [True, True, False]
        assert await store.release("gpu", "a") is True
        assert await store.release("gpu", "a") is False
        assert await self.asked(store, "c", "d", permits=2) == [True, False]

    async def test_the_permits_of_a_dead_holder_are_free_one_lease_later(
        self, store: LimitStore, second: LimitStore, advance: Advance
    ) -> None:
        assert await self.asked(store, "dead") == [True]
        await advance(0.75 * self.lease_s)
        assert await self.asked(second, "heir") == [False]
        await advance(0.5 * self.lease_s)
        assert await self.asked(second, "heir") == [True]

    async def test_a_holder_that_renews_keeps_its_permits(self, store: LimitStore, second: LimitStore, advance: Advance) -> None:
        assert await self.asked(store, "a") == [True]
        for _ in range(4):
            await advance(0.6 * self.lease_s)
            assert await store.renew("gpu", ["a"], self.lease_s) == [True]
            assert await self.asked(second, "b") == [False]
        await advance(1.25 * self.lease_s)
        assert await self.asked(second, "b") == [True]

    async def test_renew_answers_for_each_holder_and_gives_nothing_to_others(self, store: LimitStore, advance: Advance) -> None:
        assert await self.asked(store, "a", "b", permits=2) == [True, True]
        await advance(0.75 * self.lease_s)
        assert await store.renew("gpu", ["nobody", "b"], self.lease_s) == [False, True]
        await advance(0.5 * self.lease_s)
        assert await self.asked(store, "c", "d", permits=2) == [True, False]
        assert await store.renew("gpu", ["a", "b", "c", "d"], self.lease_s) == [False, True, True, False]

    async def test_a_zombie_neither_renews_nor_releases_the_permits_of_its_heir(
        self, store: LimitStore, second: LimitStore, advance: Advance
    ) -> None:
        assert await self.asked(store, "zombie") == [True]
        await advance(1.25 * self.lease_s)
        assert await self.asked(second, "heir") == [True]
        assert await store.renew("gpu", ["zombie"], self.lease_s) == [False]
        assert await store.release("gpu", "zombie") is False
        assert await self.asked(store, "zombie") == [False]
        assert await second.renew("gpu", ["heir"], self.lease_s) == [True]

    async def test_release_frees_what_that_holder_had_and_nothing_else(self, store: LimitStore) -> None:
        assert await self.asked(store, "heavy", permits=4, weight=3) == [True]
        assert await self.asked(store, "light", permits=4) == [True]
        assert await store.release("gpu", "nobody") is False
        assert await self.asked(store, "next", permits=4) == [False]
        assert await store.release("gpu", "light") is True
        assert await self.asked(store, "next", "last", permits=4) == [True, False]

    async def test_waiters_of_one_tenant_are_served_in_the_order_they_came(self, store: LimitStore, second: LimitStore) -> None:
        assert await self.asked(store, "holder") == [True]
        assert await self.asked(store, "first", "second", "third") == [False] * 3
        assert await store.release("gpu", "holder") is True
        assert await self.served(second, dict.fromkeys(["third", "second", "first"], "")) == ["first", "second", "third"]

    async def test_nobody_takes_a_free_permit_before_those_who_wait_for_it(self, store: LimitStore) -> None:
        assert await self.asked(store, "holder") == [True]
        assert await self.asked(store, "waiter") == [False]
        assert await store.release("gpu", "holder") is True
        assert await self.asked(store, "newcomer", "waiter") == [False, True]

    async def test_a_heavy_waiter_is_not_starved_by_light_ones(self, store: LimitStore) -> None:
        for n in range(4):
            assert await self.asked(store, f"light-{n}", permits=4, tenant="light") == [True]
        assert await self.asked(store, "heavy", permits=4, weight=4, tenant="heavy") == [False]
        for n in range(4, 40):
            await store.release("gpu", f"light-{n - 4}")
            await self.asked(store, f"light-{n}", permits=4, tenant=f"light-{n % 3}")
            if await self.asked(store, "heavy", permits=4, weight=4, tenant="heavy") == [True]:
                return
        raise AssertionError("36 light waiters went before one heavy waiter that was there first")

    async def test_waiters_are_served_fairly_by_tenant(self, store: LimitStore, second: LimitStore) -> None:
        assert await self.asked(store, "holder", tenant="other") == [True]
        flood = [f"flood-{n}" for n in range(20)]
        assert await self.asked(store, *flood, tenant="flood") == [False] * 20
        brook = [f"brook-{n}" for n in range(3)]
        assert await self.asked(second, *brook, tenant="brook") == [False] * 3
        assert await store.release("gpu", "holder") is True
        order = await self.served(store, dict.fromkeys(flood, "flood") | dict.fromkeys(brook, "brook"))
        assert [holder for holder in order if holder in brook] == brook
        assert [holder for holder in order if holder in flood] == flood
        assert "brook-2" in order[:9], order

    async def test_a_waiter_who_does_not_ask_again_loses_its_place_after_one_lease(self, store: LimitStore, advance: Advance) -> None:
        assert await self.asked(store, "holder") == [True]
        assert await self.asked(store, "gone") == [False]
        await advance(0.6 * self.lease_s)
        assert await store.renew("gpu", ["holder"], self.lease_s) == [True]
        assert await self.asked(store, "here") == [False]
        await advance(0.6 * self.lease_s)
        assert await store.release("gpu", "holder") is True
        assert await self.asked(store, "here") == [True]

    async def test_a_waiter_who_keeps_asking_keeps_its_place(self, store: LimitStore, advance: Advance) -> None:
        assert await self.asked(store, "holder") == [True]
        assert await self.asked(store, "patient", "late") == [False, False]
        for _ in range(4):
            await advance(0.6 * self.lease_s)
            await store.renew("gpu", ["holder"], self.lease_s)
            assert await self.asked(store, "late", "patient") == [False, False]
        assert await store.release("gpu", "holder") is True
        assert await self.asked(store, "late", "patient") == [False, True]

    async def test_release_leaves_the_line(self, store: LimitStore) -> None:
        assert await self.asked(store, "holder") == [True]
        assert await self.asked(store, "gone", "here") == [False, False]
        await store.release("gpu", "gone")
        assert await store.release("gpu", "holder") is True
        assert await self.asked(store, "here") == [True]
