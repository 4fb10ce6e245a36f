"""One claimed run, from loading its journal to its release: decide what came of it, and write that as the claim's last write."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import anyio

from agentkit import logs, telemetry
from agentkit.agents.base import input_codec, output_codec
from agentkit.agents.context import Context
from agentkit.durable.codec import PLAIN
from agentkit.durable.execution import DEADLINE, Execution, current_execution, shielded
from agentkit.durable.group_commit import Claim
from agentkit.durable.identity import Scope
from agentkit.durable.versions import upcast
from agentkit.errors import (
    AgentKitError,
    ClaimLost,
    JournalMismatch,
    NotSerialisable,
    RunCancelled,
    RunError,
    RunParked,
    StepError,
    StoreRefused,
    StoreUnavailable,
    WorkerFenced,
)
from agentkit.ports.records import EntryKind, Release, RunStatus
from agentkit.resilience.deadline import announced
from agentkit.resilience.state import using
from agentkit.runtime.events import PUBLIC

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from agentkit.agents.base import AnyAgent
    from agentkit.ports.records import Claimed, Entry, Message, Run
    from agentkit.runtime.engine import Engine

log = logging.getLogger("agentkit.runtime")

STORE_RETRY_S = 2.0  # a step's own store did not answer: ask again soon, without holding a slot
WITHOUT_RESULT = frozenset({RunStatus.FAILED, RunStatus.CANCELLED})
"""How a run ends that takes its children along. A buried one may be revived, and then wants theirs."""


class Outcome(NamedTuple):
    """What `run()` came to: a value, or what it raised."""

    value: Any = None
    raised: BaseException | None = None


Left = Literal["ended", "parked", "released", "lost"]


class Activation:
    """A claimed run in this process."""

    def __init__(self, engine: Engine, claimed: Claimed, *, local: bool) -> None:
        self.run, self._now = claimed.run, claimed.store_now
        self._at = engine.clock.monotonic()
        self._engine, self._local = engine, local
        self._agent: AnyAgent = engine.registry.find(self.run.kind, self.run.version)
        self.execution: Execution | None = None
        self._draining = False

    async def perform(self) -> Left:
        """Run until the claim is released or lost."""
        run, began = self.run, time.perf_counter()
        claim: Claim | None = None
        names: dict[str, str | int] = {telemetry.RUN_ID: run.run_id, telemetry.AGENT: run.kind, telemetry.VERSION: run.version}
        with (
            logs.bound(run_id=run.run_id, agent=run.kind),
            using(self._engine.services.policies, on_behalf_of=run.tenant),
            self._until_deadline(),
            telemetry.span(
                telemetry.RUN,
                names | {telemetry.TENANT: run.tenant, telemetry.FENCE: run.fence, telemetry.WORKER: self._engine.worker_id},
                parent=run.trace,
            ) as span,
        ):
            while True:
                claim, outcome, ex = await self._attempt(claim)
                left = await self._release(ex, claim, outcome)
                if left is not None:
                    break
            span.set_attribute(telemetry.STATUS, left)
        telemetry.RUN_SECONDS.record(time.perf_counter() - began, {telemetry.AGENT: run.kind, telemetry.STATUS: left})
        return left

    def _until_deadline(self) -> AbstractContextManager[None]:
        """Calls made in the run know its deadline; it is the run itself that keeps it."""
        if self.run.deadline is None:
            return nullcontext()
        return announced(max(0.0, self.run.deadline - self._now), self._engine.clock)

    def drain(self) -> None:
        """Start nothing new; leave as soon as no body runs."""
        self._draining = True
        if self.execution is not None:
            self.execution.drain()

    def stop(self) -> None:
        """Leave now, also out of running bodies."""
        self._draining = True
        if self.execution is not None:
            self.execution.leave("drain")

    async def _attempt(self, claim: Claim | None) -> tuple[Claim, Outcome, Execution]:
        """One pass through `run()`. A later pass, after a park that came too late, goes on under the same claim."""
        run, store = self.run, self._engine.store
        again = claim is not None
        entries: list[Entry] = await store.load(run.run_id) if run.fence > 1 or again else []
        messages: list[Message] = await store.inbox(run.run_id) if run.inbox_seq or again else []
        if claim is None:
            last = entries[-1].seq if entries else 0
            claim = Claim(
                run.run_id, run.fence, seq=last, inbox_seq=run.inbox_seq, crashed=run.crashes > 0, durability=self._agent.durability
            )
        if run.fence > 1 or again:
            said = PLAIN.encode({"status": "running", "worker": self._engine.worker_id}, "status")
            self._engine.lane.append(claim, EntryKind.STATUS, "", said)
        lenient = run.version != self._agent.version
        if lenient:
            entries = upcast(entries, run.version, self._agent.upcast)
        now = self._now + self._engine.clock.monotonic() - self._at
        ex = Execution(self._engine, run, claim, entries, messages, store_now=now, lenient=lenient, local=self._local)
        self.execution = ex
        if self._draining:
            ex.drain()
        current_execution.set(ex)
        try:
            if self._engine.services.tenants.bounded:
                ex.tenant = await self._engine.services.tenants.find(run.tenant)
        except AgentKitError as exc:  # unknown, or not found out now: then the run tries again soon
            return claim, Outcome(raised=exc), ex
        return claim, await run_agent(ex, self._agent), ex

    async def _release(self, ex: Execution, claim: Claim, outcome: Outcome) -> Left | None:
        """Write the claim's last write; None when the run must go on under it."""
        lane = self._engine.lane
        if claim.error is not None and not isinstance(claim.error, StoreRefused):
            return "lost"
        if isinstance(claim.error, StoreRefused):
            outcome, ex.leaving = Outcome(raised=claim.error), None
            claim = Claim(claim.run_id, claim.fence, seq=claim.acked, inbox_seq=claim.inbox_seq)
        release, left = _decide(ex, self._agent, outcome)
        if release.status.ended:
            lane.rows -= claim.discard()
        try:
            if ex.has_children and release.status in WITHOUT_RESULT:
                release, left = await self._take_children_along(ex, claim, release)
            said = {"status": PUBLIC[release.status]} | ({"for": release.waiting_for} if release.waiting_for else {})
            lane.append(claim, EntryKind.STATUS, "", PLAIN.encode(said, "status"))
            verdict = await lane.release(claim, release)
        except StoreRefused as refused:
            claim.error = refused
            return await self._release(ex, claim, outcome) if release.status != RunStatus.FAILED else "lost"
        except (ClaimLost, WorkerFenced):
            return "lost"
        if verdict == "moved":
            return None
        self._engine.released(self.run, release, ex)
        return left

    async def _take_children_along(self, ex: Execution, claim: Claim, release: Release) -> tuple[Release, Left]:
        """Cancel the children of a run that is about to end without a result.

        Before it ends, or a crash in between would leave them at work for nobody; after what led here is durable, so that whoever goes on
        after that crash comes to the same end.
        """
        await self._engine.lane.settled(claim)
        try:
            tickets = await self._engine.store.cancel_children(self.run.run_id, None, release.result)
        except StoreUnavailable:
            return Release(RunStatus.PARKED, ex.seen, ex.store_now() + STORE_RETRY_S, "store"), "parked"
        await self._engine.dispatch(tickets, local=self._local)
        return release, "ended"


