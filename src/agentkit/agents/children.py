"""Verbs that run other agents as durable children.

The parent journals CHILD with a join (how many, what it needs, the window), then creates the rows, then waits; a waiting parent parks.
A child's end counts in the join; the parent wakes once, when its condition holds. Results stay in the children and are read in pages.
"""

from __future__ import annotations

import hashlib
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agentkit.agents.base import encode_input, output_codec
from agentkit.agents.meta import meta_of
from agentkit.agents.waiting import begin, sleep
from agentkit.durable.codec import PLAIN, fields_of
from agentkit.durable.identity import digest
from agentkit.errors import AmbiguousStep, InvalidSetting, NeedNotMet, Overloaded, RunError
from agentkit.later import Later
from agentkit.ports.records import EntryKind, Join, NewRun, RunQuery, RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentkit.agents.base import Agent, Child
    from agentkit.durable.execution import Execution
    from agentkit.ports.records import Entry, Run
    from agentkit.resilience import retry as retries
    from agentkit.resilience.policy import Policy
    from agentkit.resilience.retry import Retry
else:
    retries = Later("agentkit.resilience.retry")

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the API
O = TypeVar("O")  # noqa: E741
O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")

BATCH = 500  # rows of one create: near the time of one sync


class Outcomes(Generic[O_co]):
    """What came of many children, by key. Two plain mappings: nothing to narrow."""

    __slots__ = ("bad", "good")

    def __init__(self, good: Mapping[str, O_co], bad: Mapping[str, RunError]) -> None:
        self.good, self.bad = good, bad


class Need:
    """How many of the children must succeed, and by when."""

    __slots__ = ("count", "within_s")

    def __init__(self, count: int | None, within_s: float | None = None) -> None:
        self.count, self.within_s = count, within_s

    @classmethod
    def all(cls) -> Need:
        """All of them; the first failure decides."""
        return cls(None)

    @classmethod
    def at_least(cls, n: int, /, *, within_s: float | None = None) -> Need:
        """`n` of them, within a time; the rest is then cancelled."""
        return cls(n, within_s)

    @classmethod
    def best_effort(cls, *, within_s: float | None = None) -> Need:
        """As many as come within the time."""
        return cls(0, within_s)

    def join(self, key: str, total: int, window: int) -> Join:
        """As the store counts it."""
        if self.count is None:
            return Join(key, total, total, 0, window)
        if self.count == 0:
            return Join(key, total, total + 1, total, window)
        return Join(key, total, self.count, max(0, total - self.count), window)

    def of(self, total: int) -> int:
        """How many of so many must succeed."""
        return total if self.count is None else self.count


class Wanted(Generic[O_co]):
    """A child to be: its key among its siblings, what it is to do, and the store time by which it must have ended."""

    __slots__ = ("agent", "body", "child", "deadline", "key")

    def __init__(self, key: str, child: Child[O_co], deadline: float | None = None) -> None:
        self.key, self.child, self.deadline = key, child, deadline
        self.agent: type[Agent[Any, O_co]] = child.agent
        self.body = encode_input(child.agent, child.input)


async def run_one(ex: Execution, key: str, child: Child[O], policy: Policy | None) -> O:
    """One child, and its result. A policy's retries make further children, under keys of their own."""
    until = await _until(ex, key, policy)
    for attempt in count(1):
        nth = key if attempt == 1 else f"{key}~{attempt}"
        try:
            return (await _join(ex, nth, [Wanted("", child, until)], Need.all(), 1)).good[""]
        except NeedNotMet as unmet:
            error = unmet.first or unmet
            wait_s = None if policy is None or policy.retry is None else _again(policy.retry, attempt, error)
            if wait_s is None:
                raise error from None  # of one child there is nothing to count
        await sleep(ex, f"{nth}/wait", wait_s)
    raise AssertionError("attempts are counted without end")


def _again(retry: Retry, attempt: int, error: RunError) -> float | None:
    """After how long another child is made. Time has no say in it: a replay must decide the same."""
    decided = retries.decide(retry, attempt, error, backoff_s=retry.backoff_s(attempt), remaining_s=inf)
    return decided.wait_s if isinstance(decided, retries.Again) and error.kind != "RunTimeout" else None


async def _until(ex: Execution, key: str, policy: Policy | None) -> float | None:
    """The store time by which children under this policy must have ended, journalled. Raises `InvalidSetting` for what cannot be kept."""
    if policy is None:
        return None
    if policy.breaker is not None or policy.limits or policy.hedge:
        rule = "of a child run only timeout_s and retry apply: a parent that waits is parked and holds nothing; bound the child's own steps"
        raise InvalidSetting("policy", policy.name, rule)
    if policy.timeout_s is None:
        return None
    record = ex.journal.known(f"{key}/until")
    if record is None or record.opening is None:
        ex.check_open()
    return await begin(ex, f"{key}/until", record, policy.timeout_s)


