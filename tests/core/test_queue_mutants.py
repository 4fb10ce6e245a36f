"""For each law of the queue an adapter that drops it, and the test of the suite that fails on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import count
from typing import Any

import pytest

from agentkit.clock import Clock
from agentkit.errors import QueueFull
from agentkit.inmemory.line import FairLine, WeightedTurns
from agentkit.inmemory.queue import Entry, InMemoryQueue, LeaseWaiter, State
from agentkit.ports.queue import DeadTicket, Depth, Lease, Ticket
from agentkit.testing.queue import QueueContract
from tests.core.mutants import Broken, assert_only_the_mutant_breaks, named


class SmallQueue(InMemoryQueue):
    """The queue that is right, as the suite wants it opened."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, max_depth=QueueContract.max_depth)


class AnswersWithoutFence(SmallQueue):
    def _held(self, lease: Lease) -> Entry | None:
        return next((entry for entry in self._leased.values() if entry.ticket.id == lease.ticket.id), None)


class TellsZombiesYes(SmallQueue):
    def _answer(self, leases: Sequence[Lease], act: Callable[[Entry, float], None]) -> list[bool]:
        return [True for _ in super()._answer(leases, act)]


class CountsAttemptsByCopy(SmallQueue):
    def _next_attempt(self, entry: Entry) -> int:
        return entry.attempt + 1


class KeepsTheAttempt(SmallQueue):
    def _next_attempt(self, entry: Entry) -> int:  # noqa: ARG002
        return 1


class DedupsByRun(SmallQueue):
    def _twin(self, ticket: Ticket) -> Entry | None:
        return next(iter(self._undelivered.get(ticket.run_id, {}).values()), None)


class SwallowsPutsOfLeasedTickets(SmallQueue):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        leased = {entry.ticket.id for entry in self._leased.values()}
        return [ticket for ticket in super()._fresh(tickets) if ticket.id not in leased]


class SwallowsPutsForEver(SmallQueue):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        seen = self.__dict__.setdefault("seen", set[str]())
        fresh = [ticket for ticket in super()._fresh(tickets) if ticket.id not in seen]
        seen.update(ticket.id for ticket in fresh)
        return fresh