async def run_agent(ex: Execution, agent: AnyAgent) -> Outcome:
    """Call the agent's `run`, then what it registered for its end; returns when all frames are gone."""
    outcome = Outcome()
    async with anyio.create_task_group() as tasks:
        ex.start(tasks)
        ctx = Context(ex, policy=agent.policy)
        outcome = await _guarded(ex, agent, ctx)
        if ex.endings and _over(ex, outcome):
            outcome = await _endings(ex, agent, outcome)
        # News that comes from now on finds nobody to wake: the release tells whether the inbox moved. Said inside the block, for on trio
        # leaving it is a turn of the loop in which the group takes nothing more.
        ex.tasks = None
        if ex.supervised:  # cancelling a group in which nothing runs costs as much as the group
            tasks.cancel_scope.cancel()
    return outcome


async def _guarded(ex: Execution, agent: AnyAgent, ctx: Context) -> Outcome:
    try:
        value = input_codec(agent).decode(ex.run.input, f"input of {ex.run.run_id!r}")
        return Outcome(await agent().run(ctx, value))
    except (Exception, RunParked) as exc:  # noqa: BLE001 - what a user's code raises is what the run came to
        return Outcome(raised=exc)
    except BaseExceptionGroup as group:
        rest = group.split((Exception, RunParked))[1]
        if rest is not None:
            raise rest from None  # a cancellation: its scope waits for it, and must not be handed what parked beside it
        return Outcome(raised=group)


