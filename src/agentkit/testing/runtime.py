"""A runtime for tests: in memory, with a clock that tests advance, and crashes on demand."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio
import anyio.lowlevel

from agentkit.durable.execution import Limits
from agentkit.durable.identity import short_name
from agentkit.ports.records import EntryKind, RunQuery, RunStatus
from agentkit.runtime.runtime import Runtime
from agentkit.runtime.settings import Settings
from agentkit.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from agentkit.agents.base import AnyAgent

SETTLED_TURNS = 30  # of the event loop without a change: a wake passes the store, the queue, a claim and a replay
DONE = (EntryKind.RESULT, EntryKind.ERROR, EntryKind.SIGNAL)


class RuntimeClock(FakeClock):
    """The clock of a `LocalRuntime`: time passes from timer to timer of the runs, and between them everything settles."""

    runtime: LocalRuntime

    async def advance(self, seconds: float) -> None:
        """Let time pass: each timer of a run that comes due in it fires in order, and what follows from it happens, before the next."""
        end = self.monotonic() + seconds
        await self.runtime.settle()
        while (due := await self.runtime.next_timer()) is not None and due < end:
            self.jump(max(0.0, due - self.monotonic()))
            await self.runtime.settle()
        self.jump(max(0.0, end - self.monotonic()))
        await self.runtime.settle()


class LocalRuntime(Runtime):
    """A `Runtime` that works its own queue and whose time is in the test's hands."""

    clock: RuntimeClock
    run_limits = Limits(park_after_s=0.0)

    def __init__(self, *, clock: RuntimeClock, **given: Any) -> None:
        self.clock = clock  # pyright: ignore[reportIncompatibleVariableOverride]  set once, before anything uses it
        clock.runtime = self
        super().__init__(**given)
        self._crashes: dict[str, Literal["begin", "end"]] = {}
        self.crashed = 0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.engine.on_step = self._on_step
        return self

    async def settle(self) -> None:
        """Return when nothing moves any more: every run has ended, is parked, or waits for time or a message."""
        quiet = 0
        while quiet < SETTLED_TURNS:
            await anyio.lowlevel.checkpoint()
            quiet = 0 if self._moving() else quiet + 1
            if quiet == SETTLED_TURNS - 1 and await self._swept_more():
                quiet = 0

    def _moving(self) -> bool:
        engine = self.engine
        if engine.taking or (engine.locals and engine.free() > 0):
            return True
        executions = [activation.execution for activation, _ in engine.active.values()]
        return any(ex is None or ex.leaving is not None or not ex.waits.parkable for ex in executions)

    async def _swept_more(self) -> bool:
        """Recovery and the queue run by the clock, which stands still: look for them whether there is something to do."""
        await self.sweep()
        if self._moving():
            return True
        ready = await self.store.list(RunQuery(status=frozenset({RunStatus.READY}), limit=1))
        depth = await self.tickets.depth()
        held = sum(1 for _, h in self.engine.active.values() if h.lease is not None)  # by runs that wait here for a near timer
        waiting = sum(d.ready + d.leased for d in depth.values()) > held
        served = any(f"{row.kind}@{row.version}" in self.registry.kinds() for row in ready)
        if waiting or served:
            await anyio.sleep(0.001)
        return bool(waiting or served) and bool(self._worker)

    async def next_timer(self) -> float | None:
        """The clock's reading when the next timer of a run fires."""
        now = self.clock.monotonic()
        executions = [a.execution for a, _ in self.engine.active.values() if a.execution is not None]
        held = [due - ex.store_now() for ex in executions if (due := ex.waits.next_due()) is not None]
        swept = await self.store.sweep({}, max_crashes=self.settings.max_crashes, lost_after_s=1e12, limit=0)
        parked = [] if swept.next_timer_s is None else [swept.next_timer_s]
        soonest = min([s for s in (*held, *parked) if s > 0], default=None)
        return None if soonest is None else now + soonest

    async def crash(self, *, at: str, before: bool = False) -> None:
        """Kill this worker (as kill -9 would) the next time step `at` (name or key) has ended its body but nothing of it is journalled.

        With `before` it dies when the body should begin. A new worker takes over at once.
        """
        self._crashes[at] = "begin" if before else "end"

    async def _on_step(self, run_id: str, key: str, point: Literal["begin", "end"]) -> None:
        for at in (key, short_name(key)):
            if self._crashes.get(at) == point:
                del self._crashes[at]
                self.crashed += 1
                await self.engine.crash()
                await anyio.sleep_forever()

    async def steps(self, run_id: str, /) -> list[str]:
        """The keys of the steps that have an outcome, in order."""
        return [e.key for e in await self.store.load(run_id, after=-1) if e.kind in DONE]


@asynccontextmanager
async def runtime(
    *,
    agents: Iterable[AnyAgent] = (),
    resources: Mapping[type[Any], object] | None = None,
    state: str = "memory://",
    worker: bool = True,
    settings: Settings | None = None,
) -> AsyncGenerator[LocalRuntime]:
    """A runtime for a test.

    Args:
        resources: what steps get with `ctx.get(Type)`.
        state: another store, for instance `f"sqlite:///{tmp_path}/test.db"`.
        worker: also work the queue.
    """

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Mapping[type[Any], object]]:
        yield resources or {}

    made = LocalRuntime(
        clock=RuntimeClock(), state=state, agents=agents, lifespan=lifespan, worker=worker, settings=settings or Settings(grace_s=0.0)
    )
    async with made:
        yield made
