"""The nouns of the ownership model: the rules that can be dropped, the tables of the store, and what a process holds in memory.

Everything is a small tuple, because a state is a key of a dict with some ten thousand neighbours.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

READY, RUNNING, PARKED, COMPLETED = "READY", "RUNNING", "PARKED", "COMPLETED"
ALIVE, DEAD, SWEPT = "alive", "dead", "swept"
NOBODY = -1

LATE_ROW = "LATE ROW"
STOLEN = "LIVE RUN STOLEN"
NO_INTENT = "EFFECT WITHOUT INTENT"
GAP = "GAP"

Unknown = Literal["resend", "fenced", "give up", "written"]


@dataclass(frozen=True)
class Rules:
    """The rules of design.md section 5 as switches; the defaults are the proposal, a variant drops or changes one."""

    check_worker: bool = True  # rule 2a: a write finds its worker row not dead
    lock_worker: bool = True  # rule 2a: and share-locks it, so that a take-over waits
    check_run: bool = True  # rule 2b: a write joins runs on owner and fence
    lock_run: bool = False  # not needed beside 2a; the variant "R only" must lock
    freeze: bool = True  # rule 4: a claim whose release has an unknown outcome may only resend it
    unwind_first: bool = True  # rule 4: the frames are gone before the park row is sent
    closed_claims: bool = True  # rule 4: the lane refuses a closed claim
    unknown: Unknown = "resend"  # rule 4: what an unknown outcome of a write is taken for
    missing_rows_mean_fenced: bool = False  # rule 3 says: never
    park_cas: bool = True  # rule 5: park compares inbox_seq
    signal_in_one_statement: bool = True  # rule 5: inbox row and wake together
    claim_needs_ready: bool = True  # rule 1: compare-and-set READY -> RUNNING
    claim_checks_worker: bool = True  # rule 1: my worker row is not dead, in the same statement
    claim_cut_ends_registration: bool = True  # see README: a claim cut off cannot be resent safely
    release_own_strays: bool = False  # the other remedy for the same
    fresh_worker_ids: bool = True  # words: a worker_id is never used again
    epochs: bool = False  # instead: the id is used again with the next epoch, which its row has and the runs that it owns have not
    release_before_give_back: bool = True  # tickets: release, then give_back
    finish_ticket_at_claim: bool = False  # tickets: brokers that cannot hold a lease for hours
    sweep_unticketed: bool = True  # rule 10: READY with ticketed=false
    sweep_lost_tickets: bool = True  # rule 10: READY older than the queue's oldest ticket
    intent_first: bool = True  # effects: a body waits for its own INTENT


class Run(NamedTuple):
    """The row of `runs`. There is one run; its program is: wait for a signal, one effect, end."""

    status: str = READY
    owner: int = NOBODY
    fence: int = 0
    ticketed: bool = False


class Batch(NamedTuple):
    """One statement on its way to the server, or being executed there.

    `take`, `intent`, `end` and `refund` carry a journal row at `seq`; `claim`, `park` and `release` carry none. `checked` means that
    the statement has read its conditions and holds its share lock, but has not written yet.
    """

    op: str
    worker: int
    fence: int = 0
    seq: int = NOBODY
    seen_inbox: int = 0
    checked: bool = False


class Process(NamedTuple):
    """What one process knows; all of it is lost by a kill. At most one batch is in flight (one lane)."""

    at: str = "idle"  # idle, loading, running, draining, leaving, down
    worker: int = 0  # its registration; when down NOBODY, or with epochs the one whose id it will use again
    ticket: bool = False  # holds a leased ticket
    fence: int = 0  # of its open claim, 0 = none
    known: int = 0  # journal entries it knows to be durable
    body_ran: bool = False
    batch: Batch | None = None
    ghost: int = 0  # fence of a closed claim whose frames still run


class State(NamedTuple):
    """Store, queue, network, processes and what may still go wrong."""

    run: Run
    journal: int  # how many entries it has; their kinds follow from their seq: SIGNAL, INTENT, RESULT
    workers: tuple[str, ...]
    processes: tuple[Process, Process]
    waiting_tickets: int = 0
    zombies: tuple[Batch, ...] = ()  # batches still at the server, nobody listens any more
    submit: str = "must put"  # the submitter wrote the row; then "put" or "crashed"
    signal: str = "unsent"  # unsent, saw parked, saw awake, must put, sent
    faults: tuple[str, ...] = ()  # each may strike once
    alarm: str = ""

    @property
    def inbox_seq(self) -> int:
        """How many signals the inbox has got."""
        return int(self.signal in {"must put", "sent"})

    def with_run(self, **changes: object) -> "State":
        """The state with columns of the run's row changed."""
        return self._replace(run=self.run._replace(**changes))  # type: ignore[arg-type]

    def with_process(self, p: int, process: Process) -> "State":
        """The state with process `p` replaced."""
        pair = (process, self.processes[1]) if p == 0 else (self.processes[0], process)
        return self._replace(processes=pair)

    def with_worker(self, worker: int, status: str) -> "State":
        """The state with one row of `workers` changed."""
        return self._replace(workers=(*self.workers[:worker], status, *self.workers[worker + 1 :]))

    def without_fault(self, name: str) -> "State":
        """The state after the fault `name` has struck once."""
        at = self.faults.index(name)
        return self._replace(faults=self.faults[:at] + self.faults[at + 1 :])

    def put_ticket(self) -> "State":
        """One more waiting ticket; more than two behave like two."""
        return self._replace(waiting_tickets=min(2, self.waiting_tickets + 1))

    def in_use(self, worker: int) -> bool:
        """Whether a living process still works under this registration."""
        return any(process.at != "down" and process.worker == worker for process in self.processes)

    def batches(self) -> tuple[Batch, ...]:
        """Every statement at the server or on its way there."""
        return self.zombies + tuple(process.batch for process in self.processes if process.batch is not None)