def _over(ex: Execution, outcome: Outcome) -> bool:
    """Whether the run has ended, rather than leaves to come back."""
    comes_back = isinstance(outcome.raised, RunParked | JournalMismatch | StoreUnavailable) or _parked(outcome.raised)
    return ex.leaving is None and ex.claim.error is None and not comes_back


async def _endings(ex: Execution, agent: AnyAgent, outcome: Outcome) -> Outcome:
    """Run the registered clean-up, last first. A step of it that fails is reported and does not change what the run came to."""
    token = shielded.set(True)
    try:
        for i, (name, fn, args) in reversed([*enumerate(ex.endings, 1)]):
            try:
                await Context(ex, Scope("on_end/", None), agent.policy).step(name, fn, *args, key=str(i))
            except StepError:
                log.exception("on_end %r of run %s failed", name, ex.run.run_id)
    except (Exception, RunParked) as exc:  # noqa: BLE001 - it could not run now; the next activation runs it
        return Outcome(raised=exc)
    finally:
        shielded.reset(token)
    return outcome


def _decide(ex: Execution, agent: AnyAgent, outcome: Outcome) -> tuple[Release, Left]:
    """The release that fits what `run()` came to."""
    raised = outcome.raised
    if ex.leaving == "park" and ex.plan is not None:
        return Release(RunStatus.PARKED, ex.seen, ex.plan.wake_at, ex.plan.waiting_for), "parked"
    if ex.leaving is not None or _parked(raised):
        return Release(RunStatus.READY, ticketed=ex.host.returns_ticket(ex.run.run_id)), "released"
    if isinstance(raised, StoreUnavailable):
        return Release(RunStatus.PARKED, ex.seen, ex.store_now() + STORE_RETRY_S, "store"), "parked"
    return _end(ex, agent, outcome), "ended"


def _end(ex: Execution, agent: AnyAgent, outcome: Outcome) -> Release:
    """How the run ended."""
    raised = outcome.raised
    if ex.cancelled == DEADLINE:
        return _failed(RunStatus.FAILED, "RunTimeout", "its deadline passed")
    if ex.cancelled is not None:
        return _failed(RunStatus.CANCELLED, "RunCancelled", ex.cancelled)
    if raised is None:
        try:
            ex.journal.check_end()
            return Release(RunStatus.COMPLETED, result=_result(ex, agent, outcome.value))
        except (JournalMismatch, NotSerialisable, StoreRefused) as exc:
            raised = exc
    if isinstance(raised, JournalMismatch):
        log.error("%s", raised)
        return _failed(RunStatus.BURIED, "JournalMismatch", str(raised))
    return _failure(ex.run, raised)


def _parked(raised: BaseException | None) -> bool:
    return isinstance(raised, RunParked) or (
        isinstance(raised, BaseExceptionGroup) and cast("BaseExceptionGroup[BaseException]", raised).subgroup(RunParked) is not None
    )


def _result(ex: Execution, agent: AnyAgent, value: Any) -> bytes:
    what = f"the result of run {ex.run.run_id!r}"
    body = output_codec(agent).encode(value, what)
    output_codec(agent).decode(body, what)
    ex.check_size(what, body)
    return body


def _failure(run: Run, raised: BaseException) -> Release:
    if isinstance(raised, RunCancelled):
        return _failed(RunStatus.CANCELLED, "RunCancelled", raised.reason)
    if isinstance(raised, StepError):
        return _failed(RunStatus.FAILED, raised.kind, raised.message, step=raised.step)
    if isinstance(raised, RunError):
        return _failed(RunStatus.FAILED, raised.kind, raised.message)
    # Whether a child's failure is one is its parent's to say: it may have been counted on. The traceback is nowhere else, so it is told.
    level = logging.ERROR if run.parent_id is None else logging.WARNING
    log.log(level, "run %s failed outside of a step", run.run_id, exc_info=raised)
    return _failed(RunStatus.FAILED, type(raised).__name__, str(raised)[:10_000])


def _failed(status: RunStatus, kind: str, message: str, *, step: str = "") -> Release:
    said = {"kind": kind, "message": message} | ({"step": step} if step else {})
    return Release(status, result=PLAIN.encode(said, "failure"))
