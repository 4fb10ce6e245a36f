"""Replay stored journals against today's code: in CI before a deploy, or on the spot when a run was buried."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from agentkit.durable.execution import Execution
from agentkit.durable.group_commit import Claim
from agentkit.durable.versions import upcast
from agentkit.errors import AgentKitError, RunNotFound, RunParked, UnknownAgent
from agentkit.ports.records import RunQuery, RunStatus
from agentkit.runtime.activation import Outcome, run_agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from agentkit.agents.base import AnyAgent
    from agentkit.clock import Clock
    from agentkit.durable.execution import Limits, OnStep
    from agentkit.ports.queue import Ticket
    from agentkit.ports.records import Entry, EntryKind, NewRun, Run
    from agentkit.ports.runs import RunStore
    from agentkit.runtime.runtime import Runtime

PASSES = 4  # one in order and three shuffled: a race between two branches shows in one of two


class Verdict(NamedTuple):
    """Whether a run's journal fits today's code; `problem` shows both sides."""

    run_id: str
    ok: bool
    problem: str = ""


class _DryLane:
    """Takes entries and forgets them."""

    rows = 0
    full = False

    def append(self, claim: Claim, kind: EntryKind, key: str, body: bytes = b"", **more: object) -> int:
        claim.seq = claim.acked = claim.seq + 1
        return claim.seq

    def take(self, claim: Claim, message_id: str, seq: int) -> None:
        return

    async def settled(self, claim: Claim, seq: int | None = None) -> None:
        return


class _DryHost:
    """A host in which nothing starts: the execution is closed from the beginning, and only the journal answers."""

    stale = False
    worker_id = ""
    on_step: OnStep | None = None

    def __init__(self, runtime: Runtime) -> None:
        self.store: RunStore = runtime.store
        self.lane: Any = _DryLane()
        self.clock: Clock = runtime.clock
        self.limits: Limits = runtime.run_limits
        self.resources: Mapping[type[Any], object] = {}
        self.services: Any = runtime.engine.services
        self.threads = anyio.CapacityLimiter(1)
        self._runtime = runtime

    async def fresh(self) -> None:
        return

    async def create_children(self, execution: Execution, runs: Sequence[NewRun]) -> None:
        return

    async def dispatch(self, tickets: Sequence[Ticket], *, local: bool) -> None:
        return

    def handle(self, run_id: str, agent: type[Any] | None) -> Any:
        return self._runtime.engine.handle(run_id, agent)

    def returns_ticket(self, run_id: str) -> bool:
        return False


async def verify(runtime: Runtime, run_ids: Iterable[str] | None, kind: str | None, limit: int) -> AsyncIterator[Verdict]:
    """A verdict per run."""
    async for row in _rows(runtime, run_ids, kind, limit):
        try:
            agent = runtime.registry.find(row.kind, row.version)
        except UnknownAgent as exc:
            yield Verdict(row.run_id, ok=False, problem=str(exc))
            continue
        entries = await runtime.store.load(row.run_id)
        problem = ""
        for turn in range(PASSES):
            problem = problem or await _replay(runtime, agent, row, entries, shuffle=turn)
        yield Verdict(row.run_id, ok=not problem, problem=problem)


async def _rows(runtime: Runtime, run_ids: Iterable[str] | None, kind: str | None, limit: int) -> AsyncIterator[Run]:
    if run_ids is not None:
        for run_id in run_ids:
            (row,) = await runtime.store.get([run_id])
            if row is None:
                raise RunNotFound(run_id)
            yield row
        return
    after = ""
    while limit > 0 and (page := await runtime.store.list(RunQuery(kind=kind, after=after, limit=min(200, limit)))):
        for row in page:
            yield row
        limit -= len(page)
        after = page[-1].run_id


async def _replay(runtime: Runtime, agent: AnyAgent, row: Run, entries: Sequence[Entry], *, shuffle: int) -> str:
    """What is wrong, or nothing."""
    lenient = row.version != agent.version
    if lenient:
        entries = upcast(entries, row.version, agent.upcast)
    claim = Claim(row.run_id, row.fence, seq=len(entries))
    ex = Execution(_DryHost(runtime), row, claim, entries, (), store_now=runtime.clock.time(), lenient=lenient)
    ex.leaving = "park"
    if shuffle:
        ex.shuffle = random.Random(f"{row.seed}/{shuffle}")
    outcome = Outcome()
    with anyio.move_on_after(60) as scope:
        outcome = await run_agent(ex, agent)
    if scope.cancelled_caught:
        return "its replay did not end within 60 s: run() awaits something else than ctx"
    return _problem(ex, row, outcome)


def _problem(ex: Execution, row: Run, outcome: Outcome) -> str:
    raised = outcome.raised
    if isinstance(raised, AgentKitError) and type(raised).__name__ in ("JournalMismatch", "AmbiguousStep", "Misuse"):
        return str(raised)
    if isinstance(raised, RunParked):
        return "" if row.status != RunStatus.COMPLETED else "the code asks for more than the completed run recorded"
    if row.status == RunStatus.COMPLETED and raised is None:
        try:
            ex.journal.check_end()
        except AgentKitError as exc:
            return str(exc)
    return ""