def canonical(state: State) -> tuple[object, ...]:
    """The state without names: workers and fences renumbered in order of mention, A and B in a fixed order.

    Renaming is sound because no rule compares two worker ids or two fences except for being equal. A worker that nobody mentions (no
    process, no batch, not the run) can change nothing any more and is left out.
    """
    a, b = state.processes
    first, second = (a, b) if _rank(a) >= _rank(b) else (b, a)
    workers: dict[int, int] = {NOBODY: NOBODY}
    fences: dict[int, int] = {0: 0}

    def batch_key(batch: Batch | None) -> tuple[object, ...] | None:
        if batch is None:
            return None
        op, worker, fence, seq, seen, checked = batch
        return op, workers.setdefault(worker, len(workers)), fences.setdefault(fence, len(fences)), seq, seen, checked

    def process_key(process: Process) -> tuple[object, ...]:
        at, worker, ticket, fence, known, body_ran, batch, ghost = process
        fences.setdefault(fence, len(fences))
        fences.setdefault(ghost, len(fences))
        here = workers.setdefault(worker, len(workers))
        return at, here, ticket, fences[fence], known, body_ran, batch_key(batch), fences[ghost]

    status, owner, fence, ticketed = state.run
    run = (status, workers.setdefault(owner, len(workers)), fences.setdefault(fence, len(fences)), ticketed)
    parts = process_key(first), process_key(second), tuple(sorted(map(batch_key, state.zombies), key=repr))
    named = tuple(state.workers[worker] for worker in list(workers)[1:])
    rest = state.journal, state.waiting_tickets, state.submit, state.signal, state.faults, state.alarm
    return run, parts, named, rest


def _rank(process: Process) -> tuple[object, ...]:
    """Any order is sound; the better it ignores names, the more states become one."""
    op = process.batch.op if process.batch is not None else ""
    return process.at, op, process.ticket, process.known, process.body_ran, process.fence, process.ghost, process.worker