async def run_map(
    ex: Execution,
    key: str,
    agent: type[Agent[I, O]],
    inputs: Sequence[I],
    *,
    need: Need | None,
    key_of: Callable[[I], str] | None,
    max_parallel: int,
    policy: Policy | None,
) -> list[O] | Outcomes[O]:
    """One agent over many inputs."""
    if policy is not None and policy.retry is not None:
        raise InvalidSetting("policy", policy.name, "of mapped children only timeout_s applies: give retry to their own steps")
    until = await _until(ex, key, policy)
    wanted = [Wanted(str(i) if key_of is None else key_of(value), agent.of(value), until) for i, value in enumerate(inputs)]
    outcomes = await _join(ex, key, wanted, need or Need.all(), max_parallel)
    if need is not None:
        return outcomes
    return [outcomes.good[w.key] for w in wanted]


async def run_join(
    ex: Execution, key: str, children: Mapping[str, Child[O]], *, need: Need | None, max_parallel: int
) -> dict[str, O] | Outcomes[O]:
    """Different agents side by side."""
    wanted = [Wanted(k, child) for k, child in children.items()]
    outcomes = await _join(ex, key, wanted, need or Need.all(), max_parallel)
    if need is not None:
        return outcomes
    return {w.key: outcomes.good[w.key] for w in wanted}


async def start(ex: Execution, key: str, agent: type[Agent[I, O]], value: I) -> Any:
    """A run that outlives this one: no join, so nobody waits for it and nobody cancels it."""
    record = ex.journal.known(key)
    run_id = f"{ex.run.run_id}/{key}"
    if record is None or record.outcome is None:
        ex.check_open()
        with ex.working():
            await ex.admit()
            await ex.journal.settled(ex.journal.note(EntryKind.CHILD, key, {"n": 1, "agent": agent.name}))
            await ex.host.create_children(ex, [_new(ex, run_id, Wanted("", agent.of(value)), "", 0)])
            ex.journal.append(EntryKind.RESULT, key, b"null")
    return ex.host.handle(run_id, agent)


class _Group:
    """The children of one join, as their parent sees them."""

    __slots__ = ("ex", "fp", "key", "need", "parent_id", "wanted", "window")

    def __init__(self, ex: Execution, key: str, wanted: Sequence[Wanted[Any]], need: Need, window: int) -> None:
        self.ex, self.key, self.wanted, self.need, self.window = ex, key, wanted, need, max(1, window)
        identity = b"\0".join(w.key.encode() + b"\1" + w.body for w in wanted)
        self.fp = f"{digest(identity)} {wanted[0].agent.name if wanted else ''} {len(wanted)} children"
        self.parent_id = ex.run.run_id
        """Whose children they are: of a fork that copied their join, the original's."""

    def check(self) -> None:
        limits = self.ex.host.limits
        if len(self.wanted) > limits.max_children:
            raise Overloaded(f"children of {self.key!r}", limits.max_children, 0.0)
        if self.ex.run.depth >= limits.max_depth:
            raise Overloaded(f"depth of children under {self.ex.run.run_id!r}", limits.max_depth, 0.0)
        if len({w.key for w in self.wanted}) < len(self.wanted):
            raise AmbiguousStep(self.key, "two children have the same key")


async def _join(ex: Execution, key: str, wanted: Sequence[Wanted[O]], need: Need, window: int) -> Outcomes[O]:
    """Create the children once, wait for the join, and read what came of them as it was when it was decided."""
    group = _Group(ex, key, wanted, need, window)
    group.check()
    if not wanted:
        if needed := need.of(0):
            raise NeedNotMet(0, 0, needed, run_id=ex.run.run_id)
        return Outcomes({}, {})
    record = ex.journal.known(key, group.fp)
    if record is not None and record.outcome is not None:
        await ex.replayed()
        decided = PLAIN.decode(record.outcome.body, key)
        group.parent_id = decided["of"]
        if decided["open"] and ex.leaving is None:
            await _cancel_forgotten(group, decided["open"])
    else:
        ex.check_open()
        decided = await _await(group, None if record is None else record.opening)
    return await _outcomes(group, decided)


async def _cancel_forgotten(group: _Group, still: Sequence[int]) -> None:
    """Whoever decided the join may have died before it cancelled those that had not ended."""
    with group.ex.working():
        rows = {row.idx: row for row in await _pages(group)}
        if any(i in rows and not rows[i].status.ended for i in still):
            await _cancel_open(group)


async def _await(group: _Group, opening: Entry | None) -> dict[str, Any]:
    """Open the join, wait for its message or the time, and journal which children were good, bad and open by then."""
    ex, key = group.ex, group.key
    until = await _open(group, opening)
    message = await ex.wait(f"children:{key}", topic=f"join:{key}", until=until)
    with ex.working():
        bad, still = await _states(group)
        good = len(group.wanted) - len(bad) - len(still)
        decided = {"bad": bad, "open": still, "met": good >= group.need.of(len(group.wanted)), "of": group.parent_id}
        body = PLAIN.encode(decided, key)
        if message is None:
            ex.journal.append(EntryKind.RESULT, key, body, fp=group.fp)
        else:
            ex.take(message, EntryKind.SIGNAL, key, body, fp=group.fp)
        if still:
            await ex.journal.settled()  # or whoever goes on after a crash would take those that are cancelled now for failures
            await _cancel_open(group)
    return decided


