"""The ownership protocol (design.md section 5, "Ownership" and "Tickets") as a model: one run, two processes, a few faults.

Read `TRANSITIONS` at the end first: every function in it is one thing that can happen. The server's half of a statement is in
`ownership_store.py`, the records are in `ownership_state.py`, the variants that drop a rule are in `ownership_variants.py`.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from tests.model.explorer import fault
from tests.model.ownership_state import (
    ALIVE,
    COMPLETED,
    DEAD,
    NO_INTENT,
    NOBODY,
    PARKED,
    READY,
    SWEPT,
    Batch,
    Process,
    Rules,
    Run,
    State,
    canonical,
)
from tests.model.ownership_store import RELEASES, execute, share_locked

Step = tuple[str, State]
Transition = Callable[[Rules, State], Iterator[Step]]
SIGNAL, INTENT, RESULT = 0, 1, 2  # the journal of the one run, by seq


# The client


def submitter_puts_the_ticket(_: Rules, s: State) -> Iterator[Step]:
    """Tickets: run row before ticket. A submitter that dies between the two leaves a READY run without a ticket."""
    if s.submit == "must put":
        yield "submit: ticket put", s.put_ticket().with_run(ticketed=True)._replace(submit="put")
        if "submit crash" in s.faults:
            yield fault("submit: the client dies before it puts the ticket"), s.without_fault("submit crash")._replace(submit="crashed")


def signal_arrives(rules: Rules, s: State) -> Iterator[Step]:
    """Rule 5: inbox row, inbox_seq+1 and PARKED -> READY in one statement; whoever woke the run then puts a ticket."""
    if s.signal == "unsent" and rules.signal_in_one_statement:
        yield "signal: inbox row written" + (", run woken" if s.run.status == PARKED else ""), _deliver(s, s.run.status == PARKED)
    elif s.signal == "unsent":
        yield f"signal: reads status {s.run.status}", s._replace(signal="saw parked" if s.run.status == PARKED else "saw awake")
    elif s.signal in {"saw parked", "saw awake"}:
        yield "signal: inbox row written, by the status read before", _deliver(s, s.signal == "saw parked")
    elif s.signal == "must put":
        yield "signal: ticket put", s.put_ticket().with_run(ticketed=True)._replace(signal="sent")
        if "submit crash" in s.faults:
            yield fault("signal: the client dies before it puts the ticket"), s.without_fault("submit crash")._replace(signal="sent")


def _deliver(s: State, wake: bool) -> State:
    if wake and s.run.status == PARKED:
        return s._replace(signal="must put").with_run(status=READY, ticketed=False)
    return s._replace(signal="sent")


# A process at work


def leases_a_ticket_and_claims(_: Rules, s: State) -> Iterator[Step]:
    """Rule 1: a ticket is a hint; only the claim decides. (What is left of an ended run's tickets is of no interest.)"""
    for p, me in enumerate(s.processes):
        if me.at == "idle" and me.batch is None and s.waiting_tickets and s.run.status != COMPLETED:
            claiming = me._replace(ticket=True, batch=Batch("claim", me.worker))
            yield f"{name(p)}: leases a ticket, sends CLAIM", s._replace(waiting_tickets=s.waiting_tickets - 1).with_process(p, claiming)


def loads_the_journal(_: Rules, s: State) -> Iterator[Step]:
    """Rule 6 (iii): the journal is read after the claim, by another statement."""
    for p, me in enumerate(s.processes):
        if me.at == "loading":
            loaded = me._replace(at="running", known=s.journal)
            yield f"{name(p)}: loads {s.journal} journal entries", s.with_process(p, loaded)


def waits_for_the_signal(_: Rules, s: State) -> Iterator[Step]:
    """Rule 5: reads the inbox; takes what is there, else unwinds the frames and parks on the inbox_seq it read."""
    for p, me in enumerate(s.processes):
        if not _free(me) or me.known != SIGNAL:
            continue
        if s.inbox_seq:
            yield f"{name(p)}: finds the signal, sends TAKE under fence {me.fence}", _send(s, p, "take", seq=SIGNAL)
        else:
            yield f"{name(p)}: finds no signal, sends PARK under fence {me.fence}", _send(s, p, "park")


def writes_the_intent(_: Rules, s: State) -> Iterator[Step]:
    """Effects: INTENT first."""
    for p, me in enumerate(s.processes):
        if _free(me) and me.known == INTENT:
            yield f"{name(p)}: sends INTENT under fence {me.fence}", _send(s, p, "intent", seq=INTENT)


def runs_the_effect(rules: Rules, s: State) -> Iterator[Step]:
    """Effects: the body starts after its own INTENT is acknowledged (policy `rerun`, so a new owner runs it again)."""
    for p, me in enumerate(s.processes):
        early = not rules.intent_first and me.known == INTENT and me.at == "running"
        if not me.body_ran and (early or (_free(me) and me.known == RESULT)):
            ran = s.with_process(p, me._replace(body_ran=True))
            yield f"{name(p)}: runs the effect", ran if s.journal > INTENT else ran._replace(alarm=NO_INTENT)


def ends_the_run(_: Rules, s: State) -> Iterator[Step]:
    """Rule 4: RESULT and end, the claim's last write."""
    for p, me in enumerate(s.processes):
        if _free(me) and me.known == RESULT and me.body_ran:
            yield f"{name(p)}: sends RESULT+END under fence {me.fence}", _send(s, p, "end", seq=RESULT)


def _free(me: Process) -> bool:
    return me.at == "running" and me.batch is None


def _send(s: State, p: int, op: str, seq: int = NOBODY) -> State:
    me = s.processes[p]
    return s.with_process(p, me._replace(batch=Batch(op, me.worker, me.fence, seq, s.inbox_seq if op == "park" else 0)))


def old_frames_write(rules: Rules, s: State) -> Iterator[Step]:
    """Rule 4, dropped: frames that outlived their park run `finally: await ctx.step("refund")` under the closed claim."""
    for p, me in enumerate(s.processes):
        if me.ghost and me.batch is None and me.at != "down" and not rules.closed_claims:
            refund = me._replace(batch=Batch("refund", me.worker, me.ghost, SIGNAL))
            yield f"{name(p)}: frames of the closed claim send a row under fence {me.ghost}", s.with_process(p, refund)


def leaves_after_a_drain(rules: Rules, s: State) -> Iterator[Step]:
    """Tickets: release before give_back; then the process exits and its registration is left to the sweep."""
    for p, me in enumerate(s.processes):
        if me.at == "leaving":
            gone = s.put_ticket() if me.ticket else s
            yield f"{name(p)}: gives its ticket back and exits", gone.with_process(p, _down(rules, me))


def beat_is_refused(rules: Rules, s: State) -> Iterator[Step]:
    """Rule 7: a beat that updates 0 rows means fenced: cancel every scope, register anew."""
    for p, me in enumerate(s.processes):
        if me.at not in {"down", "leaving"} and me.batch is None and s.workers[me.worker] != ALIVE:
            yield f"{name(p)}: a beat is refused, drops everything, registers anew", _register(rules, s, p)


def restarts(rules: Rules, s: State) -> Iterator[Step]:
    """Words: a process that comes back is a new worker."""
    for p, me in enumerate(s.processes):
        if me.at == "down" and s.run.status != COMPLETED:
            yield f"{name(p)}: starts again and registers", _register(rules, s, p)


def _down(rules: Rules, me: Process) -> Process:
    return Process(at="down", worker=me.worker if rules.epochs else NOBODY)


def _register(rules: Rules, s: State, p: int) -> State:
    if rules.fresh_worker_ids:
        before, now = s.processes[p].worker, len(s.workers)
        s = s._replace(workers=(*s.workers, ALIVE))
        if rules.epochs:  # the row of the last epoch is gone, and what its id owned is the next one's
            s = s.with_worker(before, SWEPT)
            s = s.with_run(owner=now) if s.run.owner == before else s
        return s.with_process(p, Process(worker=now))
    return s.with_worker(p, ALIVE).with_process(p, Process(worker=p))


# The server and the answers


def server_executes(rules: Rules, s: State) -> Iterator[Step]:
    """Rule 2: the statement in flight is executed (in two halves where it reads without a lock) and its answer arrives."""
    for p, me in enumerate(s.processes):
        if me.batch is not None:
            after, rest, answer = execute(rules, s, me.batch)
            label = f"server: {name(p)}'s {me.batch.op.upper()} (fence {me.batch.fence})"
            if rest is not None:
                yield f"{label} has checked its conditions", after.with_process(p, me._replace(batch=rest))
            else:
                yield f"{label} -> {answer}", _answered(rules, after, p, me.batch.op, answer)


def cut_batches_go_on(rules: Rules, s: State) -> Iterator[Step]:
    """A batch whose connection was cut, or whose sender died, is executed all the same; nobody reads the answer."""
    for at, batch in enumerate(s.zombies):
        after, rest, answer = execute(rules, s, batch)
        left = (*s.zombies[:at], *([rest] if rest else []), *s.zombies[at + 1 :])
        doing = "has checked its conditions" if rest else f"-> {answer}, unheard"
        yield f"server: cut-off {batch.op.upper()} (fence {batch.fence}) {doing}", after._replace(zombies=left)


def _answered(rules: Rules, s: State, p: int, op: str, answer: str) -> State:
    """What the process does with an answer."""
    me = s.processes[p]._replace(batch=None)
    if op == "refund":
        return s.with_process(p, me._replace(ghost=0))
    if op == "claim":
        return _claim_answered(rules, s, p, me, answer)
    if answer == "moved":
        return s.with_process(p, me)
    if answer == "closed":
        return _claim_closed(rules, s, p, me, op)
    if answer == "ok" or (answer == "old" and not rules.missing_rows_mean_fenced):
        return s.with_process(p, me._replace(known=me.known + 1))
    return _drops_the_claim(s, p, me)


def _claim_answered(rules: Rules, s: State, p: int, me: Process, answer: str) -> State:
    resent = not rules.claim_cut_ends_registration
    mine = answer == "claimed" or (resent and s.run.owner == me.worker)  # read back: an earlier copy had landed
    if not mine:
        return _drops_the_claim(s, p, me)
    claimed = me._replace(at="loading", fence=s.run.fence, ticket=me.ticket and not rules.finish_ticket_at_claim)
    return s.with_process(p, claimed)


def _claim_closed(rules: Rules, s: State, p: int, me: Process, op: str) -> State:
    if me.at == "draining":
        return s.with_process(p, me._replace(at="leaving", fence=0))
    ghost = me.fence if op == "park" and not rules.unwind_first else 0
    return _drops_the_claim(s, p, me._replace(ghost=ghost))


def _drops_the_claim(s: State, p: int, me: Process) -> State:
    """The claim is closed in memory and the ticket finished; if the worker row is dead, the next beat says so."""
    return s.with_process(p, Process(worker=me.worker, ghost=me.ghost))


# Take-over and sweep (any process does them; both live on after the death of one that began)


def worker_is_marked_dead(rules: Rules, s: State) -> Iterator[Step]:
    """Rule 6 (i), rule 7: a worker that beats no more is marked dead; `expire` does it to one that lives (paused, lapsed lease)."""
    for worker, status in enumerate(s.workers):
        if status != ALIVE or share_locked(rules, s, worker):
            continue
        if not s.in_use(worker):
            yield f"sweep: worker {worker} beats no more, is marked dead", s.with_worker(worker, DEAD)
        elif "expire" in s.faults:
            yield (
                fault(f"sweep: worker {worker} lives, but its lease lapsed: marked dead"),
                s.without_fault("expire").with_worker(worker, DEAD),
            )


def runs_of_the_dead_are_released(_: Rules, s: State) -> Iterator[Step]:
    """Rule 6 (ii): its runs -> READY, owner NULL, ticketed=false; then the dead worker is forgotten."""
    for worker, status in enumerate(s.workers):
        if status == DEAD:
            swept = s.with_worker(worker, SWEPT)
            freed = swept.with_run(status=READY, owner=NOBODY, ticketed=False) if s.run.owner == worker else swept
            yield f"sweep: runs of dead worker {worker} are released", freed


def sweep_puts_tickets(rules: Rules, s: State) -> Iterator[Step]:
    """Rule 10: READY with ticketed=false, and READY whose ticket the queue no longer has."""
    if s.run.status != READY:
        return
    if not s.run.ticketed and rules.sweep_unticketed:
        yield "sweep: READY without ticket, puts one", s.put_ticket().with_run(ticketed=True)
    held = any(process.ticket for process in s.processes)
    if s.run.ticketed and not s.waiting_tickets and not held and rules.sweep_lost_tickets:
        yield "sweep: READY and its ticket is lost, puts one", s.put_ticket()


def own_strays_are_released(rules: Rules, s: State) -> Iterator[Step]:
    """Not in design.md, see README: a run whose row names me, under a fence that no claim of mine holds, is released by CAS."""
    for p, me in enumerate(s.processes):
        stray = s.run.owner == me.worker and s.run.fence != me.fence and s.workers[me.worker] == ALIVE
        if rules.release_own_strays and me.at != "down" and me.batch is None and stray:
            yield f"sweep: {name(p)} releases a run it does not know", s.with_run(status=READY, owner=NOBODY, ticketed=False)


# Faults


def process_is_killed(rules: Rules, s: State) -> Iterator[Step]:
    """A kill -9: memory is gone, the ticket is delivered again, the batch in flight is lost or goes on at the server."""
    for p, me in enumerate(s.processes):
        if "kill" not in s.faults or me.at == "down":
            continue
        killed = s.without_fault("kill").with_process(p, _down(rules, me))
        killed = killed.put_ticket() if me.ticket else killed
        yield fault(f"{name(p)}: killed" + (", its batch never arrives" if me.batch else "")), killed
        if me.batch is not None:
            going_on = killed._replace(zombies=(*killed.zombies, me.batch))
            yield fault(f"{name(p)}: killed, its {me.batch.op.upper()} goes on at the server"), going_on


def connection_is_cut(rules: Rules, s: State) -> Iterator[Step]:
    """The outcome of the batch in flight is unknown: it goes on at the server, or it was lost on the way."""
    for p, me in enumerate(s.processes):
        if "cut" in s.faults and me.batch is not None:
            after = _outcome_unknown(rules, s.without_fault("cut"), p, me, me.batch)
            op = me.batch.op.upper()
            yield fault(f"{name(p)}: connection cut, its {op} goes on at the server"), after._replace(zombies=(*s.zombies, me.batch))
            yield fault(f"{name(p)}: connection cut, its {op} never arrives"), after


def _outcome_unknown(rules: Rules, s: State, p: int, me: Process, batch: Batch) -> State:
    """Rule 4: resend the very same batch until answered. The variants do something else."""
    again = s.with_process(p, me._replace(batch=batch._replace(checked=False)))
    if batch.op == "claim":
        return _register(rules, s.put_ticket(), p) if rules.claim_cut_ends_registration else again
    if rules.unknown == "fenced":
        return _drops_the_claim(s, p, me)
    if batch.op in RELEASES:
        return again if rules.freeze else s.with_process(p, me._replace(at="running", batch=None))
    if rules.unknown == "give up":
        return _send(s, p, "release")
    if rules.unknown == "written":
        return s.with_process(p, me._replace(batch=None, known=me.known + 1))
    return again


def process_drains(rules: Rules, s: State) -> Iterator[Step]:
    """SIGTERM: unwind, release to READY, give the ticket back without a delivery counted, exit."""
    for p, me in enumerate(s.processes):
        if "drain" in s.faults and _free(me):
            draining = _send(s.without_fault("drain").with_process(p, me._replace(at="draining")), p, "release")
            if not rules.release_before_give_back and me.ticket:
                early = draining.processes[p]._replace(ticket=False)
                yield fault(f"{name(p)}: drains, gives its ticket back, sends RELEASE"), draining.put_ticket().with_process(p, early)
            else:
                yield fault(f"{name(p)}: drains, sends RELEASE"), draining


def queue_misbehaves(_: Rules, s: State) -> Iterator[Step]:
    """At least once and worse: a lease lapses while its holder lives, a ticket is doubled or lost."""
    for p, me in enumerate(s.processes):
        if "lapse" in s.faults and me.ticket:
            lapsed = s.without_fault("lapse").put_ticket().with_process(p, me._replace(ticket=False))
            yield fault(f"queue: {name(p)}'s ticket lapses and is delivered again"), lapsed
    if "double" in s.faults and s.waiting_tickets:
        yield fault("queue: a ticket is doubled"), s.without_fault("double").put_ticket()
    if "lost" in s.faults and s.waiting_tickets:
        yield fault("queue: a ticket is lost"), s.without_fault("lost")._replace(waiting_tickets=s.waiting_tickets - 1)


TRANSITIONS: tuple[Transition, ...] = (
    submitter_puts_the_ticket,
    signal_arrives,
    leases_a_ticket_and_claims,
    loads_the_journal,
    waits_for_the_signal,
    writes_the_intent,
    runs_the_effect,
    ends_the_run,
    old_frames_write,
    leaves_after_a_drain,
    beat_is_refused,
    restarts,
    server_executes,
    cut_batches_go_on,
    worker_is_marked_dead,
    runs_of_the_dead_are_released,
    sweep_puts_tickets,
    own_strays_are_released,
    process_is_killed,
    connection_is_cut,
    process_drains,
    queue_misbehaves,
)


def name(p: int) -> str:
    """The processes are called A and B."""
    return "AB"[p]


@dataclass(frozen=True)
class Ownership:
    """The model for `explore`: a set of rules, and the faults that may strike, each once."""

    rules: Rules = field(default_factory=Rules)
    faults: tuple[str, ...] = ()

    def initial(self) -> State:
        """The run row is written, its ticket not yet put; A and B are registered and idle."""
        return State(Run(), 0, (ALIVE, ALIVE), (Process(worker=0), Process(worker=1)), faults=tuple(sorted(self.faults)))

    def key(self, state: State) -> Hashable:
        """Two states are one when they differ in names only: swapped processes, numbers of workers and fences."""
        return canonical(state)

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        for transition in TRANSITIONS:
            yield from transition(self.rules, state)

    def bad(self, state: State) -> str | None:
        """The law that the last step broke."""
        return state.alarm or None

    def done(self, state: State) -> bool:
        """The run has ended."""
        return state.run.status == COMPLETED
