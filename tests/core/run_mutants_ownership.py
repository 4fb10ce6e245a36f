"""Mutants: what creating, claiming, beating and writing must not leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from anyio.lowlevel import checkpoint

from agentkit.errors import StoreRefused
from agentkit.inmemory.run_rows import Row
from agentkit.inmemory.runs import InMemoryRuns
from agentkit.ports.records import (
    Beat,
    Claimed,
    ClaimRefusal,
    Created,
    Entry,
    EntryKind,
    NewRun,
    ParentClaim,
    Release,
    Run,
    RunStatus,
    RunWrite,
    Swept,
    Written,
)
from tests.core.run_mutants import breaks


@breaks("a_dead_worker_claims_nothing", "who_never_registered_claims_nothing", "dead_is_final")
class ClaimWithoutWorkerCheck(InMemoryRuns):
    def _may_claim(self, worker_id: str) -> bool:
        return True


@breaks("a_redelivered_ticket_never_takes_a_running_run", "of_many_racing_claimers_one_gets_the_run")
class TicketIsARight(InMemoryRuns):
    def _refusal(self, run: Run, serves: Mapping[str, AbstractSet[str]], *, alone: bool) -> ClaimRefusal | None:
        refusal = super()._refusal(run, serves, alone=alone)
        return None if run.status is RunStatus.RUNNING else refusal


@breaks("each_run_of_a_claim_is_answered_by_itself")
class ClaimOfTheParked(InMemoryRuns):
    def _refusal(self, run: Run, serves: Mapping[str, AbstractSet[str]], *, alone: bool) -> ClaimRefusal | None:
        refusal = super()._refusal(run, serves, alone=alone)
        return None if run.status is RunStatus.PARKED else refusal


@breaks("of_many_racing_claimers_one_gets_the_run", "a_cancel_that_races_a_claim_ends_the_run_or_reaches_it")
class ClaimInTwoSteps(InMemoryRuns):
    async def claim(
        self, worker_id: str, run_ids: Sequence[str], serves: Mapping[str, AbstractSet[str]], *, alone: bool = False
    ) -> list[Claimed | ClaimRefusal]:
        rows = [row for run_id in run_ids if (row := self._row(run_id)) and row.run.status is RunStatus.READY]
        await checkpoint()
        for row in rows:
            self._table.change(row, status=RunStatus.READY)
        return [self._claim(worker_id, run_id, serves, alone=alone) for run_id in run_ids]


@breaks("of_two_tickets_of_a_run_in_one_claim_one_gets_it")
class ClaimAnsweredById(InMemoryRuns):
    async def claim(
        self, worker_id: str, run_ids: Sequence[str], serves: Mapping[str, AbstractSet[str]], *, alone: bool = False
    ) -> list[Claimed | ClaimRefusal]:
        asked = list(dict.fromkeys(run_ids))
        answers = dict(zip(asked, await super().claim(worker_id, asked, serves, alone=alone), strict=True))
        return [answers[run_id] for run_id in run_ids]


@breaks("every_claim_of_a_run_has_a_higher_fence", "a_write_under_an_older_claim_of_ones_own_is_lost")
class FenceStandsStill(InMemoryRuns):
    def _next_fence(self, run: Run) -> int:
        return 1


@breaks("a_run_of_a_version_that_is_not_served_is_refused")
class AnyVersion(InMemoryRuns):
    def _refusal(self, run: Run, serves: Mapping[str, AbstractSet[str]], *, alone: bool) -> ClaimRefusal | None:
        return super()._refusal(run, {run.kind: frozenset({run.version})}, alone=alone)


@breaks("a_run_that_crashed_twice_is_claimed_only_alone")
class SuspectsAmongOthers(InMemoryRuns):
    def _refusal(self, run: Run, serves: Mapping[str, AbstractSet[str]], *, alone: bool) -> ClaimRefusal | None:
        return super()._refusal(run, serves, alone=True)


@breaks("dead_is_final", "who_retires_is_dead", "who_never_registered_cannot_beat")
class BeatRevives(InMemoryRuns):
    def _beat(self, worker_id: str) -> Beat | None:
        self._alive[worker_id] = True
        self._beats.setdefault(worker_id, 0)
        return super()._beat(worker_id)


@breaks("dead_is_final")
class RegisteringRevives(InMemoryRuns):
    def _register(self, worker_id: str, kinds: str, host: str) -> None:
        self._alive[worker_id] = True
        super()._register(worker_id, kinds, host)


@breaks("a_process_that_comes_new_to_the_storage_frees_nothing")
class NewcomerRecoversAll(InMemoryRuns):
    def _register(self, worker_id: str, kinds: str, host: str) -> None:
        for row in self._table.rows.values():
            if row.run.status is RunStatus.RUNNING:
                self._wake(row)
        super()._register(worker_id, kinds, host)


@breaks("a_worker_that_beat_since_it_was_seen_is_not_reaped", "a_process_that_comes_new_to_the_storage_frees_nothing")
class ReapWhateverItsBeat(InMemoryRuns):
    def _reap(self, reap: Mapping[str, int]) -> None:
        for worker_id in reap:
            self._declare_dead(worker_id)


@breaks("no_time_that_passes_and_no_clock_that_jumps_frees_a_run")
class LeaseByTheClock(InMemoryRuns):
    def _reap(self, reap: Mapping[str, int]) -> None:
        now = self._clock.time()
        late = {row.run.owner for row in self._table.rows.values() if row.run.owner and now - row.run.updated_at > 30.0}
        for worker_id in late:
            if worker_id:
                self._declare_dead(worker_id)
        super()._reap(reap)


@breaks("each_beat_is_seen_by_every_process", "a_worker_that_beat_since_it_was_seen_is_not_reaped")
class BeatWithoutCount(InMemoryRuns):
    def _beat(self, worker_id: str) -> Beat | None:
        beat = super()._beat(worker_id)
        if beat:
            self._beats[worker_id] = 0
        return beat


@breaks("a_beat_names_the_runs_with_messages_not_yet_taken")
class BeatIsDeaf(InMemoryRuns):
    def _beat(self, worker_id: str) -> Beat | None:
        return super()._beat(worker_id) and Beat([])


@breaks("a_worker_claims_nothing_while_it_is_declared_dead")
class TakeOverBeforeDeath(InMemoryRuns):
    async def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Swept:
        for worker_id in reap:
            for run_id in list(self._table.owned.get(worker_id, ())):
                self._take_over(worker_id, run_id, max_crashes)
        await checkpoint()
        await checkpoint()
        return await super().sweep(reap, max_crashes=max_crashes, lost_after_s=lost_after_s, limit=limit)


@breaks("a_sweep_that_was_cut_off_anywhere_is_finished_by_the_next")
class BeatGoneBeforeDeath(InMemoryRuns):
    async def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Swept:
        gone = [worker_id for worker_id, beat in reap.items() if self._beats.get(worker_id) == beat and self._beats.pop(worker_id) == beat]
        await checkpoint()
        await checkpoint()
        for worker_id in gone:
            self._declare_dead(worker_id)
        return await super().sweep({}, max_crashes=max_crashes, lost_after_s=lost_after_s, limit=limit)


@breaks("a_write_of_a_dead_worker_is_refused_whole", "dead_is_final", "who_retires_is_dead", "who_never_registered_writes_nothing")
class WriteWithoutWorkerCheck(InMemoryRuns):
    def _check_alive(self, worker_id: str) -> None:
        pass


@breaks("a_write_under_an_older_claim_is_lost", "nobody_writes_to_the_run_of_another", "a_dead_worker_registered_anew_has_none_of_its_runs")
class WriteWithoutOwnerAndFence(InMemoryRuns):
    def _owns(self, row: Row, worker_id: str, fence: int) -> bool:
        return True


@breaks("nobody_writes_to_the_run_of_another", "a_dead_worker_registered_anew_has_none_of_its_runs")
class WriteByFenceAlone(InMemoryRuns):
    def _owns(self, row: Row, worker_id: str, fence: int) -> bool:
        return row.run.fence == fence


@breaks("a_write_under_an_older_claim_of_ones_own_is_lost")
class WriteByOwnerAlone(InMemoryRuns):
    def _owns(self, row: Row, worker_id: str, fence: int) -> bool:
        return row.run.owner == worker_id


@breaks("a_write_that_races_a_take_over_is_refused_or_read_by_the_next_owner")
class ChecksBeforeTheWrite(InMemoryRuns):
    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        with self._lock:
            self._check_alive(worker_id)
            held = {write.run_id for write in batch if (row := self._row(write.run_id)) and row.held_by(worker_id, write.fence)}
        for _ in range(6):
            await checkpoint()
        for write in batch:
            row = self._row(write.run_id)
            if row and write.run_id in held:
                row.extend([Entry(*entry[:9], write.fence) for entry in write.entries])
        return [Written("ok", 0) for _ in batch]


@breaks("a_write_sent_twice_lands_once", "a_release_sent_twice_lands_once")
class MissingRowsMeanFenced(InMemoryRuns):
    def _write(self, worker_id: str, write: RunWrite) -> Written:
        row = self._row(write.run_id)
        if row and write.entries and row.unwritten(write.entries, write.fence) == []:
            return Written("lost", row.run.inbox_seq)
        return super()._write(worker_id, write)


@breaks("a_release_sent_twice_lands_once", "a_release_without_entries_sent_twice_lands_once")
class UnknownOutcomeMeansFenced(InMemoryRuns):
    def _landed_before(self, row: Row, worker_id: str, write: RunWrite, fresh: Sequence[Entry] | None) -> bool:
        return False


@breaks(
    "the_rows_of_a_lost_run_are_absent_and_those_of_its_neighbours_are_there",
    "a_gap_is_refused_and_the_neighbours_go_on",
)
class OneLostAllLost(InMemoryRuns):
    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        rows = [(self._row(write.run_id), write) for write in batch]
        if all(row and row.unwritten(write.entries, write.fence) is not None and row.run.fence == write.fence for row, write in rows):
            return await super().write(worker_id, batch, sync=sync)
        return [Written("lost", 0) for _ in batch]


@breaks("the_rows_of_a_lost_run_are_absent_and_those_of_its_neighbours_are_there", "a_write_under_an_older_claim_is_lost")
class LostInNameOnly(InMemoryRuns):
    def _write(self, worker_id: str, write: RunWrite) -> Written:
        written = super()._write(worker_id, write)
        if written.verdict == "lost" and (row := self._row(write.run_id)):
            row.extend([Entry(*entry[:9], write.fence) for entry in write.entries])
        return written


@breaks("a_gap_is_refused_and_the_neighbours_go_on")
class GapsAllowed(InMemoryRuns):
    def _unwritten(self, row: Row, write: RunWrite) -> list[Entry] | None:
        fresh = super()._unwritten(row, write)
        return [Entry(*entry[:9], write.fence) for entry in write.entries] if fresh is None else fresh


@breaks("an_entry_is_never_replaced_by_one_of_another_claim")
class LastWriterWins(InMemoryRuns):
    def _unwritten(self, row: Row, write: RunWrite) -> list[Entry] | None:
        mine = {entry.seq: Entry(*entry[:9], write.fence) for entry in write.entries}
        row.journal = [mine.pop(entry.seq, entry) for entry in row.journal]
        return list(mine.values())


@breaks("an_entry_is_never_replaced_by_one_of_another_claim")
class ConflictsIgnored(InMemoryRuns):
    def _unwritten(self, row: Row, write: RunWrite) -> list[Entry] | None:
        return [Entry(*entry[:9], write.fence) for entry in write.entries if entry.seq > len(row.journal)]


@breaks("a_write_sent_twice_lands_once", "a_write_that_was_cut_off_lands_before_its_repetition_is_answered_or_never")
class RepetitionLandsAgain(InMemoryRuns):
    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        written = await super().write(worker_id, batch, sync=sync)
        await checkpoint()
        return written

    def _unwritten(self, row: Row, write: RunWrite) -> list[Entry] | None:
        return [Entry(*entry[:9], write.fence) for entry in write.entries]


@breaks("a_batch_that_the_store_refuses_leaves_nothing_and_lands_without_the_guilty_run")
class RefusedInTheMiddle(InMemoryRuns):
    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        return [written for write in batch for written in await super(RefusedInTheMiddle, self).write(worker_id, [write], sync=sync)]


@breaks("a_batch_that_the_store_refuses_leaves_nothing_and_lands_without_the_guilty_run")
class RefusalsSwallowed(InMemoryRuns):
    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        try:
            return await super().write(worker_id, batch, sync=sync)
        except StoreRefused:
            return [Written("ok", 0) for _ in batch]


@breaks("the_new_owner_reads_all_that_was_acknowledged", "entries_load_in_order_as_written_with_the_fence_that_wrote_them")
class AcknowledgedBeforeItLands(InMemoryRuns):
    def _write(self, worker_id: str, write: RunWrite) -> Written:
        written = super()._write(worker_id, write)
        row = self._row(write.run_id)
        if row and written.verdict == "ok" and row.run.owner == worker_id:
            row.journal = row.journal[: -len(write.entries) or None]
        return written


@breaks("after_a_release_nothing_is_written", "a_release_sent_twice_lands_once")
class ReleaseKeepsTheClaim(InMemoryRuns):
    def _release(self, row: Row, release: Release) -> bool:
        owner = row.run.owner
        released = super()._release(row, release)
        self._table.change(row, owner=owner)
        return released


@breaks("a_release_sent_twice_lands_once", "the_end_of_a_run_is_there_before_anybody_is_told")
class EndsWithoutResult(InMemoryRuns):
    def _end(self, row: Row, status: RunStatus, result: bytes) -> None:
        super()._end(row, status, b"")


@breaks("runs_that_end_in_one_batch_come_each_to_its_own_end")
class OneEndForAll(InMemoryRuns):
    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        last = batch[-1].release
        return await super().write(worker_id, [one._replace(release=one.release and last) for one in batch], sync=sync)


@breaks("the_newest_snapshot_hides_what_is_before_it")
class SnapshotsHideNothing(InMemoryRuns):
    async def load(self, run_id: str, *, after: int = 0) -> list[Entry]:
        row = self._row(run_id)
        return row.journal[after:] if row else []


@breaks("the_newest_snapshot_hides_what_is_before_it")
class OldestSnapshotWins(InMemoryRuns):
    async def load(self, run_id: str, *, after: int = 0) -> list[Entry]:
        row = self._row(run_id)
        journal = row.journal if row else []
        snapshots = [entry.seq for entry in journal if entry.kind == EntryKind.SNAPSHOT]
        return journal[after or (snapshots[0] - 1 if snapshots else 0) :]


@breaks("ten_thousand_entries_load_in_one_read")
class LoadsInPages(InMemoryRuns):
    async def load(self, run_id: str, *, after: int = 0) -> list[Entry]:
        return (await super().load(run_id, after=after))[:1000]


@breaks("the_first_result_after_a_claim_forgets_the_crashes_before")
class CrashesNeverForgotten(InMemoryRuns):
    def _write(self, worker_id: str, write: RunWrite) -> Written:
        return super()._write(worker_id, write._replace(clear_crashes=False))


@breaks("of_many_racing_creators_one_creates_and_the_others_find_it")
class CreateInTwoSteps(InMemoryRuns):
    async def create(self, runs: Sequence[NewRun], *, parent: ParentClaim | None = None) -> list[Created]:
        known = {new.run_id for new in runs if self._row(new.run_id)}
        await checkpoint()
        for new in runs:
            if new.run_id not in known:
                self._table.rows.pop(new.run_id, None)
        return [self._create(new) for new in runs]


@breaks("creating_a_run_twice_returns_the_first_and_writes_nothing", "children_created_twice_fill_the_window_once")
class CreateOverwrites(InMemoryRuns):
    def _create(self, new: NewRun) -> Created:
        self._table.rows.pop(new.run_id, None)
        return super()._create(new)


@breaks("of_runs_created_in_one_call_each_is_answered_by_itself")
class OneTakenNoneCreated(InMemoryRuns):
    async def create(self, runs: Sequence[NewRun], *, parent: ParentClaim | None = None) -> list[Created]:
        there = [new for new in runs if self._row(new.run_id)]
        return await super().create(there or runs, parent=parent)


@breaks("one_id_with_another_kind_or_input_is_a_conflict")
class ConflictsFound(InMemoryRuns):
    def _create(self, new: NewRun) -> Created:
        return super()._create(new)._replace(answer="exists")


@breaks("ids_that_differ_in_case_accents_or_spaces_are_different_runs")
class IdsComparedLikeWords(InMemoryRuns):
    def _row(self, run_id: str) -> Row | None:
        folded = run_id.strip().casefold()
        return next((row for known, row in self._table.rows.items() if known.strip().casefold() == folded), None)


@breaks("runs_that_the_store_refuses_are_refused_whole")
class CreatedUntilRefused(InMemoryRuns):
    async def create(self, runs: Sequence[NewRun], *, parent: ParentClaim | None = None) -> list[Created]:
        return [each for new in runs for each in await super(CreatedUntilRefused, self).create([new], parent=parent)]


@breaks("a_fork_starts_with_the_copied_entries_and_its_first_claim_has_fence_2")
class ForkStartsAtFenceZero(InMemoryRuns):
    def _create(self, new: NewRun) -> Created:
        created = super()._create(new)
        row = self._row(new.run_id)
        assert row is not None
        return created._replace(run=self._table.change(row, fence=0))


@breaks("a_delayed_run_waits_for_its_time")
class DelaysIgnored(InMemoryRuns):
    def _create(self, new: NewRun) -> Created:
        return super()._create(new._replace(delay_s=0.0))


@breaks(
    "children_of_a_parent_claimed_by_somebody_else_are_refused",
    "children_of_a_parent_that_was_handed_over_are_refused",
    "children_of_a_parent_whose_worker_is_dead_are_refused",
    "no_child_is_created_while_a_cancel_of_its_parent_waits",
)
class ChildrenOfAnyParent(InMemoryRuns):
    def _may_create(self, parent: ParentClaim) -> bool:
        return True


@breaks("no_child_is_created_while_a_cancel_of_its_parent_waits")
class ChildrenDespiteCancel(InMemoryRuns):
    def _may_create(self, parent: ParentClaim) -> bool:
        row = self._row(parent.run_id)
        return row is not None and self._is_alive(parent.owner) and row.held_by(parent.owner, parent.fence)


@breaks("children_of_a_parent_whose_worker_is_dead_are_refused")
class ChildrenOfTheDead(InMemoryRuns):
    def _may_create(self, parent: ParentClaim) -> bool:
        row = self._row(parent.run_id)
        return row is not None and row.held_by(parent.owner, parent.fence) and not row.cancelled