async def _cancel_open(group: _Group) -> None:
    ex, reason = group.ex, PLAIN.encode({"reason": "its siblings decided the join"}, group.key)
    await ex.host.dispatch(await ex.host.store.cancel_children(ex.run.run_id, group.key, reason), local=ex.local)


async def _open(group: _Group, opening: Entry | None) -> float | None:
    """CHILD durable first, then the rows; a second CHILD entry says that all rows are there. Returns when to stop waiting."""
    ex, key, total, within_s = group.ex, group.key, len(group.wanted), group.need.within_s
    with ex.working():
        if opening is None:
            await ex.admit()
            until = None if within_s is None else ex.store_now() + within_s
            seq = ex.journal.append(EntryKind.CHILD, key, PLAIN.encode({"n": total, "until": until}, key), fp=group.fp)
            ex.host.lane.join(ex.claim, group.need.join(key, total, group.window))
            ex.has_children = True
            await ex.journal.settled(seq)
        else:
            until = PLAIN.decode(opening.body, key)["until"]
        if opening is None or opening.attempt == 1:
            for i in range(0, total, BATCH):
                await ex.host.create_children(ex, [_child(group, i + j, w) for j, w in enumerate(group.wanted[i : i + BATCH])])
            ex.journal.append(EntryKind.CHILD, key, PLAIN.encode({"n": total, "until": until}, key), attempt=2, fp=group.fp)
    return until


def child_id(parent_id: str, key: str, child_key: str) -> str:
    """`contract-17/review#1/clause-4`."""
    return f"{parent_id}/{key}/{child_key}" if child_key else f"{parent_id}/{key}"


def _child(group: _Group, idx: int, wanted: Wanted[Any]) -> NewRun:
    return _new(group.ex, child_id(group.parent_id, group.key, wanted.key), wanted, group.key, idx)


def _new(ex: Execution, run_id: str, wanted: Wanted[Any], join_key: str, idx: int) -> NewRun:
    parent, child = ex.run, wanted.child
    return NewRun(
        run_id=run_id,
        kind=wanted.agent.name,
        version=wanted.agent.version,
        input=wanted.body,
        tenant=parent.tenant if child.tenant is None else child.tenant,
        priority=parent.priority,
        parent_id=parent.run_id if join_key else None,
        parent_key=join_key,
        idx=idx,
        depth=parent.depth + 1,
        seed=int.from_bytes(hashlib.blake2b(f"{parent.seed}/{run_id}".encode(), digest_size=7).digest(), "big"),
        deadline=_sooner(parent.deadline, wanted.deadline) if join_key else None,
        keep_s=wanted.agent.keep_s,
        trace=parent.trace,
        meta=parent.meta if child.budget is None else meta_of(ex).with_budget(run_id, child.budget).write(),
        held=ex.local,
    )


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)


async def _pages(group: _Group) -> list[Run]:
    """All children of the join in order of idx, read in pages."""
    rows: list[Run] = []
    after = -1
    while True:
        page = await group.ex.host.store.list(RunQuery(parent_id=group.parent_id, parent_key=group.key, after_idx=after, limit=BATCH))
        rows.extend(page)
        if len(page) < BATCH:
            return rows
        after = page[-1].idx


async def _states(group: _Group) -> tuple[list[int], list[int]]:
    """Which children, by idx, ended badly, and which have not ended."""
    rows = {row.idx: row.status for row in await _pages(group)}
    bad = [i for i, status in rows.items() if status.ended and status != RunStatus.COMPLETED]
    still = [i for i in range(len(group.wanted)) if i not in rows or not rows[i].ended]
    return bad, still


async def _outcomes(group: _Group, decided: dict[str, Any]) -> Outcomes[Any]:
    """Results and errors by key. Raises `NeedNotMet`."""
    good: dict[str, Any] = {}
    bad: dict[str, RunError] = {}
    failed, still = set(decided["bad"]), set(decided["open"])
    with group.ex.working():
        rows = {row.idx: row for row in await _pages(group)} if len(still) < len(group.wanted) else {}
    for i, w in enumerate(group.wanted):
        run_id = child_id(group.parent_id, group.key, w.key)
        if i in still:
            bad[w.key] = RunError("NotInTime", "had not ended when the join was decided", run_id)
        elif i in failed:
            bad[w.key] = _child_error(rows[i])
        else:
            good[w.key] = output_codec(w.agent).decode(rows[i].result, f"result of child {run_id!r}")
    if not decided["met"]:
        total = len(group.wanted)
        first = _child_error(rows[min(failed)]) if failed else None
        raise NeedNotMet(len(good), total, group.need.of(total), late=len(still), first=first, run_id=group.ex.run.run_id)
    return Outcomes(good, bad)


def _child_error(row: Run) -> RunError:
    said = fields_of(row.result)
    kind = said.get("kind") or ("RunCancelled" if row.status == RunStatus.CANCELLED else "RunError")
    return RunError(str(kind), str(said.get("message") or said.get("reason") or ""), row.run_id)
