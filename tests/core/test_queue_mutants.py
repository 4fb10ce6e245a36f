"""For each law of the queue an adapter that drops it, and the test of the suite that fails on it."""

from __future__ import annotations

import pytest

from agentkit.testing.queue import QueueContract
from tests.core import queue_mutants as mutants
from tests.core.mutants import Broken, assert_only_the_mutant_breaks, laws_without_a_mutant, named
from tests.core.queue_mutants import SmallQueue


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
WEIGHT = "a_tenant_of_three_times_the_weight_gets_three_times_the_turns"
LATE = "a_tenant_that_comes_late_gets_the_turns_of_its_weight_from_then_on"
KEPT = "a_ticket_keeps_its_weight_wherever_it_goes"
LATER = "what_is_to_come_back_later_comes_back_later"

BROKEN: list[Broken[SmallQueue]] = [
    (mutants.LosesEachThousandth, "of_ten_thousand_tickets_two_racing_consumers_get_each_once", {}),
    (mutants.TakesTicketsAlongWhenCancelled, "a_cancelled_lease_takes_nothing_with_it", {}),
    *_zombies(mutants.AnswersWithoutFence, "an_answer_of_a_zombie_changes_nothing_and_is_told_so"),
    *_zombies(mutants.AnswersWithoutFence, "a_zombie_has_no_power_over_a_later_copy_of_its_ticket"),
    *_coming_back(mutants.AnswersWithoutFence, "an_answer_of_a_zombie_does_not_lengthen_the_lease_of_another", "renew", "finish", "bury"),
    *_zombies(mutants.CountsAttemptsByCopy, "a_zombie_has_no_power_over_a_later_copy_of_its_ticket"),
    *_zombies(mutants.TellsZombiesYes, "a_lease_that_was_finished_takes_no_second_answer"),
    (mutants.TellsZombiesYes, "of_many_racing_answers_to_one_lease_exactly_one_counts", {}),
    (mutants.TellsZombiesYes, "answers_are_told_one_by_one_in_their_order", {}),
    (mutants.CountsAttemptsByCopy, "the_attempts_of_a_ticket_grow_and_never_repeat", {}),
    *_zombies(mutants.KeepsTheAttempt, "an_answer_of_a_zombie_changes_nothing_and_is_told_so"),
    *_zombies(mutants.KeepsTheAttempt, "a_zombie_has_no_power_over_a_later_copy_of_its_ticket"),
    (mutants.DedupsByRun, "a_new_wake_of_a_run_is_not_swallowed_while_its_old_ticket_waits", {}),
    (mutants.SwallowsPutsOfLeasedTickets, "a_put_made_after_the_lease_of_its_copy_is_delivered", {}),
    (mutants.SwallowsPutsForEver, "a_ticket_may_be_put_again_after_it_was_finished", {}),
    *_coming_back(mutants.DropsBothCopies, "a_put_made_after_the_lease_of_its_copy_survives_that_copy_coming_back", "give_back", "retry"),
    (mutants.PutsTwice, NOT_TWICE, {}),
    (mutants.PutsTwice, "racing_puts_of_one_ticket_leave_one", {}),
    (mutants.DedupsInsideOnePutOnly, NOT_TWICE, {}),
    (mutants.DedupsReadyOnly, "a_delayed_ticket_is_undelivered_for_dedup_and_cancel", {}),
    (mutants.HandsOutTwice, "a_leased_ticket_is_not_given_to_anybody_else", {}),
    (mutants.LosesWhatWasNotAnswered, SILENT, {}),
    (mutants.LosesWhatWasNotAnswered, "every_expired_lease_of_a_dead_consumer_is_delivered_again", {}),
    (mutants.RedeliversOnTrafficOnly, SILENT, {}),
    (mutants.RedeliversLate, SILENT, {}),
    (mutants.RenewsNothing, "a_renewed_lease_is_not_delivered_again", {}),
    (mutants.KeepsWhatWasFinished, "a_finished_ticket_never_comes_back", {}),
    (mutants.CountsGivenBack, NOT_COUNTED, {"answer": "give_back"}),
    (mutants.CountsRetries, NOT_COUNTED, {"answer": "retry"}),
    (mutants.CountsNoDelivery, "deliveries_without_an_answer_are_counted", {}),
    (mutants.CountsNoDelivery, NOT_COUNTED, {"answer": "retry"}),
    (mutants.GivesBackToTheEndOfTheLine, "what_is_given_back_keeps_its_place_in_the_line", {}),
    (mutants.LosesThePlaceWithTheLease, "a_ticket_whose_lease_ran_out_keeps_its_place_in_the_line", {}),
    (mutants.LosesThePlaceWithTheLease, "a_key_whose_holder_died_goes_on_with_the_same_ticket", {}),
    (mutants.LastFirst, FIFO, {}),
    (mutants.StrictPriority, "a_low_ticket_ages_past_a_stream_of_high_ones", {"n": 1}),
    (mutants.StrictPriority, "a_low_ticket_ages_past_a_stream_of_high_ones", {"n": 4}),
    (mutants.NoPriority, "higher_priorities_go_first_by_weight", {"n": 1}),
    (mutants.NoPriority, "higher_priorities_go_first_by_weight", {"n": 12}),
    (mutants.UnfairToTenants, "tenants_share_the_queue_however_much_one_of_them_put", {}),
    (mutants.UnfairToTenants, "a_batch_is_shared_between_tenants_too", {}),
    (mutants.FairBetweenBatches, "a_batch_is_shared_between_tenants_too", {}),
    (mutants.WeighsNobody, WEIGHT, {"n": 1}),
    (mutants.WeighsNobody, WEIGHT, {"n": 8}),
    (mutants.WeighsWhoComesLateByOne, LATE, {}),
    (mutants.SavesTurnsUp, LATE, {}),
    (mutants.SavesTurnsUp, "a_tenant_with_nothing_waiting_saves_no_turns_up", {}),
    (mutants.ForgetsTheWeightOfADelay, KEPT, {"way": "delay"}),
    (mutants.ForgetsTheWeightOfARetry, KEPT, {"way": "retry"}),
    (mutants.RevivesWithoutTheWeight, KEPT, {"way": "redrive"}),
    (mutants.TakesNoWeightForMuch, "a_weight_below_one_counts_as_one", {}),
    (mutants.ShufflesATenant, "a_tenant_gets_its_own_tickets_in_their_order", {}),
    (mutants.ForgetsKeys, KEY_ORDER, {}),
    (mutants.FreesKeysAtTheLease, KEY_ORDER, {}),
    (mutants.FreesKeysAtTheLease, "racing_consumers_never_hold_two_tickets_of_a_key", {}),
    (mutants.FreesKeysAtTheFinishOnly, "a_key_is_free_again_after_any_answer", {}),
    (mutants.FreesKeysSilently, "the_next_of_a_key_wakes_a_waiting_lease_when_it_gets_free", {}),
    (mutants.WakesNobody, "a_waiting_lease_is_woken_by_a_put_and_does_not_sit_out_its_wait", {}),
    (mutants.WakesNobody, "a_waiting_lease_sees_a_delay_that_was_put_while_it_waited", {}),
    (mutants.WaitsForEver, "a_waiting_lease_comes_back_empty_when_its_wait_is_over", {}),
    (mutants.DelaysNothing, "a_delayed_ticket_is_leased_when_it_is_due_and_not_before", {}),
    (mutants.RedeliversOnTrafficOnly, "a_delayed_ticket_is_leased_when_it_is_due_and_not_before", {}),
    (mutants.RetriesAtOnce, LATER, {"answer": "retry"}),
    (mutants.GivesBackAtOnce, LATER, {"answer": "give_back"}),
    (mutants.HasNoBound, BOUND, {}),
    (mutants.HasNoBound, "racing_puts_never_go_over_the_bound", {}),
    (mutants.WritesUntilItIsFull, BOUND, {}),
    (mutants.CountsDoublesAgainstTheBound, BOUND, {}),
    (mutants.RefusesWithoutATime, BOUND, {}),
    (mutants.NeverHasRoomAgain, BOUND, {}),
    (mutants.CountsDelayedAsReady, DEPTH, {}),
    (mutants.CountsLeasedAsReady, DEPTH, {}),
    (mutants.ForgetsTheDeadInDepth, DEPTH, {}),
    (mutants.CountsVersionsTogether, DEPTH, {}),
    (mutants.BringsBackOnLeaseOnly, "a_ticket_whose_delay_is_over_counts_as_ready_though_nobody_asked_for_one", {}),
    (mutants.TellsNoAge, "depth_tells_the_age_of_the_oldest_undelivered_ticket", {}),
    (mutants.AgesFromTheLastReturn, "depth_tells_the_age_of_the_oldest_undelivered_ticket", {}),
    (mutants.ServesEverybody, "a_lease_gives_only_what_the_caller_serves_version_by_version", {}),
    (mutants.ServesAnyVersion, "a_lease_gives_only_what_the_caller_serves_version_by_version", {}),
    (mutants.GivesOneMore, "a_lease_gives_no_more_than_was_asked_for", {}),
    (mutants.BuriesWithoutATrace, "a_buried_ticket_waits_among_the_dead_with_its_reason", {}),
    (mutants.BuriesWithoutReason, "a_buried_ticket_waits_among_the_dead_with_its_reason", {}),
    (mutants.ShowsTheDeadOfAll, "a_buried_ticket_waits_among_the_dead_with_its_reason", {}),
    (mutants.RevivesWithOldDeliveries, "what_is_redriven_is_delivered_once_and_as_new", {}),
    (mutants.RevivesAgainAndAgain, "what_is_redriven_is_delivered_once_and_as_new", {}),
    (mutants.RevivesAll, "what_is_redriven_is_delivered_once_and_as_new", {}),
    (mutants.CancelsNothing, "cancel_drops_what_is_undelivered_and_nothing_else", {}),
    (mutants.CancelsLeased, "cancel_drops_what_is_undelivered_and_nothing_else", {}),
    (mutants.CancelsReadyOnly, "a_delayed_ticket_is_undelivered_for_dedup_and_cancel", {}),
    (mutants.ForgetsFields, "what_one_client_put_another_leases_as_it_was", {}),
    (mutants.ClosesWithTheFirst, "it_may_be_opened_again_and_each_opening_is_closed_by_itself", {}),
    (mutants.PromisesKeys, "it_offers_what_its_test_says", {}),
]


@pytest.mark.parametrize(("mutant", "law", "given"), named(BROKEN))
async def test_the_suite_notices_a_queue_that(mutant: type[SmallQueue], law: str, given: dict[str, object]) -> None:
    await assert_only_the_mutant_breaks(QueueContract, law, SmallQueue, mutant, **given)


def test_each_law_of_the_queue_has_a_mutant_that_breaks_it() -> None:
    assert laws_without_a_mutant(QueueContract, BROKEN) == []
