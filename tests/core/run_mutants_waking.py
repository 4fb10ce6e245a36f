"""Mutants: what signals, parks, joins, sweeps, lists and purges must not leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from anyio.lowlevel import checkpoint

from agentkit.inmemory.run_rows import JoinState, Row, ticket_for
from agentkit.inmemory.runs import InMemoryRuns
from agentkit.ports.queue import Ticket
from agentkit.ports.records import Join, Release, Run, RunQuery, RunStatus, RunWrite, Signalled, Swept, TakenOver, Written
from tests.core.run_mutants import breaks


@breaks(
    "a_park_that_has_not_read_the_last_signal_does_not_happen",
    "a_park_that_races_a_signal_never_sleeps_through_it",
    "one_that_did_not_park_does_not_disturb_its_neighbours",
)
class ParkWithoutCompare(InMemoryRuns):
    def _inbox_moved(self, run: Run, seen: int | None) -> bool:
        return False


@breaks("a_park_that_has_not_read_the_last_signal_does_not_happen")
class MovedDropsTheEntries(InMemoryRuns):
    def _write(self, worker_id: str, write: RunWrite) -> Written:
        row = self._row(write.run_id)
        if row and write.release and write.release.status is RunStatus.PARKED and self._inbox_moved(row.run, write.release.seen):
            return Written("moved", row.run.inbox_seq)
        return super()._write(worker_id, write)


@breaks("one_that_did_not_park_does_not_disturb_its_neighbours", "a_park_that_has_not_read_the_last_signal_does_not_happen")
class MovedMeansLost(InMemoryRuns):
    def _write(self, worker_id: str, write: RunWrite) -> Written:
        written = super()._write(worker_id, write)
        return written._replace(verdict="lost") if written.verdict == "moved" else written


@breaks("a_park_that_races_a_signal_never_sleeps_through_it")
class SignalInTwoSteps(InMemoryRuns):
    async def signal(self, run_id: str, message_id: str, topic: str, body: bytes) -> Signalled:
        row = self._row(run_id)
        asleep = row is not None and row.run.status is RunStatus.PARKED
        for _ in range(3):
            await checkpoint()
        if row is None or asleep:
            return await super().signal(run_id, message_id, topic, body)
        row.receive(message_id, topic, body)
        self._table.change(row, inbox_seq=row.run.inbox_seq + 1)
        return Signalled("accepted")


@breaks(
    "a_signal_to_a_parked_run_is_accepted_and_wakes_it",
    "a_cancel_of_a_run_that_started_is_a_message_to_it",
    "a_parent_of_many_is_woken_once_when_all_have_ended",
)
class SignalWithoutWake(InMemoryRuns):
    def _sleeps(self, run: Run, topic: str) -> bool:
        return False


@breaks("a_repeated_id_is_a_duplicate_whoever_took_the_first", "of_many_racing_senders_of_one_id_one_is_accepted")
class NoDedup(InMemoryRuns):
    def _seen_before(self, row: Row, message_id: str) -> bool:
        return False


@breaks("a_repeated_id_is_a_duplicate_whoever_took_the_first")
class TakenIsForgotten(InMemoryRuns):
    def _seen_before(self, row: Row, message_id: str) -> bool:
        message = row.inbox.get(message_id)
        return message is not None and message.taken_seq is None


@breaks("message_ids_that_differ_in_case_or_spaces_are_different_messages")
class MessageIdsComparedLikeWords(InMemoryRuns):
    def _seen_before(self, row: Row, message_id: str) -> bool:
        return message_id.strip().casefold() in {known.strip().casefold() for known in row.inbox}


@breaks("a_ticket_noted_late_leaves_the_next_wake_its_own", "the_ticket_of_a_run_taken_over_is_not_that_of_its_dead_owner")
class TicketsByRunAlone(InMemoryRuns):
    def _next_wake(self, run: Run) -> int:
        return 0


@breaks("a_ticket_noted_late_leaves_the_next_wake_its_own")
class NotesAnyWake(InMemoryRuns):
    def _note_ticket(self, ticket: Ticket) -> None:
        row = self._row(ticket.run_id)
        super()._note_ticket(ticket._replace(wake=row.run.wake) if row else ticket)


@breaks("a_ticket_noted_for_a_run_that_is_gone_or_started_changes_nothing")
class NotesAnyState(InMemoryRuns):
    def _note_ticket(self, ticket: Ticket) -> None:
        row = self._row(ticket.run_id)
        if row:
            self._table.change(row, status=RunStatus.READY, ticketed=True)


@breaks("a_cancel_ends_a_run_that_never_started_at_once", "cancelling_the_children_ends_those_that_never_started_and_tells_the_others")
class CancelOnlyRunning(InMemoryRuns):
    def _never_started(self, run: Run) -> bool:
        return False


@breaks("a_cancel_of_a_run_that_started_is_a_message_to_it", "cancelling_the_children_ends_those_that_never_started_and_tells_the_others")
class CancelEndsAll(InMemoryRuns):
    def _never_started(self, run: Run) -> bool:
        return True


@breaks("taking_a_message_is_its_entry_and_its_mark_in_one_write", "a_write_sent_twice_lands_once")
class TakenBeforeItsEntry(InMemoryRuns):
    def _write(self, worker_id: str, write: RunWrite) -> Written:
        if row := self._row(write.run_id):
            self._take(row, write)
        super()._write(worker_id, write)
        return Written("lost", 0)


@breaks("taking_a_message_is_its_entry_and_its_mark_in_one_write", "a_repeated_id_is_a_duplicate_whoever_took_the_first")
class NeverMarked(InMemoryRuns):
    def _take(self, row: Row, write: RunWrite) -> None:
        pass


@breaks("a_signal_to_an_ended_run_is_told_so_and_nothing_is_written")
class SignalsToTheEnded(InMemoryRuns):
    def _signal(self, row: Row, message_id: str, topic: str, body: bytes) -> Signalled:
        row.receive(message_id, topic, body)
        return super()._signal(row, f"again {message_id}", topic, body)


@breaks("no_signal_but_a_cancel_starts_a_child_outside_the_window")
class SignalOpensTheWindow(InMemoryRuns):
    def _sleeps(self, run: Run, topic: str) -> bool:
        return run.status is RunStatus.PARKED


@breaks(
    "no_more_children_are_ready_than_the_window_lets_through",
    "a_window_drains_a_thousand_children_and_never_holds_more",
)
class NoWindow(InMemoryRuns):
    def _enter_window(self, join: JoinState) -> bool:
        join.active += 1
        return True


@breaks("an_ending_child_lets_the_next_one_start", "a_window_drains_a_thousand_children_and_never_holds_more")
class WindowStaysShut(InMemoryRuns):
    def _fill_window(self, join: JoinState) -> list[Ticket]:
        return []


@breaks("a_child_cancelled_outside_the_window_leaves_no_place_in_it")
class EveryEndLeavesAPlace(InMemoryRuns):
    def _count(self, join: JoinState, child: Row) -> None:
        child.in_window = True
        super()._count(join, child)


@breaks("an_end_told_twice_or_by_many_counts_once", "racing_ends_wake_the_parent_once")
class TellInTwoSteps(InMemoryRuns):
    async def tell(self, child_ids: Sequence[str]) -> list[Ticket]:
        rows = [row for child_id in child_ids if (row := self._row(child_id)) and row.run.notify]
        await checkpoint()
        tickets: list[Ticket] = []
        for row in rows:
            self._table.change(row, notify=True)
            tickets += self._tell(row.run.run_id)
            parent = self._row(row.run.parent_id or "")
            if parent and parent.joins[row.run.parent_key].holds:
                tickets.append(ticket_for(parent.run))
        return tickets


@breaks("an_end_told_twice_or_by_many_counts_once")
class CountsAgain(InMemoryRuns):
    def _is_untold(self, child: Row) -> bool:
        return child.run.status.ended


@breaks("a_child_that_lives_is_not_counted")
class CountsTheLiving(InMemoryRuns):
    def _is_untold(self, child: Row) -> bool:
        return child.run.parent_key != ""


@breaks("a_parent_of_many_is_woken_once_when_all_have_ended", "a_join_of_ten_thousand_wakes_its_parent_once")
class WokenByEveryChild(InMemoryRuns):
    def _wakes_now(self, join: JoinState) -> bool:
        join.rule = Join(f"{join.rule.key}/{join.good + join.bad}", *join.rule[1:])
        return True


@breaks("enough_good_children_wake_the_parent", "too_many_bad_children_wake_the_parent", "a_buried_child_counts_as_bad")
class WaitsForAll(InMemoryRuns):
    def _wakes_now(self, join: JoinState) -> bool:
        return join.good + join.bad == join.rule.total and not join.fired


@breaks("once_the_condition_holds_no_further_child_starts")
class StartsOnAndOn(InMemoryRuns):
    def _tell(self, child_id: str) -> list[Ticket]:
        tickets = super()._tell(child_id)
        child = self._row(child_id)
        join = self._join(child.run.parent_id, child.run.parent_key) if child else None
        return tickets + (self._fill_window(join) if join else [])


@breaks("a_buried_child_counts_as_bad")
class BurialIsSilent(InMemoryRuns):
    def _is_awaited(self, row: Row, status: RunStatus) -> bool:
        return status is not RunStatus.BURIED and super()._is_awaited(row, status)


@breaks("a_child_without_a_join_is_nobodys_business")
class EveryChildIsAwaited(InMemoryRuns):
    def _is_awaited(self, row: Row, status: RunStatus) -> bool:
        return row.run.parent_id is not None


@breaks("ended_children_not_yet_told_are_found_by_a_sweep_until_they_are", "a_buried_child_counts_as_bad")
class SweepWithoutUntold(InMemoryRuns):
    def _ends_to_tell(self, limit: int) -> list[str]:
        return []


@breaks("a_ready_run_without_a_ticket_is_found_until_one_is_put", "a_run_released_without_its_ticket_is_found")
class SweepWithoutUnticketed(InMemoryRuns):
    def _tickets_to_put(self, limit: int) -> list[Ticket]:
        return []


@breaks("a_lost_ticket_is_found_once_it_is_older_than_any_that_waits")
class SweepWithoutLost(InMemoryRuns):
    def _forget_lost_tickets(self, lost_after_s: float, limit: int) -> None:
        pass


@breaks("a_backlog_is_not_put_again", "a_lost_ticket_is_found_once_it_is_older_than_any_that_waits")
class BacklogPutAgain(InMemoryRuns):
    def _forget_lost_tickets(self, lost_after_s: float, limit: int) -> None:
        super()._forget_lost_tickets(0.0, limit)


@breaks("a_due_timer_makes_a_parked_run_ready_once", "a_delayed_run_waits_for_its_time")
class SweepWithoutTimers(InMemoryRuns):
    def _ring_timers(self, limit: int) -> int:
        return 0


@breaks("many_timers_due_at_once_are_rung_in_bounded_sweeps", "a_sweep_is_bounded_and_the_next_goes_on")
class SweepWithoutBounds(InMemoryRuns):
    async def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Swept:
        return await super().sweep(reap, max_crashes=max_crashes, lost_after_s=lost_after_s, limit=1_000_000)


@breaks("a_sweep_whose_answer_was_lost_is_finished_by_the_next", "a_ready_run_without_a_ticket_is_found_until_one_is_put")
class FoundMeansPut(InMemoryRuns):
    def _tickets_to_put(self, limit: int) -> list[Ticket]:
        tickets = super()._tickets_to_put(limit)
        for ticket in tickets:
            self._note_ticket(ticket)
        return tickets


@breaks(
    "the_dead_of_long_ago_are_swept_too",
    "a_sweep_is_bounded_and_the_next_goes_on",
)
class OnlyTheFreshlyDead(InMemoryRuns):
    async def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Swept:
        with self._lock:
            fresh = {worker_id for worker_id, seen in reap.items() if self._beats.get(worker_id) == seen}
            orphans = {run_id for owner, runs in self._table.owned.items() if owner not in fresh for run_id in runs}
            self._spared = {run_id for run_id in orphans if not self._is_alive(self._table.rows[run_id].run.owner or "")}
        return await super().sweep(reap, max_crashes=max_crashes, lost_after_s=lost_after_s, limit=limit)

    def _free_runs_of_the_dead(self, max_crashes: int, limit: int) -> list[TakenOver]:
        owned = self._table.owned.items()
        orphans = [(owner, run_id) for owner, runs in owned if not self._is_alive(owner) for run_id in runs if run_id not in self._spared]
        return [self._take_over(owner, run_id, max_crashes) for owner, run_id in islice(orphans, limit)]


@breaks("of_many_racing_sweeps_each_run_is_freed_once", "a_worker_claims_nothing_while_it_is_declared_dead")
class SweepInTwoSteps(InMemoryRuns):
    async def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Swept:
        seen = [(owner, run_id) for owner in reap for run_id in self._table.owned.get(owner, ())]
        await checkpoint()
        await checkpoint()
        taken = [self._take_over(owner, run_id, max_crashes) for owner, run_id in seen]
        await checkpoint()
        swept = await super().sweep(reap, max_crashes=max_crashes, lost_after_s=lost_after_s, limit=limit)
        return Swept(swept.beats, [*taken, *swept.taken_over], swept.tickets, swept.untold)


@breaks("the_ticket_of_a_run_taken_over_is_not_that_of_its_dead_owner", "the_runs_of_a_dead_worker_are_ready_again")
class TakenOverWithItsOldTicket(InMemoryRuns):
    def _take_over(self, worker_id: str, run_id: str, max_crashes: int) -> TakenOver:
        taken = super()._take_over(worker_id, run_id, max_crashes)
        self._table.change(self._table.rows[run_id], ticketed=True)
        return taken


@breaks("a_run_that_kills_its_process_too_often_is_buried_with_its_reason", "a_run_that_crashed_twice_is_claimed_only_alone")
class CrashesNotCounted(InMemoryRuns):
    def _take_over(self, worker_id: str, run_id: str, max_crashes: int) -> TakenOver:
        self._table.change(self._table.rows[run_id], crashes=0)
        return super()._take_over(worker_id, run_id, max_crashes + 1)


@breaks("the_neighbours_of_a_buried_run_are_not_buried")
class BuriesItsNeighbours(InMemoryRuns):
    def _free_runs_of_the_dead(self, max_crashes: int, limit: int) -> list[TakenOver]:
        rows = [self._table.rows[run_id] for owner, runs in self._table.owned.items() if not self._is_alive(owner) for run_id in runs]
        worst = max((row.run.crashes for row in rows), default=0)
        for row in rows:
            self._table.change(row, crashes=worst)
        return super()._free_runs_of_the_dead(max_crashes, limit)


@breaks("a_run_woken_before_its_timer_is_not_woken_by_it", "a_due_timer_makes_a_parked_run_ready_once")
class TimersOutliveTheirWake(InMemoryRuns):
    def _wake(self, row: Row) -> Ticket:
        wake_at = row.run.wake_at
        ticket = super()._wake(row)
        self._table.change(row, wake_at=wake_at)
        return ticket

    def _release(self, row: Row, release: Release) -> bool:
        released = super()._release(row, release)
        if row.run.status is RunStatus.PARKED and row.run.wake_at is None:
            self._table.change(row, wake_at=self._clock.time() + 1.0)
        return released


@breaks("a_buried_run_is_revived_once_with_its_journal_and_no_crashes", "a_run_that_was_revived_is_not_deleted")
class RevivedOnPaperOnly(InMemoryRuns):
    async def revive(self, run_id: str) -> Ticket | None:
        row = self._row(run_id)
        return ticket_for(row.run) if row else None


@breaks("only_a_ready_or_parked_run_is_buried_and_its_reason_is_kept")
class BuriesTheRunning(InMemoryRuns):
    async def bury(self, run_id: str, reason: bytes) -> bool:
        row = self._row(run_id)
        if row and not row.run.status.ended:
            self._end(row, RunStatus.BURIED, reason)
            return True
        return False


@breaks("who_waits_hears_of_a_change", "a_change_made_before_one_waits_is_not_missed")
class SilentStore(InMemoryRuns):
    async def changed(self, seen: int, timeout_s: float) -> int:
        await checkpoint()
        return seen


@breaks("an_ended_child_is_kept_as_long_as_its_parent_lives")
class ChildrenExpireByThemselves(InMemoryRuns):
    def _end(self, row: Row, status: RunStatus, result: bytes) -> None:
        super()._end(row, status, result)
        self._table.change(row, expires_at=self._clock.time() + row.run.keep_s)


@breaks("a_root_is_deleted_with_all_its_descendants")
class OrphansStay(InMemoryRuns):
    def _purge(self, limit: int) -> int:
        root = self._table.expired_by(self._clock.time())
        if root is None:
            return 0
        self._table.delete([root])
        return 1


@breaks("no_time_deletes_a_run_that_has_not_ended", "the_ids_of_messages_are_remembered_as_long_as_the_run")
class ExpiryFromTheStart(InMemoryRuns):
    def _purge(self, limit: int) -> int:
        now = self._clock.time()
        old = [row for row in self._table.rows.values() if now - row.run.updated_at >= row.run.keep_s]
        self._table.delete(old)
        return len(old)


@breaks("a_purge_is_bounded")
class PurgeWithoutBounds(InMemoryRuns):
    def _purge(self, limit: int) -> int:
        return super()._purge(1_000_000)


@breaks("runs_are_listed_in_pages_in_the_order_of_their_ids")
class ListedLikeWords(InMemoryRuns):
    async def list(self, query: RunQuery) -> list[Run]:
        runs = sorted((row.run for row in self._table.rows.values()), key=lambda run: run.run_id.casefold())
        return [run for run in runs if run.run_id.casefold() > query.after.casefold()][: query.limit]


@breaks("all_conditions_of_a_query_hold_together")
class AnyConditionWillDo(InMemoryRuns):
    async def list(self, query: RunQuery) -> list[Run]:
        return await super().list(RunQuery(kind=query.kind, version=query.version, after=query.after, limit=query.limit))
