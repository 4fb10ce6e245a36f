"""What the server does with one statement of the ownership protocol: pure functions from a state and a batch to (state, answer)."""

from tests.model.ownership_state import (
    ALIVE,
    COMPLETED,
    GAP,
    LATE_ROW,
    NOBODY,
    PARKED,
    READY,
    RUNNING,
    STOLEN,
    Batch,
    Rules,
    State,
)

ROW_OPS = frozenset({"take", "intent", "end", "refund"})
RELEASES = frozenset({"park", "release", "end"})


def execute(rules: Rules, state: State, batch: Batch) -> tuple[State, Batch | None, str]:
    """Rule 2: run a statement, or its next half where it reads without a lock. The batch comes back while it is not finished.

    Answers: claimed, refused | ok, old (rows were there), lost | closed (parked, released, ended, or no longer mine), moved.
    """
    if batch.op == "claim":
        return _claim(rules, state, batch)
    if batch.op not in ROW_OPS:
        return _release(rules, state, batch)
    if batch.checked:
        return _write(state, batch)
    if not _may_write(rules, state, batch):
        return state, None, "lost"
    return _write(state, batch) if _one_piece(rules) else (state, batch._replace(checked=True), "")


def share_locked(rules: Rules, state: State, worker: int) -> bool:
    """Rule 2a: whether a statement that has checked this worker row still holds its lock."""
    return rules.check_worker and rules.lock_worker and any(b.checked and b.worker == worker for b in state.batches())


def _one_piece(rules: Rules) -> bool:
    """Nothing can change between reading and writing when all that is read is locked."""
    return (rules.lock_run or not rules.check_run) and (rules.lock_worker or not rules.check_worker)


def _owns(state: State, batch: Batch) -> bool:
    return (state.run.owner, state.run.fence) == (batch.worker, batch.fence)


def _may_write(rules: Rules, state: State, batch: Batch) -> bool:
    """Rule 2: (a) the worker row is not dead, (b) the run is owned under this fence."""
    alive = not rules.check_worker or state.workers[batch.worker] == ALIVE
    return alive and (not rules.check_run or _owns(state, batch))


def _claim(rules: Rules, state: State, batch: Batch) -> tuple[State, Batch | None, str]:
    """Rule 1: CAS READY -> RUNNING with the claimer's own worker row checked in the same statement."""
    run = state.run
    dead = rules.claim_checks_worker and state.workers[batch.worker] != ALIVE
    claimable = run.status == READY or (not rules.claim_needs_ready and run.status == RUNNING)
    if dead or not claimable:
        return state, None, "refused"
    stolen = run.status == RUNNING and state.workers[run.owner] == ALIVE and state.in_use(run.owner)
    claimed = state.with_run(status=RUNNING, owner=batch.worker, fence=run.fence + 1)
    return (claimed._replace(alarm=STOLEN) if stolen else claimed), None, "claimed"


def _release(rules: Rules, state: State, batch: Batch) -> tuple[State, Batch | None, str]:
    """Rules 4 and 5: a release carries fence and CAS, so a late first copy of it is void."""
    alive = not rules.check_worker or state.workers[batch.worker] == ALIVE
    if not alive or not _owns(state, batch):
        return state, None, "closed"
    if batch.op == "release":
        return state.with_run(status=READY, owner=NOBODY, ticketed=False), None, "closed"
    if rules.park_cas and batch.seen_inbox != state.inbox_seq:
        return state, None, "moved"
    return state.with_run(status=PARKED, owner=NOBODY, ticketed=False), None, "closed"


def _write(state: State, batch: Batch) -> tuple[State, Batch | None, str]:
    """Insert the row unless its (run, seq) is there, then end the run if the batch says so."""
    answer = "old" if batch.seq < state.journal else "ok"
    if answer == "ok":
        alarm = GAP if batch.seq > state.journal else "" if _owns(state, batch) else LATE_ROW
        state = state._replace(journal=state.journal + 1, alarm=alarm)
    if batch.op == "end":
        ended = state.with_run(status=COMPLETED, owner=NOBODY) if _owns(state, batch) else state
        return ended, None, "closed"
    return state, None, answer
