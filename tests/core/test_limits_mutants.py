"""For each law of limits an adapter that drops it, and the test of the suite that fails on it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentkit.inmemory.limits import Bucket, Held, InMemoryLimits, Reservation, Semaphore, WaitingLine
from agentkit.ports.limits import Grant
from agentkit.testing.limits import LimitsContract
from tests.core.mutants import Broken, assert_only_the_mutant_breaks, laws_without_a_mutant, named


class NobodyWaits(WaitingLine):
    def wait(self, who: str, tenant: str, weight: float, until: float) -> float:
        super().wait(who, tenant, weight, until)
        return weight


class TenantsAreOne(WaitingLine):
    def wait(self, who: str, tenant: str, weight: float, until: float) -> float:
        return super().wait(who, "", weight, until)


class LightFirst(WaitingLine):
    def wait(self, who: str, tenant: str, weight: float, until: float) -> float:
        super().wait(who, tenant, weight, until)
        return sum(place.weight for place in self._places if (place.weight, place) <= (weight, self._of(who)))

    def _of(self, who: str) -> object:
        return next(place for place in self._places if place.who == who)


class LastFirst(WaitingLine):
    def wait(self, who: str, tenant: str, weight: float, until: float) -> float:
        super().wait(who, tenant, weight, until)
        self._places.sort(key=lambda place: -place.number)
        return super().wait(who, tenant, weight, until)


class PlacesForEver(WaitingLine):
    def expire(self, now: float) -> None:
        pass


class PlacesForOneAsking(WaitingLine):
    def wait(self, who: str, tenant: str, weight: float, until: float) -> float:
        self.leave(who)
        return super().wait(who, tenant, weight, until)


class NobodyLeaves(WaitingLine):
    def serve(self, who: str) -> None:
        super().leave(who)

    def leave(self, who: str) -> None:
        pass


def with_line(line: type[WaitingLine]) -> type[InMemoryLimits]:
    class Limits(InMemoryLimits):
        def _new_line(self) -> WaitingLine:
            return line()

    Limits.__name__ = line.__name__
    return Limits


class CountsHoldersNotWeights(InMemoryLimits):
    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        return await super().acquire(name, holder, permits=permits, weight=min(weight, 1), lease_s=lease_s, tenant=tenant)


class GivesOneMore(InMemoryLimits):
    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        return await super().acquire(name, holder, permits=permits + 1, weight=weight, lease_s=lease_s, tenant=tenant)


class ClosesWithTheFirst(InMemoryLimits):
    closed = False

    async def aclose(self) -> None:
        self.closed = True

    def _semaphore(self, name: str, now: float) -> Semaphore:
        assert not self.closed, "closed"
        return super()._semaphore(name, now)


class TakesAnyWeight(InMemoryLimits):
    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        return await super().acquire(name, holder, permits=permits, weight=min(max(weight, 1), permits), lease_s=lease_s, tenant=tenant)


class GivesAnew(InMemoryLimits):
    """Each asking takes permits, also of who holds some."""

    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        held = self._semaphore(name, self._clock.monotonic()).holders
        if holder in held:
            held[f"{holder}, again"] = held.pop(holder)
        return await super().acquire(name, holder, permits=permits, weight=weight, lease_s=lease_s, tenant=tenant)


class HoldsForEver(InMemoryLimits):
    def _semaphore(self, name: str, now: float) -> Semaphore:
        semaphore = super()._semaphore(name, now) if name not in self._semaphores else self._semaphores[name]
        semaphore.line.expire(now)
        return semaphore


class RenewsNothing(InMemoryLimits):
    def _hold_on(self, semaphore: Semaphore, holder: str, until: float) -> bool:
        return holder in semaphore.holders


class RenewsAnybody(InMemoryLimits):
    async def renew(self, name: str, holders: Sequence[str], lease_s: float) -> list[bool]:
        await super().renew(name, holders, lease_s)
        return [True] * len(holders)


class RenewsZombies(InMemoryLimits):
    async def renew(self, name: str, holders: Sequence[str], lease_s: float) -> list[bool]:
        now = self._clock.monotonic()
        for holder in holders:
            self._semaphore(name, now).holders.setdefault(holder, Held(1, now + lease_s))
        return await super().renew(name, holders, lease_s)


class FreesAnyPermit(InMemoryLimits):
    def _let_go(self, semaphore: Semaphore, holder: str) -> bool:
        return bool(semaphore.holders and semaphore.holders.pop(holder if holder in semaphore.holders else next(iter(semaphore.holders))))


class FreesOfAnyName(InMemoryLimits):
    async def release(self, name: str, holder: str) -> bool:
        return any([await super(FreesOfAnyName, self).release(each, holder) for each in [name, *self._semaphores]])


class SaysNever(InMemoryLimits):
    async def acquire(self, name: str, holder: str, *, permits: int, weight: int = 1, lease_s: float, tenant: str = "") -> Grant:
        granted = await super().acquire(name, holder, permits=permits, weight=weight, lease_s=lease_s, tenant=tenant)
        return Grant(granted.granted)


class NeverEmpty(InMemoryLimits):
    def _bucket(self, name: str, rate_per_s: float, burst: float, now: float) -> Bucket:
        bucket = super()._bucket(name, rate_per_s, burst, now)
        bucket.level = burst
        return bucket


class NeverFills(InMemoryLimits):
    def _bucket(self, name: str, rate_per_s: float, burst: float, now: float) -> Bucket:
        return super()._bucket(name, 0.0, burst, now)


class FillsWithoutEnd(InMemoryLimits):
    def _bucket(self, name: str, rate_per_s: float, burst: float, now: float) -> Bucket:
        bucket = super()._bucket(name, rate_per_s, burst, now)
        bucket.burst = float("inf")
        return bucket


class OneBucketForAll(InMemoryLimits):
    async def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str = "") -> Grant:
        return await super().reserve(name[:3].lower(), f"{name}/{key}", amount, rate_per_s=rate_per_s, burst=burst, tenant=tenant)


class TakesAnyAmount(InMemoryLimits):
    async def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str = "") -> Grant:
        return await super().reserve(name, key, min(max(amount, 0.0), burst), rate_per_s=rate_per_s, burst=burst, tenant=tenant)


class BooksEachAsking(InMemoryLimits):
    async def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str = "") -> Grant:
        self._reservations.pop((name, key), None)
        return await super().reserve(name, key, amount, rate_per_s=rate_per_s, burst=burst, tenant=tenant)


class BooksSettledKeysAnew(InMemoryLimits):
    async def reserve(self, name: str, key: str, amount: float, *, rate_per_s: float, burst: float, tenant: str = "") -> Grant:
        if (name, key) in self._reservations and self._reservations[name, key].settled:
            del self._reservations[name, key]
        return await super().reserve(name, key, amount, rate_per_s=rate_per_s, burst=burst, tenant=tenant)


class SettlesNothing(InMemoryLimits):
    def _settle(self, bucket: Bucket, reservation: Reservation, actual: float) -> None:
        pass


class SettlesEachTime(InMemoryLimits):
    def _settle(self, bucket: Bucket, reservation: Reservation, actual: float) -> None:
        super()._settle(bucket, reservation, actual)
        reservation.settled = False


class ForgivesOverruns(InMemoryLimits):
    def _settle(self, bucket: Bucket, reservation: Reservation, actual: float) -> None:
        super()._settle(bucket, reservation, min(actual, reservation.amount))


class NeverBelowZero(InMemoryLimits):
    def _settle(self, bucket: Bucket, reservation: Reservation, actual: float) -> None:
        super()._settle(bucket, reservation, actual)
        bucket.level = max(0.0, bucket.level)


class GivesBackAboveTheBurst(InMemoryLimits):
    def _settle(self, bucket: Bucket, reservation: Reservation, actual: float) -> None:
        reservation.settled = True
        bucket.level += reservation.amount - actual

    def _bucket(self, name: str, rate_per_s: float, burst: float, now: float) -> Bucket:
        before = self._buckets[name].level if name in self._buckets else burst
        bucket = super()._bucket(name, rate_per_s, burst, now)
        bucket.level = max(bucket.level, before)
        return bucket


BROKEN: list[Broken[InMemoryLimits]] = [
    (ClosesWithTheFirst, "it_may_be_opened_again_and_each_opening_is_closed_by_itself", {}),
    (GivesOneMore, "permits_are_given_until_none_is_left", {}),
    (CountsHoldersNotWeights, "the_weights_of_racing_holders_never_exceed_the_permits", {}),
    (CountsHoldersNotWeights, "release_frees_what_that_holder_had_and_nothing_else", {}),
    (TakesAnyWeight, "a_weight_that_can_never_fit_is_refused", {"weight": 4}),
    (TakesAnyWeight, "a_weight_that_can_never_fit_is_refused", {"weight": 0}),
    (GivesAnew, "acquiring_again_under_the_same_holder_is_the_same_grant", {}),
    (HoldsForEver, "the_permits_of_a_dead_holder_are_free_one_lease_later", {}),
    (RenewsNothing, "a_holder_that_renews_keeps_its_permits", {}),
    (RenewsAnybody, "renew_answers_for_each_holder_and_gives_nothing_to_others", {}),
    (RenewsAnybody, "a_zombie_neither_renews_nor_releases_the_permits_of_its_heir", {}),
    (RenewsZombies, "a_zombie_neither_renews_nor_releases_the_permits_of_its_heir", {}),
    (FreesAnyPermit, "release_frees_what_that_holder_had_and_nothing_else", {}),
    (FreesAnyPermit, "a_zombie_neither_renews_nor_releases_the_permits_of_its_heir", {}),
    (FreesOfAnyName, "semaphores_of_different_names_know_nothing_of_each_other", {}),
    (SaysNever, "who_is_not_granted_is_told_when_to_ask_again", {}),
    (with_line(NobodyWaits), "nobody_takes_a_free_permit_before_those_who_wait_for_it", {}),
    (with_line(NobodyWaits), "a_heavy_waiter_is_not_starved_by_light_ones", {}),
    (with_line(NobodyWaits), "waiters_of_one_tenant_are_served_in_the_order_they_came", {}),
    (with_line(NobodyWaits), "a_heavy_reserve_is_not_starved_by_light_ones", {}),
    (with_line(LightFirst), "a_heavy_waiter_is_not_starved_by_light_ones", {}),
    (with_line(LastFirst), "waiters_of_one_tenant_are_served_in_the_order_they_came", {}),
    (with_line(TenantsAreOne), "waiters_are_served_fairly_by_tenant", {}),
    (with_line(TenantsAreOne), "reserves_are_granted_fairly_by_tenant", {}),
    (with_line(PlacesForEver), "a_waiter_who_does_not_ask_again_loses_its_place_after_one_lease", {}),
    (with_line(PlacesForOneAsking), "a_waiter_who_keeps_asking_keeps_its_place", {}),
    (with_line(NobodyLeaves), "release_leaves_the_line", {}),
    (with_line(NobodyLeaves), "who_settles_before_it_was_granted_leaves_the_line", {}),
    (NeverEmpty, "a_new_bucket_gives_out_its_burst_at_once_and_no_more", {}),
    (NeverEmpty, "racing_callers_get_no_more_than_burst_and_rate_allow", {}),
    (NeverFills, "who_is_not_granted_is_told_when_there_will_be_enough", {}),
    (NeverFills, "racing_callers_get_no_more_than_burst_and_rate_allow", {}),
    (FillsWithoutEnd, "a_bucket_fills_by_its_rate_and_never_above_its_burst", {}),
    (OneBucketForAll, "buckets_of_different_names_know_nothing_of_each_other", {}),
    (TakesAnyAmount, "an_amount_above_the_burst_is_refused", {}),
    (BooksEachAsking, "a_key_reserves_once_however_often_it_asks", {}),
    (BooksSettledKeysAnew, "a_settled_key_that_asks_again_is_granted_and_not_booked_again", {}),
    (SettlesNothing, "settle_gives_back_what_was_not_used", {}),
    (SettlesNothing, "settle_takes_what_was_used_beyond_the_reserve_below_zero_if_need_be", {}),
    (SettlesEachTime, "a_key_is_settled_once_however_often_it_is_called", {}),
    (ForgivesOverruns, "settle_takes_what_was_used_beyond_the_reserve_below_zero_if_need_be", {}),
    (NeverBelowZero, "settle_takes_what_was_used_beyond_the_reserve_below_zero_if_need_be", {}),
    (GivesBackAboveTheBurst, "what_is_given_back_never_lifts_a_bucket_above_its_burst", {}),
]


@pytest.mark.parametrize(("mutant", "law", "given"), named(BROKEN))
async def test_the_suite_notices_limits_that(mutant: type[InMemoryLimits], law: str, given: dict[str, object]) -> None:
    await assert_only_the_mutant_breaks(LimitsContract, law, InMemoryLimits, mutant, **given)


def test_each_law_of_limits_has_a_mutant_that_breaks_it() -> None:
    assert laws_without_a_mutant(LimitsContract, BROKEN) == []
