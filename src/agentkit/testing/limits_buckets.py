"""Laws of token buckets that are settled by key."""

from __future__ import annotations

from functools import partial

import pytest

from agentkit.errors import InvalidLimit
from agentkit.ports.limits import Grant, LimitStore
from agentkit.testing.contract import Advance, race
from agentkit.testing.limits_base import LimitsBase

BURST = 10.0


class BucketLaws(LimitsBase):
    """Never more than burst and rate allow, each key booked once."""

    @property
    def rate_per_s(self) -> float:
        """Four tokens a lease: what real time adds beside the test's is far from a token."""
        return 4 / self.lease_s

    async def reserve(self, store: LimitStore, key: str, amount: float, *, tenant: str = "", name: str = "tpm") -> Grant:
        return await store.reserve(name, key, amount, rate_per_s=self.rate_per_s, burst=BURST, tenant=tenant)

    async def left(self, store: LimitStore, probe: str) -> int:
        """How many whole tokens the bucket gives out now, one by one; it is empty afterwards."""
        for count in range(100):
            if not (await self.reserve(store, f"{probe}-{count}", 1.0)).granted:
                return count
        raise AssertionError("the bucket gave out 100 tokens")

    async def test_a_new_bucket_gives_out_its_burst_at_once_and_no_more(self, store: LimitStore, second: LimitStore) -> None:
        assert await self.reserve(store, "a", 6.0) == Grant(granted=True)
        assert (await self.reserve(second, "b", 4.0)).granted
        assert not (await self.reserve(store, "c", 1.0)).granted

    async def test_who_is_not_granted_is_told_when_there_will_be_enough(self, store: LimitStore, advance: Advance) -> None:
        assert (await self.reserve(store, "a", BURST)).granted
        refused = await self.reserve(store, "b", 3.0)
        assert refused.retry_after_s == pytest.approx(3.0 / self.rate_per_s, rel=0.2)
        await advance(0.5 * refused.retry_after_s)
        assert not (await self.reserve(store, "b", 3.0)).granted
        await advance(0.6 * refused.retry_after_s)
        assert (await self.reserve(store, "b", 3.0)).granted

    async def test_a_bucket_fills_by_its_rate_and_never_above_its_burst(self, store: LimitStore, advance: Advance) -> None:
        assert (await self.reserve(store, "a", BURST)).granted
        await advance(0.55 * self.lease_s)
        assert await self.left(store, "some") == 2
        await advance(4 * self.lease_s)
        assert await self.left(store, "full") == BURST

    async def test_racing_callers_get_no_more_than_burst_and_rate_allow(
        self, store: LimitStore, second: LimitStore, advance: Advance
    ) -> None:
        granted: set[str] = set()

        async def ask(client: LimitStore, key: str) -> None:
            if key not in granted and (await self.reserve(client, key, 1.0, tenant=key[-1])).granted:
                granted.add(key)

        for lease in range(5):
            await race(*(partial(ask, (store, second)[n % 2], f"key-{n}") for n in range(40)))
            assert len(granted) <= BURST + 4 * lease + 1
            await advance(self.lease_s)
        assert len(granted) >= BURST + 4 * 3

    async def test_an_amount_above_the_burst_is_refused(self, store: LimitStore) -> None:
        for amount in (BURST + 1, -1.0):
            with pytest.raises(InvalidLimit):
                await self.reserve(store, "a", amount)
        assert await self.left(store, "all") == BURST

    async def test_buckets_of_different_names_know_nothing_of_each_other(self, store: LimitStore) -> None:
        assert [(await self.reserve(store, "a", BURST, name=name)).granted for name in ("tpm", "TPM", "tpm ")] == [True, True, True]

    async def test_a_key_reserves_once_however_often_it_asks(self, store: LimitStore, second: LimitStore) -> None:
        outcomes = await race(*(partial(self.reserve, client, "a", 6.0) for client in (store, second) for _ in range(5)))
        assert outcomes == [Grant(granted=True)] * 10
        assert await self.left(store, "rest") == 4
        assert (await self.reserve(store, "a", 6.0)).granted

    async def test_settle_gives_back_what_was_not_used(self, store: LimitStore, second: LimitStore) -> None:
        assert (await self.reserve(store, "a", 8.0)).granted
        await second.settle("tpm", "a", 3.0)
        assert await self.left(store, "rest") == 7

    async def test_settle_takes_what_was_used_beyond_the_reserve_below_zero_if_need_be(self, store: LimitStore, advance: Advance) -> None:
        assert (await self.reserve(store, "a", 9.0)).granted
        await store.settle("tpm", "a", 9.0 + 1.0 + 4.0)
        assert not (await self.reserve(store, "b", 1.0)).granted
        await advance(0.9 * self.lease_s)
        assert not (await self.reserve(store, "b", 1.0)).granted
        await advance(0.5 * self.lease_s)
        assert (await self.reserve(store, "b", 1.0)).granted

    async def test_a_key_is_settled_once_however_often_it_is_called(self, store: LimitStore, second: LimitStore) -> None:
        assert (await self.reserve(store, "a", 5.0)).granted
        assert (await self.reserve(store, "b", 5.0)).granted
        await race(*(partial(client.settle, "tpm", "a", 3.0) for client in (store, second) for _ in range(5)))
        await store.settle("tpm", "a", 0.0)
        assert await self.left(store, "rest") == 2

    async def test_a_settled_key_that_asks_again_is_granted_and_not_booked_again(self, store: LimitStore) -> None:
        assert (await self.reserve(store, "a", 5.0)).granted
        await store.settle("tpm", "a", 5.0)
        assert (await self.reserve(store, "a", 5.0)).granted
        assert await self.left(store, "rest") == 5

    async def test_who_settles_before_it_was_granted_leaves_the_line(self, store: LimitStore, second: LimitStore, advance: Advance) -> None:
        assert (await self.reserve(store, "all", BURST)).granted
        assert not (await self.reserve(store, "gives-up", BURST)).granted
        assert not (await self.reserve(second, "behind", 1.0)).granted
        await second.settle("tpm", "gives-up", 0.0)
        await advance(0.4 * self.lease_s)
        assert (await self.reserve(store, "behind", 1.0)).granted

    async def test_what_is_given_back_never_lifts_a_bucket_above_its_burst(self, store: LimitStore, advance: Advance) -> None:
        assert (await self.reserve(store, "a", BURST)).granted
        await advance(3 * self.lease_s)
        await store.settle("tpm", "a", 0.0)
        assert await self.left(store, "all") == BURST

    async def test_a_heavy_reserve_is_not_starved_by_light_ones(self, store: LimitStore, advance: Advance) -> None:
        assert (await self.reserve(store, "all", BURST)).granted
        assert not (await self.reserve(store, "heavy", 8.0, tenant="heavy")).granted
        for n in range(12):
            await advance(self.lease_s / 4)
            await self.reserve(store, f"light-{n}", 1.0, tenant=f"light-{n % 3}")
            if (await self.reserve(store, "heavy", 8.0, tenant="heavy")).granted:
                return
        raise AssertionError("light reserves took every token before a heavy one that was there first")

    async def test_reserves_are_granted_fairly_by_tenant(self, store: LimitStore, advance: Advance) -> None:
        assert (await self.reserve(store, "all", BURST)).granted
        waiting = {f"flood-{n}": "flood" for n in range(20)} | {"brook-0": "brook", "brook-1": "brook"}
        order: list[str] = []
        for _ in range(12):
            for key, tenant in waiting.items():
                if key not in order and (await self.reserve(store, key, 1.0, tenant=tenant)).granted:
                    order.append(key)
            await advance(self.lease_s / 4)
        assert "brook-1" in order[:7], order
        assert [key for key in order if "flood" in key] == [f"flood-{n}" for n in range(20)][: len(order) - 2]
