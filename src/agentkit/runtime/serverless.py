"""Other shapes of a process: a worker that lives until a signal, and one that is there for seconds only."""

from __future__ import annotations

import logging
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio

from agentkit.errors import RunNotFound, StoreUnavailable
from agentkit.ports.records import RunStatus
from agentkit.runtime.activation import PUBLIC
from agentkit.runtime.engine import ticket_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agentkit.ports.records import Run
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


async def tick(runtime: Runtime) -> int:
    """Sweep until nothing is left; returns how many tickets were put."""
    before = runtime.engine.tickets_put
    while await runtime.sweep():
        pass
    return runtime.engine.tickets_put - before