class DropsBothCopies(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        twin = self._twin(entry.ticket)
        if twin:
            self._drop(twin)
            self._drop(entry)
        else:
            super()._return(entry, due, now)


class PutsTwice(SmallQueue):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        return list(tickets)


class DedupsInsideOnePutOnly(SmallQueue):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        return list({ticket.id: ticket for ticket in tickets}.values())


class HandsOutTwice(SmallQueue):
    def _deliver(self, entry: Entry, until: float) -> Lease:
        lease = super()._deliver(entry, until)
        self._await(Entry(entry.ticket, entry.born, 0.0), self._clock.monotonic())
        return lease


class LosesWhatWasNotAnswered(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        self._drop(entry)


class RedeliversOnTrafficOnly(SmallQueue):
    def _next_due(self) -> float:
        return float("inf")


class RedeliversLate(SmallQueue):
    def _hold(self, entry: Entry, until: float) -> None:
        now = self._clock.monotonic()
        super()._hold(entry, now + 1.5 * (until - now))


class RenewsNothing(SmallQueue):
    def _renew(self, entry: Entry, until: float) -> None:
        pass


class KeepsWhatWasFinished(SmallQueue):
    def _finish(self, entry: Entry) -> None:
        self._return(entry, self._clock.monotonic(), self._clock.monotonic())


class CountsGivenBack(SmallQueue):
    def _give_back(self, entry: Entry, delay_s: float, now: float) -> None:
        entry.deliveries += 1
        super()._give_back(entry, delay_s, now)


class CountsRetries(SmallQueue):
    def _retry(self, entry: Entry, delay_s: float, now: float) -> None:
        entry.deliveries += 1
        super()._retry(entry, delay_s, now)


class CountsNoDelivery(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        entry.deliveries = 0
        super()._return(entry, due, now)


class GivesBackToTheEndOfTheLine(SmallQueue):
    def _give_back(self, entry: Entry, delay_s: float, now: float) -> None:
        entry.place = 0
        super()._give_back(entry, delay_s, now)


class LosesThePlaceWithTheLease(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        entry.place = 0
        super()._return(entry, due, now)


class LastFirst(SmallQueue):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._places = count(-1, -1)


class StrictTurns(WeightedTurns):
    def next(self, present: Iterable[int]) -> int:
        return max(present)


class StrictPriority(SmallQueue):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._turns = StrictTurns({})


class NoPriority(SmallQueue):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._turns = WeightedTurns({0: 1, 1: 1, 2: 1})


class FirstTenantOnly(FairLine[Entry]):
    def next_tenant(self) -> None:
        pass


class UnfairToTenants(SmallQueue):
    def _new_line(self) -> FairLine[Entry]:
        return FirstTenantOnly(self._is_offered)


class FairBetweenBatches(SmallQueue):
    def _take(self, n: int, lease_s: float, kinds: AbstractSet[str], now: float) -> list[Lease]:
        leases = super()._take(1, lease_s, kinds, now)
        rest = [entry for runs in self._undelivered.values() for entry in runs.values() if entry.state is State.READY]
        for entry in sorted(rest, key=lambda entry: entry.place)[: n - 1]:
            if leases and entry.ticket.tenant == leases[0].ticket.tenant:
                leases.append(self._deliver(entry, now + lease_s))
        return leases


class ShufflesATenant(SmallQueue):
    def _line_up(self, entry: Entry) -> None:
        if entry.ticket.tenant and entry.place > 0:
            entry.place = -entry.place
        super()._line_up(entry)


class ForgetsKeys(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        await super().put([ticket._replace(key="") for ticket in tickets], delay_s=delay_s)


class FreesKeysAtTheLease(SmallQueue):
    def _deliver(self, entry: Entry, until: float) -> Lease:
        lease = super()._deliver(entry, until)
        if key := self._keys.get(entry.ticket.key):
            key.busy = False
            self._offer(entry.ticket.key)
        return lease


class FreesKeysAtTheFinishOnly(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        key = self._keys.get(entry.ticket.key)
        super()._return(entry, due, now)
        if key:
            key.busy, key.offered = True, None


class FreesKeysSilently(SmallQueue):
    def _finish(self, entry: Entry) -> None:
        waiters, self._waiters = self._waiters, set[LeaseWaiter]()
        super()._finish(entry)
        self._waiters = waiters


class WakesNobody(SmallQueue):
    def _wake(self, whom: Callable[[LeaseWaiter], bool]) -> None:
        pass


class WaitsForEver(SmallQueue):
    async def lease(self, n: int, *, wait_s: float, lease_s: float, kinds: AbstractSet[str]) -> list[Lease]:
        return await super().lease(n, wait_s=100 * wait_s, lease_s=lease_s, kinds=kinds)


class DelaysNothing(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:  # noqa: ARG002
        await super().put(tickets)


class RetriesAtOnce(SmallQueue):
    def _retry(self, entry: Entry, delay_s: float, now: float) -> None:  # noqa: ARG002
        super()._retry(entry, 0.0, now)


class GivesBackAtOnce(SmallQueue):
    def _give_back(self, entry: Entry, delay_s: float, now: float) -> None:  # noqa: ARG002
        super()._give_back(entry, 0.0, now)


class DedupsReadyOnly(SmallQueue):
    def _twin(self, ticket: Ticket) -> Entry | None:
        twin = super()._twin(ticket)
        return twin if twin and twin.state is State.READY else None


class HasNoBound(SmallQueue):
    def _check_room(self, more: int) -> None:
        pass


class WritesUntilItIsFull(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        for ticket in tickets:
            await super().put([ticket], delay_s=delay_s)


class CountsDoublesAgainstTheBound(SmallQueue):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        self._check_room(len(list(tickets)))
        return super()._fresh(tickets)


class RefusesWithoutATime(SmallQueue):
    def _check_room(self, more: int) -> None:
        try:
            super()._check_room(more)
        except QueueFull as full:
            raise QueueFull("queue", full.limit, 0.0) from full


class NeverHasRoomAgain(SmallQueue):
    def _check_room(self, more: int) -> None:
        super()._check_room(more + self._attempts)


class CountsDelayedAsReady(SmallQueue):
    def _depth(self, kind: str, now: float) -> Depth:
        depth = super()._depth(kind, now)
        return depth._replace(ready=depth.ready + depth.delayed, delayed=0)


class CountsLeasedAsReady(SmallQueue):
    def _depth(self, kind: str, now: float) -> Depth:
        depth = super()._depth(kind, now)
        return depth._replace(ready=depth.ready + depth.leased, leased=0)


class ForgetsTheDeadInDepth(SmallQueue):
    def _depth(self, kind: str, now: float) -> Depth:
        return super()._depth(kind, now)._replace(dead=0)


class TellsNoAge(SmallQueue):
    def _depth(self, kind: str, now: float) -> Depth:
        return super()._depth(kind, now)._replace(oldest_s=0.0)


class AgesFromTheLastReturn(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        entry.born = now
        super()._return(entry, due, now)


class CountsVersionsTogether(SmallQueue):
    async def depth(self) -> dict[str, Depth]:
        return dict.fromkeys(["reviewer@3"], sum_of(await super().depth()))


def sum_of(depths: dict[str, Depth]) -> Depth:
    return Depth(*(int(sum(column)) for column in list(zip(*depths.values(), strict=True))[:4]))


class ServesEverybody(SmallQueue):
    def _next(self, kinds: AbstractSet[str]) -> Entry | None:  # noqa: ARG002
        return super()._next({kind for _, kind in self._lines})


class ServesAnyVersion(SmallQueue):
    def _next(self, kinds: AbstractSet[str]) -> Entry | None:
        names = {kind.partition("@")[0] for kind in kinds}
        return super()._next({kind for _, kind in self._lines if kind.partition("@")[0] in names})


class GivesOneMore(SmallQueue):
    def _take(self, n: int, lease_s: float, kinds: AbstractSet[str], now: float) -> list[Lease]:
        return super()._take(n + 1, lease_s, kinds, now)


class BuriesWithoutATrace(SmallQueue):
    def _bury(self, entry: Entry, reason: str) -> None:  # noqa: ARG002
        self._drop(entry)


class BuriesWithoutReason(SmallQueue):
    def _bury(self, entry: Entry, reason: str) -> None:  # noqa: ARG002
        super()._bury(entry, "")


class ShowsTheDeadOfAll(SmallQueue):
    async def dead(self, *, kind: str | None = None, limit: int = 100) -> list[DeadTicket]:  # noqa: ARG002
        return await super().dead(limit=limit)


class RevivesWithOldDeliveries(SmallQueue):
    def _revive(self, entry: Entry, now: float) -> None:
        super()._revive(entry, now)
        self._undelivered[entry.ticket.run_id][entry.ticket.wake].deliveries = entry.deliveries


class RevivesAgainAndAgain(SmallQueue):
    def _revive(self, entry: Entry, now: float) -> None:
        letter = self._dead[entry.ticket.id]
        super()._revive(entry, now)
        self._dead[entry.ticket.id] = letter


class RevivesAll(SmallQueue):
    async def redrive(self, run_ids: Sequence[str] | None = None, *, kind: str | None = None) -> list[str]:  # noqa: ARG002
        return await super().redrive()


class CancelsNothing(SmallQueue):
    async def cancel(self, run_ids: Sequence[str]) -> int:
        return len(run_ids) - 1


class CancelsLeased(SmallQueue):
    async def cancel(self, run_ids: Sequence[str]) -> int:
        for entry in [entry for entry in self._leased.values() if entry.ticket.run_id in run_ids]:
            self._drop(entry)
        return await super().cancel(run_ids)


class CancelsReadyOnly(SmallQueue):
    async def cancel(self, run_ids: Sequence[str]) -> int:
        self._settle()
        return await super().cancel([each for each in run_ids if all(e.state is State.READY for e in self._undelivered[each].values())])


class ForgetsFields(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        await super().put([ticket._replace(trace="") for ticket in tickets], delay_s=delay_s)


class ClosesWithTheFirst(SmallQueue):
    async def aclose(self) -> None:
        self._undelivered.clear()
        self._max_depth = 0

    def _check_room(self, more: int) -> None:
        assert more <= self._max_depth, "closed"


class PromisesKeys(SmallQueue):
    supports_keys = False


def _zombies(mutant: type[SmallQueue], law: str) -> list[Broken[SmallQueue]]:
    return [(mutant, law, {"answer": answer}) for answer in ("renew", "finish", "give_back", "retry", "bury")]


def _coming_back(mutant: type[SmallQueue], law: str, *answers: str) -> list[Broken[SmallQueue]]:
    return [(mutant, law, {"answer": answer}) for answer in answers]


NOT_TWICE = "a_ticket_whose_copy_still_waits_is_not_put_twice"
NOT_COUNTED = "a_delivery_that_was_given_back_or_is_to_be_retried_does_not_count"
SILENT = "a_lease_that_ran_out_is_delivered_again_within_a_quarter_lease_more_on_a_silent_queue"
KEY_ORDER = "tickets_of_one_key_are_leased_in_order_one_at_a_time"
FIFO = "tickets_of_one_priority_and_tenant_are_leased_in_the_order_of_their_puts"
DEPTH = "depth_counts_ready_delayed_leased_and_dead_apart_for_each_version"
BOUND = "a_put_over_the_bound_is_refused_whole"
LATER = "what_is_to_come_back_later_comes_back_later"

BROKEN: list[Broken[Any]] = [
    *_zombies(AnswersWithoutFence, "an_answer_of_a_zombie_changes_nothing_and_is_told_so"),
    *_zombies(AnswersWithoutFence, "a_zombie_has_no_power_over_a_later_copy_of_its_ticket"),
    *_coming_back(AnswersWithoutFence, "an_answer_of_a_zombie_does_not_lengthen_the_lease_of_another", "renew", "finish", "bury"),
    *_zombies(CountsAttemptsByCopy, "a_zombie_has_no_power_over_a_later_copy_of_its_ticket")[:0],
    *_zombies(TellsZombiesYes, "a_lease_that_was_finished_takes_no_second_answer"),
    (TellsZombiesYes, "of_many_racing_answers_to_one_lease_exactly_one_counts", {}),
    (TellsZombiesYes, "answers_are_told_one_by_one_in_their_order", {}),
    (CountsAttemptsByCopy, "the_attempts_of_a_ticket_grow_and_never_repeat", {}),
    *_zombies(KeepsTheAttempt, "an_answer_of_a_zombie_changes_nothing_and_is_told_so"),
    *_zombies(KeepsTheAttempt, "a_zombie_has_no_power_over_a_later_copy_of_its_ticket"),
    (DedupsByRun, "a_new_wake_of_a_run_is_not_swallowed_while_its_old_ticket_waits", {}),
    (SwallowsPutsOfLeasedTickets, "a_put_made_after_the_lease_of_its_copy_is_delivered", {}),
    (SwallowsPutsForEver, "a_ticket_may_be_put_again_after_it_was_finished", {}),
    *_coming_back(DropsBothCopies, "a_put_made_after_the_lease_of_its_copy_survives_that_copy_coming_back", "give_back", "retry"),
    (PutsTwice, NOT_TWICE, {}),
    (PutsTwice, "racing_puts_of_one_ticket_leave_one", {}),
    (DedupsInsideOnePutOnly, NOT_TWICE, {}),
    (DedupsReadyOnly, "a_delayed_ticket_is_undelivered_for_dedup_and_cancel", {}),
    (HandsOutTwice, "a_leased_ticket_is_not_given_to_anybody_else", {}),
    (LosesWhatWasNotAnswered, SILENT, {}),
    (LosesWhatWasNotAnswered, "every_expired_lease_of_a_dead_consumer_is_delivered_again", {}),
    (RedeliversOnTrafficOnly, SILENT, {}),
    (RedeliversLate, SILENT, {}),
    (RenewsNothing, "a_renewed_lease_is_not_delivered_again", {}),
    (KeepsWhatWasFinished, "a_finished_ticket_never_comes_back", {}),
    (CountsGivenBack, NOT_COUNTED, {"answer": "give_back"}),
    (CountsRetries, NOT_COUNTED, {"answer": "retry"}),
    (CountsNoDelivery, "deliveries_without_an_answer_are_counted", {}),
    (CountsNoDelivery, NOT_COUNTED, {"answer": "retry"}),
    (GivesBackToTheEndOfTheLine, "what_is_given_back_keeps_its_place_in_the_line", {}),
    (LosesThePlaceWithTheLease, "a_ticket_whose_lease_ran_out_keeps_its_place_in_the_line", {}),
    (LosesThePlaceWithTheLease, "a_key_whose_holder_died_goes_on_with_the_same_ticket", {}),
    (LastFirst, FIFO, {}),
    *[(StrictPriority, "a_low_ticket_ages_past_a_stream_of_high_ones", {"n": n}) for n in (1, 4)],
    *[(NoPriority, "higher_priorities_go_first_by_weight", {"n": n}) for n in (1, 12)],
    (UnfairToTenants, "tenants_share_the_queue_however_much_one_of_them_put", {}),
    (UnfairToTenants, "a_batch_is_shared_between_tenants_too", {}),
    (FairBetweenBatches, "a_batch_is_shared_between_tenants_too", {}),
    (ShufflesATenant, "a_tenant_gets_its_own_tickets_in_their_order", {}),
    (ForgetsKeys, KEY_ORDER, {}),
    (FreesKeysAtTheLease, KEY_ORDER, {}),
    (FreesKeysAtTheLease, "racing_consumers_never_hold_two_tickets_of_a_key", {}),
    (FreesKeysAtTheFinishOnly, "a_key_is_free_again_after_any_answer", {}),
    (FreesKeysSilently, "the_next_of_a_key_wakes_a_waiting_lease_when_it_gets_free", {}),
    (WakesNobody, "a_waiting_lease_is_woken_by_a_put_and_does_not_sit_out_its_wait", {}),
    (WakesNobody, "a_waiting_lease_sees_a_delay_that_was_put_while_it_waited", {}),
    (WaitsForEver, "a_waiting_lease_comes_back_empty_when_its_wait_is_over", {}),
    (DelaysNothing, "a_delayed_ticket_is_leased_when_it_is_due_and_not_before", {}),
    (RedeliversOnTrafficOnly, "a_delayed_ticket_is_leased_when_it_is_due_and_not_before", {}),
    (RetriesAtOnce, LATER, {"answer": "retry"}),
    (GivesBackAtOnce, LATER, {"answer": "give_back"}),
    (HasNoBound, BOUND, {}),
    (HasNoBound, "racing_puts_never_go_over_the_bound", {}),
    (WritesUntilItIsFull, BOUND, {}),
    (CountsDoublesAgainstTheBound, BOUND, {}),
    (RefusesWithoutATime, BOUND, {}),
    (NeverHasRoomAgain, BOUND, {}),
    (CountsDelayedAsReady, DEPTH, {}),
    (CountsLeasedAsReady, DEPTH, {}),
    (ForgetsTheDeadInDepth, DEPTH, {}),
    (CountsVersionsTogether, DEPTH, {}),
    (TellsNoAge, "depth_tells_the_age_of_the_oldest_undelivered_ticket", {}),
    (AgesFromTheLastReturn, "depth_tells_the_age_of_the_oldest_undelivered_ticket", {}),
    (ServesEverybody, "a_lease_gives_only_what_the_caller_serves_version_by_version", {}),
    (ServesAnyVersion, "a_lease_gives_only_what_the_caller_serves_version_by_version", {}),
    (GivesOneMore, "a_lease_gives_no_more_than_was_asked_for", {}),
    (BuriesWithoutATrace, "a_buried_ticket_waits_among_the_dead_with_its_reason", {}),
    (BuriesWithoutReason, "a_buried_ticket_waits_among_the_dead_with_its_reason", {}),
    (ShowsTheDeadOfAll, "a_buried_ticket_waits_among_the_dead_with_its_reason", {}),
    (RevivesWithOldDeliveries, "what_is_redriven_is_delivered_once_and_as_new", {}),
    (RevivesAgainAndAgain, "what_is_redriven_is_delivered_once_and_as_new", {}),
    (RevivesAll, "what_is_redriven_is_delivered_once_and_as_new", {}),
    (CancelsNothing, "cancel_drops_what_is_undelivered_and_nothing_else", {}),
    (CancelsLeased, "cancel_drops_what_is_undelivered_and_nothing_else", {}),
    (CancelsReadyOnly, "a_delayed_ticket_is_undelivered_for_dedup_and_cancel", {}),
    (ForgetsFields, "what_one_client_put_another_leases_as_it_was", {}),
    (ClosesWithTheFirst, "it_may_be_opened_again_and_each_opening_is_closed_by_itself", {}),
    (PromisesKeys, "it_offers_what_its_test_says", {}),
]


@pytest.mark.parametrize(("mutant", "law", "given"), named(BROKEN))
async def test_the_suite_notices_a_queue_that(mutant: type[SmallQueue], law: str, given: dict[str, object]) -> None:
    await assert_only_the_mutant_breaks(QueueContract, law, SmallQueue, mutant, **given)
