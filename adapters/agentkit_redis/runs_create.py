"""Creating runs, and claiming them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from agentkit.ports.ids import check_id
from agentkit.ports.records import Claimed, Created, EntryKind, RunStatus
from agentkit_redis.connection import Script
from agentkit_redis.rows import fixed, pack, to_row
from agentkit_redis.runs_base import ALL, DUE, LIVE, PUT, READY_HINTS, RunsBase, add, rem, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.ports.records import ClaimRefusal, NewRun, ParentClaim, Run
    from agentkit_redis.connection import Call, Client
    from agentkit_redis.rows import Row
    from agentkit_redis.runs_base import Hint

SUSPECT_CRASHES = 2  # crashes from which on a run is claimed alone: one may be a neighbour's fault
ROUNDS = 10  # of a claim that others disturb
_create = Script("clock", "run", "create")
_place = Script("place")
_claim = Script("clock", "claim")
worker_script = Script("worker")

Place = tuple[bool, bool]
"""Whether a child is let through its join's window, and whether there is a join that awaits it."""
ALONE: Place = (True, False)


class Creating(RunsBase):
    """The verbs `create` and `claim`."""

    async def create(self, runs: Sequence[NewRun], *, parent: ParentClaim | None = None) -> list[Created]:
        """Create runs, or find them. Raises `InvalidKey` for an id that is empty, too long or no UTF-8."""
        for run in runs:
            check_id(run.run_id)
        client = await self.client()
        packed = {id(run): _words(run) for run in runs}
        places = await self._places(client, runs, parent)
        if places is None:
            return [Created("refused", None)] * len(runs)
        hint = self.hint()
        before = list(chain.from_iterable(self._listed(run, places[id(run)], hint) for run in runs))

        def create(some: Sequence[NewRun]) -> Call:
            keys = [self.run_key(run.run_id, rest) for run in some for rest in ("", ":body", ":journal")]
            words = chain.from_iterable((*_state(run, places[id(run)]), *packed[id(run)]) for run in some)
            return _create(keys, self.now(), hint, *words)

        answers = await self.on_runs(client, runs, create, before=before, note=True, sync=True)
        return [_created(run, answer) for run, answer in zip(runs, answers, strict=True)]

    async def _places(self, client: Client, runs: Sequence[NewRun], parent: ParentClaim | None) -> dict[int, Place] | None:
        """Where each run stands among its siblings; None: the parent's claim does not hold."""
        places: dict[int, Place] = {id(run): ALONE for run in runs}
        groups: dict[tuple[str, str], list[NewRun]] = {}
        for run in runs:
            if run.parent_id is not None:
                groups.setdefault((run.parent_id, run.parent_key), []).append(run)
        if parent is not None and client.clustered and not await client.call(worker_script(self.worker_keys(parent.owner), "alive")):
            return None
        if parent is not None and not any(parent_id == parent.run_id for parent_id, _ in groups):
            groups = {(parent.run_id, ""): [], **groups}
        for (parent_id, group), children in groups.items():
            claim = parent if parent is not None and parent.run_id == parent_id else None
            answer = await client.call(self._place(parent_id, group, children, claim, guarded=not client.clustered))
            if answer is None:
                return None
            places |= {id(run): (bool(inside), bool(answer[0])) for run, inside in zip(children, answer[1], strict=True)}
        return places

    def _place(self, parent_id: str, group: str, children: Sequence[NewRun], claim: ParentClaim | None, *, guarded: bool) -> Call:
        rests = ("", ":joins", ":groups", f":children:{group}", f":waiting:{group}")
        keys = [self.run_key(parent_id, rest) for rest in rests]
        if claim is not None and guarded:
            keys.append(self.key(f"w:{claim.owner}"))
        owner, fence = ("", "") if claim is None else (claim.owner, claim.fence)
        return _place(keys, owner, fence, group, *chain.from_iterable((run.idx, run.run_id) for run in children))

    def _listed(self, run: NewRun, place: Place, hint: str) -> list[Hint]:
        """Where a new run is listed."""
        hints = [add(name, run.run_id, 0) for name in (ALL, LIVE, f"kind:{run.kind}", f"tenant:{run.tenant}")]
        if not place[0]:
            return hints
        if run.delay_s > 0:
            return [*hints, add(DUE, f"{_fence(run)}:{run.run_id}", f"+{run.delay_s}")]
        return [*hints, add(PUT, run.run_id) if run.held else add(READY_HINTS, hint + run.run_id)]

    async def claim(
        self, worker_id: str, run_ids: Sequence[str], serves: Mapping[str, AbstractSet[str]], *, alone: bool = False
    ) -> list[Claimed | ClaimRefusal]:
        """READY -> RUNNING under the next fence, only for a kind and version in `serves`."""
        client = await self.client()
        answers: dict[str, Claimed | ClaimRefusal] = {}
        left = list(dict.fromkeys(run_ids))
        for _ in range(ROUNDS):
            rows = dict(zip(left, await self.look(client, left), strict=True))
            answers |= {run_id: refused(row.run if row else None, serves, alone=alone) or "taken" for run_id, row in rows.items()}
            free = [row for row in rows.values() if row and refused(row.run, serves, alone=alone) is None]
            # The order is the law: read the fence, enter one's list of claims if alive, then claim under the fence that was read. Whoever
            # declares this worker dead in between ends the claim, for it goes through that list and moves each run's turn on.
            members = [f"{row.run.fence + 1}:{row.run.run_id}" for row in free]
            if not await client.call(worker_script(self.worker_keys(worker_id), "enrol", *members)):
                return ["fenced"] * len(run_ids)
            if not free:
                break
            granted = await self._claim(client, worker_id, free)
            answers |= {answer.run.run_id: answer for answer in granted}
            left = [row.run.run_id for row in free if not isinstance(answers[row.run.run_id], Claimed)]
            if not left:
                break
        # Two tickets of one run may come in one call: the first gets it.
        return [answers[run_id] if run_id not in run_ids[:i] else "taken" for i, run_id in enumerate(run_ids)]

    async def _claim(self, client: Client, worker_id: str, free: Sequence[Row]) -> list[Claimed]:
        def claim(some: Sequence[Row]) -> Call:
            keys = [self.run_key(row.run.run_id) for row in some]
            return _claim(keys, self.now(), worker_id, *chain.from_iterable((row.run.fence, row.turn) for row in some))

        answers = await self.steps(client, split(client, free, claim))
        granted: list[Claimed] = []
        rows = iter(free)
        for now, *mine in answers:
            for is_mine, row in zip(mine, rows, strict=False):
                if is_mine:
                    granted.append(Claimed(_claimed(row.run, worker_id, float(now)), float(now)))
                    self.forget(rem(PUT, row.run.run_id, now), rem(READY_HINTS, row.hint + row.run.run_id))
        return granted


