"""`Runtime`: what an app makes once, enters, and asks to run agents."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import cached_property, partial
from os import PathLike, fspath
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeAlias, TypeVar, overload

import anyio
import anyio.to_thread

from agentkit import plugins
from agentkit.agents.base import Agent, AnyAgent
from agentkit.agents.meta import NOBODY
from agentkit.agents.services import Services
from agentkit.agents.tenants import Tenants, TenantSource
from agentkit.clock import SYSTEM, Clock
from agentkit.durable.execution import Limits
from agentkit.errors import InvalidSetting, Misuse
from agentkit.inference.budgets import Budget, Budgets
from agentkit.inference.usage import own_usage
from agentkit.later import Later
from agentkit.ports.records import RunQuery, RunStatus
from agentkit.resilience.state import PolicyState
from agentkit.runtime import serverless, submission
from agentkit.runtime.creation import Creation
from agentkit.runtime.door import Door
from agentkit.runtime.engine import Engine
from agentkit.runtime.events import PUBLIC, Status
from agentkit.runtime.handle import RunHandle, RunInfo, info_of
from agentkit.runtime.hub import Hub
from agentkit.runtime.queues import Queues
from agentkit.runtime.quotas import Quotas
from agentkit.runtime.registry import Registry
from agentkit.runtime.settings import Settings, checked, from_env
from agentkit.runtime.stall import StallWatch
from agentkit.runtime.submission import Priority
from agentkit.runtime.sweeper import Sweeper
from agentkit.runtime.verify import Verdict, verify
from agentkit.runtime.worker import Answers, Worker, drain

if TYPE_CHECKING:
    from pydantic import JsonValue

    from agentkit.agents.chat import ChatAgent
    from agentkit.agents.meta import Principal
    from agentkit.agents.session import Session, Sessions
    from agentkit.inference import models as inference
    from agentkit.inference.models import Models
    from agentkit.ports.limits import LimitStore
    from agentkit.ports.queue import Queue, Ticket
    from agentkit.ports.runs import RunStore
    from agentkit.ports.values import ValueStore
    from agentkit.runtime import session as sessions
else:
    inference, sessions = Later("agentkit.inference.models"), Later("agentkit.runtime.session")

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the API
O = TypeVar("O")  # noqa: E741
R = TypeVar("R")
P = ParamSpec("P")
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Mapping[type[Any], object]]]
Only: TypeAlias = "bool | Sequence[str]"

CLOSE_S = 5.0  # for the last round trips after the grace: a store that hangs must not keep a pod from ending


class Runtime:
    """Runs agents durably. Making one does no I/O; `async with` opens the stores and closes what it opened.

    Args:
        state: URL of the run store, or the object: `memory://`, `sqlite:///agents.db`.
        queue, values, limits: likewise; None: the same as `state`.
        agents: what this process knows: classes, modules, `"app.agents"`, `"app.agents:Review"`.
        models: the models that agents name: `Models`, a mapping of names to engines, or the path of a TOML file, which is read on entering.
        lifespan: the app's own resources by type, entered once per process; steps get them with `ctx.get(Type)`.
        tenants: what each tenant may use: a mapping, or an async function that finds a tenant by its id.
        worker: also execute queued runs here: all, or `["review@4", "embed"]`.
        concurrency: runs at a time.
        max_waiting: runs that may wait here for a slot; more are refused with `Overloaded`.
        settings: everything else (`lease_s`, `grace_s`, …).

    Raises:
        InvalidSetting: a wrong value, a URL of an unknown scheme, an adapter whose driver is missing. Nothing was opened.
    """

    clock: Clock = SYSTEM
    run_limits = Limits()

    def __init__(
        self,
        *,
        state: str | RunStore | None = None,
        queue: str | Queue | None = None,
        values: str | ValueStore | None = None,
        limits: str | LimitStore | None = None,
        agents: Iterable[AnyAgent | ModuleType | str] = (),
        models: Models | Mapping[str, object] | str | PathLike[str] | None = None,
        lifespan: Lifespan | None = None,
        tenants: TenantSource | None = None,
        worker: bool | Sequence[str] = False,
        concurrency: int | None = None,
        max_waiting: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        urls = {"state": state, "queue": queue, "values": values, "limits": limits}
        given = {name: url for name, url in urls.items() if isinstance(url, str)} | {"concurrency": concurrency, "max_waiting": max_waiting}
        if isinstance(models, str | PathLike):
            given["models"] = fspath(models)
        base = settings.model_dump() if settings is not None else {}
        self.settings = checked(base | {name: value for name, value in given.items() if value is not None})
        self.registry = Registry([*agents, *plugins.agents()])
        self._given = {name: port for name, port in urls.items() if port is not None and not isinstance(port, str)}
        made = inference.Models(models) if isinstance(models, Mapping) else models
        self._models = None if isinstance(made, str | PathLike) else made
        self._lifespan = lifespan
        self.tenants = Tenants(tenants, self.clock)
        self._worker: Only = worker
        self._door = Door()
        self._stack: AsyncExitStack | None = None
        self._engine: Engine | None = None
        self.registry.serves(() if isinstance(worker, bool) else worker)
        self.store: RunStore = self._port("runs", "state")
        self.tickets: Queue = self._port("queue", "queue")
        self.values: ValueStore = self._port("values", "values")
        self.limits: LimitStore = self._port("limits", "limits")
        self.queue = Queues(self)

    @classmethod
    def from_env(
        cls,
        *,
        agents: Iterable[AnyAgent | ModuleType | str] = (),
        models: Models | Mapping[str, object] | str | PathLike[str] | None = None,
        lifespan: Lifespan | None = None,
        tenants: TenantSource | None = None,
        worker: bool | Sequence[str] | None = None,
    ) -> Self:
        """A runtime by `AGENTKIT_*`; an unknown variable of that prefix raises `InvalidSetting`."""
        settings = from_env()
        listed = [name.strip() for name in settings.agents.split(",") if name.strip()]
        only = _only(settings.worker) if worker is None else worker
        return cls(agents=[*agents, *listed], models=models, lifespan=lifespan, tenants=tenants, worker=only, settings=settings)

    def _port(self, port: str, setting: str) -> Any:
        given = self._given.get(setting)
        if given is not None:
            return given
        url = getattr(self.settings, setting)
        if url is None:
            shared = self._given.get("state")
            if shared is not None:
                raise InvalidSetting(setting, None, f"state is an object, so say what serves {setting}, for instance {setting}='memory://'")
            url = self.settings.state
        return plugins.open_url(port, url, self.clock)

    # Opening and closing

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise Misuse("this Runtime is entered already: enter it once and share it")
        async with AsyncExitStack() as stack:
            for port in (self.store, self.tickets, self.values, self.limits):
                await port.open()
                stack.push_async_callback(port.aclose)
            policies = PolicyState(self.clock, limits=self.limits, values=self.values)
            if self._models is None and self.settings.models is not None:
                self._models = await anyio.to_thread.run_sync(partial(inference.Models.from_file, self.settings.models, clock=self.clock))
            self._bound = await stack.enter_async_context((self._models or inference.Models()).seen_by(state=policies))
            resources: Mapping[type[Any], object] = {}
            if self._lifespan is not None:
                resources = await stack.enter_async_context(self._lifespan())
            tasks = anyio.create_task_group()
            await tasks.__aenter__()
            try:
                await self._start(tasks, resources, policies)
            except BaseException:
                tasks.cancel_scope.cancel()
                await tasks.__aexit__(*sys.exc_info())
                raise
            self._door.open()
            self._stack = stack.pop_all()
        return self

    async def _start(self, tasks: anyio.abc.TaskGroup, resources: Mapping[type[Any], object], policies: PolicyState) -> None:
        self._tasks = tasks
        self._hub = Hub(self.store)
        self.quotas = Quotas(self.store, self.tenants, self.clock)
        self.creation = Creation(self.store)
        self._answers = Answers(self.tickets)
        self._stall = StallWatch(warn_s=self.settings.stall_warn_s)
        self._engine = engine = Engine(
            store=self.store,
            queue=self.tickets,
            clock=self.clock,
            settings=self.settings,
            limits=self.run_limits,
            registry=self.registry,
            hub=self._hub,
            services=Services(
                models=self._bound,
                tenants=self.tenants,
                budgets=Budgets(self.values, self.clock),
                values=self.values,
                policies=policies,
                sessions=self.sessions,
            ),
            alive=lambda: self._stall.quiet_s() < self.settings.stall_limit_s,
            answer=self._answers.add,
        )
        engine.resources = resources
        self._hub.mine = engine.active
        only = () if isinstance(self._worker, bool) else self._worker
        engine.kinds = [f"{name}@{v}" for name, versions in self.registry.serves(only).items() for v in versions] if self._worker else ()
        engine.make_handle = lambda run_id, agent: RunHandle[Any](engine, self._hub, run_id, agent)
        self._sweeper = Sweeper(engine)
        worker = Worker(engine, self._answers, self.clock, only=only, quotas=self.quotas if self.tenants.bounded else None)
        await tasks.start(engine.run, tasks)
        for loop in (self._stall.run, self._hub.run, self._answers.run, self._sweeper.run, worker.work_locals, worker.renew):
            tasks.start_soon(loop)
        if self._worker:
            tasks.start_soon(worker.work_queue)

    async def __aexit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /) -> None:
        stack, self._stack = self._stack, None
        if stack is None:
            return
        self._door.close()
        try:
            with anyio.CancelScope(shield=True):
                await self.drain(grace_s=self.settings.grace_s if t is None else 0.0)
        finally:
            self._tasks.cancel_scope.cancel()
            try:
                await self._tasks.__aexit__(None, None, None)
            finally:
                with anyio.CancelScope(shield=True):
                    await stack.__aexit__(None, None, None)

    async def drain(self, *, grace_s: float, hurry: anyio.Event | None = None) -> None:
        """Stop taking runs and let go of those that run here, then sign off. Called when the `async with` block ends."""
        await drain(self.engine, self.clock, grace_s, hurry or anyio.Event())
        with anyio.move_on_after(CLOSE_S):
            await self._answers.flush()
            await self.engine.close()

    async def work(self, *, only: Sequence[str] = (), concurrency: int | None = None, grace_s: float | None = None) -> None:
        """Be a worker until SIGTERM or SIGINT, then drain; a second signal cuts the grace. What `agentkit worker` calls."""
        await serverless.work(self, only=only, concurrency=concurrency, grace_s=grace_s)

    def configure(self, *, worker: bool | Sequence[str], concurrency: int | None) -> None:
        """Set what `agentkit worker` was told, before entering."""
        self._worker = worker
        self.registry.serves(() if isinstance(worker, bool) else worker)
        if concurrency is not None:
            self.settings = checked(self.settings.model_dump() | {"concurrency": concurrency})

    @property
    def engine(self) -> Engine:
        """What executes runs here. Raises `Misuse` outside of `async with`."""
        if self._engine is None:
            raise Misuse("enter the Runtime first: async with runtime: …")
        return self._engine

    @cached_property
    def sessions(self) -> Sessions:
        """The sessions of its agents; `session` opens one of them."""
        return sessions.sessions_of(self)

    @property
    def models(self) -> Models:
        """The models, for calls outside of any run: they share the limits of those inside. Raises `Misuse` outside of `async with`."""
        return self.engine.services.models

    # Runs

    async def run(
        self,
        agent: type[Agent[I, O]],
        input: I,
        /,
        *,
        run_id: str | None = None,
        tenant: str = "",
        principal: Principal | None = None,
        budget: Budget | None = None,
        timeout_s: float | None = None,
    ) -> O:
        """Run an agent here and now, durably, and return its result; its children run here too.

        With the id of a run that exists it attaches: an ended one answers from the store, one that another process runs is waited for.

        Args:
            run_id: the idempotency key of the whole run: 1 to 400 bytes without control characters. Default: random.
            principal: on whose behalf it acts, and its children: tools check its permissions.
            budget: what it and its children may spend.
            timeout_s: after it the run fails with `RunTimeout`, wherever it is.

        Raises:
            RunConflict, InvalidInput, UnknownTenant, Overloaded: nothing was started.
            RunError, RunCancelled: as `RunHandle.result`.
        """
        asked = submission.Asked(tenant=tenant, principal=principal, budget=budget, timeout_s=timeout_s)
        row = await submission.start_here(self, agent, input, run_id, asked)
        return await RunHandle[O](self.engine, self._hub, row.run_id, agent, row).result()

    async def submit(
        self,
        agent: type[Agent[I, O]],
        input: I,
        /,
        *,
        run_id: str | None = None,
        tenant: str = "",
        principal: Principal | None = None,
        budget: Budget | None = None,
        priority: Priority = "normal",
        delay_s: float = 0,
        key: str = "",
        timeout_s: float | None = None,
        within: object = None,
    ) -> RunHandle[O]:
        """Store a run and queue it for any worker. The same id, agent and input again is the same run.

        Args:
            principal, budget: as in `run`.
            delay_s: do not start it before; kept in the run store, so it survives the queue.
            key: runs of one key run one at a time, in order, where the queue supports it (a parked run does not hold its key).
            within: your own SQLAlchemy `AsyncConnection` or `AsyncSession` on the database that holds the runs: the run is there when
                your transaction commits, and never was if it does not. A sweep finds it, within an eighth of a lease.

        Raises:
            RunConflict, InvalidInput, UnknownTenant: nothing was stored.
            Overloaded: the tenant has `max_queued` runs waiting. Nothing was stored.
            InvalidSetting: `within` is no such transaction, is on another database, or this store has none. Nothing was stored.
            QueueFull: the run is stored and is queued when there is room; submitting it again is safe.
        """
        asked = submission.Asked(
            tenant=tenant, principal=principal, budget=budget, priority=priority, delay_s=delay_s, key=key, timeout_s=timeout_s
        )
        return (await submission.submit(self, agent, {run_id: input}, asked, within))[0]

    async def submit_many(
        self,
        agent: type[Agent[I, O]],
        inputs: Mapping[str, I],
        /,
        *,
        tenant: str = "",
        principal: Principal | None = None,
        budget: Budget | None = None,
        priority: Priority = "normal",
        within: object = None,
    ) -> list[RunHandle[O]]:
        """`submit` for many, `run_id -> input`, in batches; each gets the budget. Raises as `submit`; the batches before were stored."""
        asked = submission.Asked(tenant=tenant, principal=principal, budget=budget, priority=priority)
        return await submission.submit(self, agent, inputs, asked, within)

    @overload
    def handle(self, run_id: str, /) -> RunHandle[JsonValue]: ...
    @overload
    def handle(self, run_id: str, agent: type[Agent[Any, O]], /) -> RunHandle[O]: ...
    def handle(self, run_id: str, agent: type[Agent[Any, Any]] | None = None, /) -> RunHandle[Any]:
        """A run by its id, wherever it runs; no I/O. Without the agent its result is plain JSON."""
        return RunHandle(self.engine, self._hub, run_id, agent)

    def session(self, agent: type[ChatAgent[O]], session_id: str, /, *, tenant: str = "", principal: Principal | None = None) -> Session[O]:
        """One user's conversation with an agent, by an id that the app chooses; no I/O.

        Its messages are answered one after the other, by whichever workers there are, each knowing what was said before.

        Args:
            session_id: 1 to 200 bytes of printable text. Another agent or tenant with the same id has another conversation.
            principal: on whose behalf what is sent through this object runs.
        """
        return self.sessions.open(agent, session_id, tenant=tenant, principal=principal or NOBODY)

    async def runs(
        self,
        *,
        agent: AnyAgent | str | None = None,
        tenant: str | None = None,
        status: Status | Sequence[Status] | None = None,
        version: str | None = None,
        idle_s: float | None = None,
        parent: str | None = None,
    ) -> AsyncIterator[RunInfo]:
        """The stored runs that meet all conditions, in order of run_id, read in pages.

        Args:
            idle_s: nothing happened for so long.
            parent: the id of the run whose children they are. Not theirs in turn, and not what it started with `ctx.start`.
        """
        wanted = None if status is None else _statuses(status)
        kind = agent if agent is None or isinstance(agent, str) else agent.name
        query = RunQuery(kind=kind, tenant=tenant, status=wanted, version=version, idle_s=idle_s, parent_id=parent)
        while page := await self.store.list(query):
            for row, usage in zip(page, await own_usage(self.engine.services.budgets, [row.run_id for row in page]), strict=True):
                yield info_of(row, usage)
            query = query._replace(after=page[-1].run_id)

    async def fork(self, run_id: str, /, *, at: str, new_run_id: str | None = None) -> RunHandle[JsonValue]:
        """A new run that remembers everything before step `at` (name or key) and goes on from there with today's code."""
        return self.handle(await submission.fork(self, run_id, at, new_run_id))

    async def rollout(self, agent: AnyAgent | str, weights: Mapping[str, float], /) -> None:
        """Which versions new runs of an agent get, by weight and run_id: `{"3": 90, "4": 10}`. Kept in the value store."""
        await submission.set_rollout(self, agent if isinstance(agent, str) else agent.name, weights)

    async def drive(self, run_id: str, /, *, within_s: float) -> Status:
        """Serverless: go on with a run here until it ends or parks, or the time is up (then it is released). Returns where it stands."""
        return await serverless.drive(self, run_id, within_s)

    async def serve(self, tickets: Sequence[Ticket], /, *, within_s: float, grace_s: float) -> list[bool]:
        """Serverless: go on with the runs of tickets that a trigger delivered, until each has ended or parked, or the time is up.

        Their children go to the queue. What is at work when the time is up starts no further step; what is still at work after half of
        the grace is cut.

        Args:
            within_s: for the runs; 0 or less: none is begun.
            grace_s: for leaving, when that is over.

        Returns:
            For each ticket whether it has done its work: then delete it, for a run that has to go on got a new one. Not so: it has to be
            delivered again, since this runtime does not serve its agent, or the queue took no new ticket.

        Raises:
            Misuse: this runtime is a worker.
            StoreUnavailable: deliver all of them again.
        """
        return await serverless.serve(self, tickets, within_s, grace_s)

    async def tick(self, *, watch_s: float = 0.0) -> int:
        """Serverless: one round of recovery (due timers, orphans, lost tickets). Returns how many tickets it put.

        Args:
            watch_s: stay up to so long while other workers are silent. Who lives beats within a quarter of a lease; who does not is taken
                for dead after a whole one, and its runs get their tickets: less than a lease finds no dead.
        """
        return await serverless.tick(self, watch_s)

    def verify(
        self, run_ids: Iterable[str] | None = None, /, *, agent: AnyAgent | str | None = None, limit: int = 1000
    ) -> AsyncIterator[Verdict]:
        """Replay stored journals against today's code, also with results delivered in shuffled order. Nothing runs, nothing is written."""
        return verify(self, run_ids, agent if agent is None or isinstance(agent, str) else agent.name, limit)

    def sync(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a verb of this runtime from sync code: `runtime.sync(runtime.submit, Review, doc)`; opens it if nobody has."""
        return self._door.call(self, partial(fn, *args, **kwargs))

    def notify_sweeper(self) -> None:
        """A timer may be due."""
        self._sweeper.due_in(0.0)

    async def sweep(self) -> bool:
        """One round of recovery; whether more is waiting."""
        return await self._sweeper.sweep()

    @property
    def hub(self) -> Hub:
        return self._hub

    @property
    def sweeper(self) -> Sweeper:
        return self._sweeper


def _only(worker: str) -> bool | list[str]:
    if worker.lower() in ("", "0", "false", "no"):
        return False
    return True if worker.lower() in ("1", "true", "yes", "all") else [part.strip() for part in worker.split(",") if part.strip()]


def _statuses(asked: Status | Sequence[Status]) -> frozenset[RunStatus]:
    wanted = {asked} if isinstance(asked, str) else set(asked)
    return frozenset(stored for stored, public in PUBLIC.items() if public in wanted)
