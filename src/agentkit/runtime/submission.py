"""Creating runs: row first, then ticket, then the note that it was put; a crash in between is found by the sweep."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar
from uuid import uuid4

from agentkit import telemetry
from agentkit.agents.base import encode_input
from agentkit.agents.meta import NOBODY, Principal, RunMeta
from agentkit.durable.codec import PLAIN
from agentkit.durable.identity import short_name
from agentkit.errors import InvalidKey, InvalidSetting, Overloaded, RunConflict, RunNotFound, UnknownAgent
from agentkit.inference.budgets import Budget
from agentkit.ports.records import NewRun, RunStatus
from agentkit.runtime.engine import ticket_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentkit.agents.base import Agent, AnyAgent
    from agentkit.ports.records import Run
    from agentkit.runtime.handle import RunHandle
    from agentkit.runtime.runtime import Runtime

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the API
O = TypeVar("O")  # noqa: E741
Priority: TypeAlias = Literal["low", "normal", "high"]

PRIORITIES: dict[str, int] = {"low": 0, "normal": 1, "high": 2}
BATCH = 500  # rows of one create: near the time of one commit
MAX_ID_BYTES = 400  # children append to it, and servers index at most some hundred bytes


def new_run(runtime: Runtime, agent: AnyAgent, value: object, run_id: str | None, version: str, **more: Any) -> NewRun:
    """A row to create. Raises `InvalidKey`, `InvalidInput`, `UnknownAgent`."""
    if not runtime.registry.knows(agent):
        raise UnknownAgent(f"{agent.name}@{agent.version}", runtime.registry.kinds())
    run_id = uuid4().hex if run_id is None else run_id
    if not 0 < len(run_id.encode("utf-8", "replace")) <= MAX_ID_BYTES or not run_id.isprintable():
        raise InvalidKey(run_id, f"a run_id is 1 to {MAX_ID_BYTES} bytes of printable text")
    return NewRun(
        run_id=run_id,
        kind=agent.name,
        version=version,
        input=encode_input(agent, value),
        seed=secrets.randbits(63),
        keep_s=agent.keep_s,
        trace=telemetry.inject(),
        **more,
    )


class Asked(NamedTuple):
    """How runs are to be made, beside their agent and input."""

    tenant: str = ""
    principal: Principal | None = None
    budget: Budget | None = None
    priority: Priority = "normal"
    delay_s: float = 0.0
    key: str = ""
    timeout_s: float | None = None
    session: str = ""


def requested(runtime: Runtime, agent: AnyAgent, value: object, asked: Asked, *, run_id: str | None, version: str) -> NewRun:
    """The row of a run as it was asked for."""
    run_id = uuid4().hex if run_id is None else run_id
    turn = run_id if asked.session else ""
    meta = RunMeta(principal=asked.principal or NOBODY, session=asked.session, turn=turn).with_budget(run_id, asked.budget)
    return new_run(
        runtime,
        agent,
        value,
        run_id,
        version,
        tenant=asked.tenant,
        priority=PRIORITIES[asked.priority],
        delay_s=asked.delay_s,
        key=asked.key,
        deadline=None if asked.timeout_s is None else runtime.clock.time() + asked.timeout_s,
        meta=meta.write(),
    )


async def start_here(runtime: Runtime, agent: type[Agent[I, O]], value: I, run_id: str | None, asked: Asked) -> Run:
    """Create a run for this process, or find it."""
    engine = runtime.engine
    if len(engine.locals) + engine.arriving - max(0, engine.slots()) >= runtime.settings.max_waiting:
        raise Overloaded("this runtime", runtime.settings.max_waiting, 1.0)
    run = requested(runtime, agent, value, asked, run_id=run_id, version=agent.version)._replace(held=True)
    engine.local_roots.add(run.run_id)
    engine.arriving += 1  # a thousand calls in one turn of the event loop are a thousand waiting runs, though none is stored yet
    try:
        async with runtime.quotas.starting(asked.tenant):
            row = _checked(run, *(await runtime.creation.create([run]))[0])
        if row.status == RunStatus.READY:
            await engine.dispatch([ticket_of(row)], local=True)
    finally:
        engine.arriving -= 1
    return row


def _checked(run: NewRun, answer: str, row: Run | None) -> Run:
    if answer == "conflict" or row is None:
        raise RunConflict(run.run_id, row.kind if row is not None else "?", run.kind)
    return row


async def submit(
    runtime: Runtime, agent: type[Agent[I, O]], inputs: Mapping[Any, I], asked: Asked, within: object = None
) -> list[RunHandle[O]]:
    """Create and queue runs in batches; `within` a transaction of the caller's they are created, and a sweep queues them."""
    if asked.priority not in PRIORITIES:
        raise InvalidSetting("priority", asked.priority, f"one of {', '.join(PRIORITIES)}")
    make_handle = runtime.engine.make_handle  # outside of `async with` this raises, before anything is stored
    weights = await rollout_of(runtime, agent.name)
    with telemetry.span(telemetry.SUBMIT, {telemetry.AGENT: agent.name, telemetry.TENANT: asked.tenant, telemetry.COUNT: len(inputs)}):
        runs = [
            requested(runtime, agent, value, asked, run_id=run_id, version=pick(weights, asked.session or str(run_id)) or agent.version)
            for run_id, value in inputs.items()
        ]
        async with runtime.quotas.queueing(asked.tenant, len(runs)):
            for i in range(0, len(runs), BATCH):
                await (_queue(runtime, runs[i : i + BATCH]) if within is None else _create_within(runtime, within, runs[i : i + BATCH]))
    return [make_handle(run.run_id, agent) for run in runs]