def refused(run: Run | None, serves: Mapping[str, AbstractSet[str]], *, alone: bool) -> ClaimRefusal | None:
    """Why a run may not be claimed, or None."""
    if run is None:
        return "gone"
    if run.status.ended:
        return "ended"
    if run.status != RunStatus.READY:
        return "taken"
    if run.version not in serves.get(run.kind, ()):
        return "unknown"
    return "suspect" if run.crashes >= SUSPECT_CRASHES and not alone else None


def _claimed(run: Run, worker_id: str, now: float) -> Run:
    return run._replace(status=RunStatus.RUNNING, owner=worker_id, fence=run.fence + 1, wake_at=None, waiting_for="", updated_at=now)


def _fence(run: NewRun) -> int:
    """A run that has entries copied from another is at fence 1, so that its first claim has fence 2."""
    return 1 if run.entries else 0


def _state(run: NewRun, place: Place) -> tuple[Any, ...]:
    """The first words about a run in `create`: delay, held, status, fence, waits, awaited, window."""
    inside, awaited = place
    delayed = inside and run.delay_s > 0
    waits = "delay" if delayed else "" if inside else "window"
    status = RunStatus.PARKED if waits else RunStatus.READY
    return run.delay_s if delayed else "", int(run.held), int(status), _fence(run), waits, int(awaited), int(inside)


def _words(run: NewRun) -> tuple[Any, ...]:
    """The rest of them: keep, fixed, input, snapshot, first seq, number of entries, entries."""
    snapshot = max((entry.seq for entry in run.entries if entry.kind == EntryKind.SNAPSHOT), default=0)
    first = run.entries[0].seq if run.entries else 1
    keep = "" if run.parent_id is not None else run.keep_s
    return keep, fixed(run), run.input, snapshot, first, len(run.entries), *(pack(entry, 1) for entry in run.entries)


def _created(new: NewRun, answer: Any) -> Created:
    created, *found = answer
    row = to_row(found)
    assert row is not None
    if created:
        return Created("created", row.run)
    same = row.run.kind == new.kind and row.run.input == new.input
    return Created("exists" if same else "conflict", row.run)
