"""Other shapes of a process: a worker that lives until a signal, and one that is there for seconds only."""

from __future__ import annotations

import logging
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio

from agentkit.errors import Misuse, QueueFull, RunNotFound, StoreError, StoreUnavailable
from agentkit.ports.records import RunStatus
from agentkit.runtime.activation import Activation
from agentkit.runtime.engine import ticket_of
from agentkit.runtime.events import PUBLIC
from agentkit.runtime.sweeper import SWEEPS_PER_LEASE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from agentkit.ports.queue import Ticket
    from agentkit.ports.records import Run
    from agentkit.runtime.engine import Engine
    from agentkit.runtime.events import Status
    from agentkit.runtime.runtime import Runtime


log = logging.getLogger("agentkit.worker")
FIRST_PAUSE_S, LAST_PAUSE_S = 0.2, 5.0  # between two tries to open the stores: a restart takes a second, an outage may take an hour


async def work(runtime: Runtime, *, only: Sequence[str], concurrency: int | None, grace_s: float | None) -> None:
    """Work until a signal, drain, return. A second signal cuts the grace short."""
    runtime.configure(worker=list(only) or True, concurrency=concurrency)
    hurry = anyio.Event()
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with AsyncExitStack() as stack:
            if not await _entered(runtime, stack, signals):
                return
            await anext(signals)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_second, signals, hurry)
                await runtime.drain(grace_s=runtime.settings.grace_s if grace_s is None else grace_s, hurry=hurry)
                tasks.cancel_scope.cancel()


async def _entered(runtime: Runtime, stack: AsyncExitStack, signals: AsyncIterator[signal.Signals]) -> bool:
    """Enter the runtime; a worker that starts while a store is away waits for it, as one at work does. False: a signal came first."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            await stack.enter_async_context(runtime)
        except StoreUnavailable as exc:
            log.warning("the worker waits for its stores: %s", exc)
        else:
            return True
        with anyio.move_on_after(pause_s):
            await anext(signals)
            return False
        pause_s = min(LAST_PAUSE_S, 2 * pause_s)


async def _second(signals: AsyncIterator[signal.Signals], hurry: anyio.Event) -> None:
    await anext(signals)
    hurry.set()


async def drive(runtime: Runtime, run_id: str, within_s: float) -> Status:
    """Go on with one run here."""
    engine = runtime.engine
    row = await _row(runtime, run_id)
    if row.status == RunStatus.READY:
        engine.local_roots.add(run_id)
        await engine.dispatch([ticket_of(row)], local=True)
    with runtime.hub.watch(run_id) as watcher, anyio.move_on_after(within_s):
        while (row := await _row(runtime, run_id)).status in (RunStatus.READY, RunStatus.RUNNING):
            await watcher.next(1.0)
    engine.local_roots.discard(run_id)
    held = engine.active.get(run_id)
    if held is not None:
        held[0].drain()
        with runtime.hub.watch(run_id) as watcher:
            while run_id in engine.active:
                await watcher.next(0.05)
    return PUBLIC[(await _row(runtime, run_id)).status]


async def _row(runtime: Runtime, run_id: str) -> Run:
    (row,) = await runtime.store.get([run_id])
    if row is None:
        raise RunNotFound(run_id)
    return row


async def serve(runtime: Runtime, tickets: Sequence[Ticket], within_s: float, grace_s: float) -> list[bool]:
    """Claim the runs of these tickets and go on with them until each has ended or parked, or the time is up.

    Unlike those of `drive` they are no local roots: their children go to the queue, since nobody is here to run them afterwards.
    """
    engine = runtime.engine
    if engine.kinds:
        raise Misuse(
            "a process that is frozen between calls cannot be a worker, which holds what it leased: make the Runtime with worker=False"
        )
    served = engine.registry.serves()
    mine = {t.run_id: t for t in tickets if within_s > 0 and t.version in served.get(t.kind, ())}
    if mine:
        await engine.dispatch(list(mine.values()), local=True)
        await _settled(engine, mine, within_s)
        engine.recall(mine)
        await _settled(engine, mine, grace_s / 2, Activation.drain)
        await _settled(engine, mine, grace_s / 2, Activation.stop)
        await engine.tell_now()
    left = await _left(runtime, list(mine))
    return [t.run_id in mine and t.run_id not in left for t in tickets]


def _let(activation: Activation) -> None:
    """Leave a run to its work."""


async def _settled(engine: Engine, ids: Collection[str], within_s: float, press: Callable[[Activation], None] = _let) -> None:
    """Wait until none of these runs is wanted or at work here; `press` each that is at work, once."""
    give_up = engine.clock.monotonic() + within_s
    pressed: set[str] = set()
    while engine.busy_with(ids) and (left_s := give_up - engine.clock.monotonic()) > 0:
        for run_id in (engine.active.keys() & ids) - pressed:
            press(engine.active[run_id][0])
            pressed.add(run_id)
        await engine.change(left_s)


async def _left(runtime: Runtime, ids: Sequence[str]) -> set[str]:
    """Put a ticket for each of these runs that is READY; returns those for which that failed, so that their old tickets must stay."""
    waiting = [row for row in await runtime.store.get(ids) if row is not None and row.status == RunStatus.READY] if ids else []
    tickets = [ticket_of(row) for row in waiting]
    try:
        if tickets:
            await runtime.engine.send(tickets)
    except (StoreError, QueueFull) as exc:
        log.warning("%d tickets stay where they are: %s", len(tickets), exc)
        return {t.run_id for t in tickets}
    return set()


async def tick(runtime: Runtime, watch_s: float) -> int:
    """Sweep until nothing is left, and watch who is silent; returns how many tickets were put."""
    engine, sweeper = runtime.engine, runtime.sweeper
    before, give_up = engine.tickets_put, engine.clock.monotonic() + watch_s
    first: dict[str, int] | None = None
    while True:
        while await sweeper.sweep():
            pass
        first = sweeper.beats() if first is None else first
        silent = first.items() & sweeper.beats().items()
        if not silent or engine.clock.monotonic() >= give_up:
            return engine.tickets_put - before
        await engine.clock.sleep(engine.lease_s / SWEEPS_PER_LEASE)