async def _queue(runtime: Runtime, runs: list[NewRun]) -> None:
    created = await runtime.creation.create(runs)
    rows = [_checked(run, answer, row) for run, (answer, row) in zip(runs, created, strict=True)]
    tickets = [ticket_of(row) for row in rows if row.status == RunStatus.READY and not row.ticketed]
    if tickets:
        await runtime.engine.send(tickets)
    if any(row.wake_at is not None for row in rows):
        runtime.notify_sweeper()


async def _create_within(runtime: Runtime, within: object, runs: list[NewRun]) -> None:
    """The rows alone: a ticket would be there before the run is, or although it never will be."""
    create: Any = getattr(runtime.store, "create_within", None)
    if create is None:
        rule = "this store takes no part in a transaction of yours: keep the runs in the database that it is on"
        raise InvalidSetting("within", type(runtime.store).__name__, rule)
    for run, (answer, row) in zip(runs, await create(within, runs), strict=True):
        _checked(run, answer, row)


async def fork(runtime: Runtime, run_id: str, at: str, new_run_id: str | None) -> str:
    """Copy the journal before the first entry of step `at` into a new run."""
    (row,) = await runtime.store.get([run_id])
    if row is None:
        raise RunNotFound(run_id)
    entries = await runtime.store.load(run_id)
    cut = next((i for i, e in enumerate(entries) if at in (e.key, short_name(e.key))), None)
    if cut is None:
        steps = ", ".join(dict.fromkeys(e.key for e in entries if e.key)) or "none"
        raise InvalidKey(at, f"run {run_id!r} has no such step; it has: {steps}")
    run = NewRun(
        run_id=new_run_id or f"{run_id}.fork-{uuid4().hex[:8]}",
        kind=row.kind,
        version=row.version,
        input=row.input,
        tenant=row.tenant,
        priority=row.priority,
        key=row.key,
        seed=row.seed,
        keep_s=row.keep_s,
        trace=row.trace,
        meta=row.meta,
        entries=entries[:cut],
    )
    await _queue(runtime, [run])
    return run.run_id


async def set_rollout(runtime: Runtime, name: str, weights: Mapping[str, float]) -> None:
    if not weights or any(w < 0 for w in weights.values()) or sum(weights.values()) <= 0:
        raise InvalidSetting("weights", dict(weights), "versions with weights of 0 or more, not all 0")
    await runtime.values.put(f"rollout:{name}", PLAIN.encode(dict(weights), "weights"))


async def rollout_of(runtime: Runtime, name: str) -> dict[str, float]:
    key = f"rollout:{name}"
    found = await runtime.values.get([key])
    return PLAIN.decode(found[key].value, key) if key in found else {}


def pick(weights: Mapping[str, float], run_id: str) -> str | None:
    """The version for a run id: the same one each time it is asked."""
    total = sum(weights.values())
    if not total:
        return None
    point = int.from_bytes(hashlib.blake2b(run_id.encode(), digest_size=8).digest(), "big") / 2**64 * total
    for version in sorted(weights):
        point -= weights[version]
        if point < 0:
            return version
    return max(weights)
