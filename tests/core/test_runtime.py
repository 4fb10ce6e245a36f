"""The runtime as an app uses it: one id is one run, resources, filters, serverless, the sync door, and errors that say the way out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from pydantic import BaseModel

from agentkit import (
    Agent,
    Context,
    InvalidInput,
    InvalidKey,
    InvalidSetting,
    Misuse,
    Overloaded,
    RunConflict,
    RunNotFound,
    Runtime,
    Settings,
    Signal,
    UnknownAgent,
    UnknownScheme,
)
from agentkit.testing import runtime


class Order(BaseModel):
    n: int


class Square(Agent[Order, int]):
    made: ClassVar[list[int]] = []

    async def run(self, ctx: Context, order: Order, /) -> int:
        return await ctx.step("square", self.body, order.n)

    async def body(self, n: int) -> int:
        self.made.append(n)
        return n * n


class Waits(Agent[int, str]):
    go = Signal(str)

    async def run(self, ctx: Context, _: int, /) -> str:
        return await ctx.wait_for(self.go)


class Other(Agent[Order, int]):
    async def run(self, ctx: Context, order: Order, /) -> int:
        return order.n


class Holds(Agent[int, None]):
    async def run(self, ctx: Context, _: int, /) -> None:
        await ctx.step("s", anyio.sleep_forever)


AGENTS: list[Any] = [Square, Waits, Other, Holds]


# One id is one run


async def test_a_run_id_is_an_idempotency_key_the_second_call_answers_from_the_store() -> None:
    Square.made = []
    async with runtime(agents=AGENTS) as rt:
        assert await rt.run(Square, Order(n=3), run_id="r") == 9
        assert await rt.run(Square, Order(n=3), run_id="r") == 9
        assert await (await rt.submit(Square, Order(n=3), run_id="r")).result() == 9
    assert Square.made == [3]


async def test_a_second_caller_attaches_to_a_run_that_goes_on() -> None:
    async with runtime(agents=AGENTS) as rt:
        results: list[str] = []

        async def call() -> None:
            results.append(await rt.run(Waits, 1, run_id="r"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            tasks.start_soon(call)
            await rt.settle()
            await rt.handle("r", Waits).signal(Waits.go, "both")
        assert results == ["both", "both"]


async def test_an_id_with_another_input_or_agent_is_a_conflict() -> None:
    async with runtime(agents=AGENTS) as rt:
        await rt.run(Square, Order(n=3), run_id="r")
        with pytest.raises(RunConflict, match="run 'r' exists with another input"):
            await rt.run(Square, Order(n=4), run_id="r")
        with pytest.raises(RunConflict, match="agent 'square', not 'other'"):
            await rt.submit(Other, Order(n=3), run_id="r")
        assert await rt.handle("r", Square).result() == 9


async def test_submit_many_stores_all_and_each_has_its_handle() -> None:
    async with runtime(agents=AGENTS) as rt:
        handles = await rt.submit_many(Square, {f"r{i}": Order(n=i) for i in range(1200)})
        await rt.settle()
        assert [h.run_id for h in handles] == [f"r{i}" for i in range(1200)]
        assert await handles[1199].result() == 1199**2


@pytest.mark.parametrize("run_id", ["", "x" * 401, "a\nb", "語" * 200])
async def test_an_id_outside_the_rule_is_refused(run_id: str) -> None:
    async with runtime(agents=AGENTS) as rt:
        with pytest.raises(InvalidKey, match="a run_id is 1 to 400 bytes of printable text"):
            await rt.submit(Square, Order(n=1), run_id=run_id)


async def test_what_is_not_known_or_does_not_validate_is_refused_before_anything_is_stored() -> None:
    class Strange(Agent[Order, int]):
        pass

    async with runtime(agents=AGENTS) as rt:
        with pytest.raises(UnknownAgent, match=r"no agent 'strange@1' here \(registered: holds@1, other@1, square@1, waits@1\)"):
            await rt.submit(Strange, Order(n=1))
        with pytest.raises(InvalidInput, match="input of 'square'"):
            await rt.submit(Square, "three")  # type: ignore[misc]
        with pytest.raises(InvalidInput, match="input of 'square'"):
            await rt.run(Square, Order.model_construct(n="three"))
        with pytest.raises(RunNotFound, match="no run 'nobody' in this store"):
            await rt.handle("nobody").result()
        assert [i async for i in rt.runs()] == []


async def test_more_than_may_wait_here_are_refused() -> None:
    few = Settings(concurrency=1, max_waiting=2, grace_s=0)
    async with runtime(agents=AGENTS, settings=few) as rt, anyio.create_task_group() as tasks:
        for i in range(3):
            tasks.start_soon(rt.run, Holds, i)
        while rt.engine.arriving + len(rt.engine.locals) + len(rt.engine.active) < 3:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(Overloaded, match=r"is full \(2\); try again in") as at_once:
            await rt.run(Holds, 9)  # the three may be on their way still, with nothing of them stored
        while rt.engine.free() > 0:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(Overloaded, match=r"is full \(2\); try again in"):
            await rt.run(Holds, 9)
        assert at_once.value.retry_after_s > 0
        tasks.cancel_scope.cancel()


async def test_result_gives_up_after_its_time_and_the_run_goes_on() -> None:
    async with runtime(agents=AGENTS) as rt:
        handle = await rt.submit(Waits, 1)
        await rt.settle()
        with pytest.raises(TimeoutError, match="it goes on"):
            await handle.result(timeout_s=0)
        await handle.signal(Waits.go, "done")
        assert await handle.result() == "done"


async def test_runs_are_found_by_agent_tenant_status_version_and_idleness() -> None:
    async with runtime(agents=AGENTS) as rt:
        await rt.submit(Waits, 1, run_id="w", tenant="acme")
        await rt.clock.advance(100)
        await rt.submit(Square, Order(n=1), run_id="s")
        await rt.settle()

        async def ids(**conditions: Any) -> list[str]:
            return [i.run_id async for i in rt.runs(**conditions)]

        assert await ids() == ["s", "w"]
        assert await ids(agent=Waits) == await ids(agent="waits") == await ids(tenant="acme") == await ids(status="waiting") == ["w"]
        assert await ids(status=["done", "failed"]) == ["s"]
        assert await ids(status=["done", "waiting"], version="1") == ["s", "w"]
        assert await ids(idle_s=50) == ["w"]
        assert await ids(version="2") == []


# Resources, opening and closing


async def test_resources_are_entered_once_and_closed_after_the_last_run_has_left() -> None:
    log: list[str] = []

    class Db:
        pass

    class Uses(Agent[None, bool]):
        async def run(self, ctx: Context, _: None, /) -> bool:
            log.append("run")
            return type(ctx.get(Db)) is Db

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Mapping[type[Any], object]]:
        log.append("open")
        yield {Db: Db()}
        log.append("close")

    async with Runtime(agents=[Uses], lifespan=lifespan) as rt:
        assert await rt.run(Uses, None)
        assert await rt.run(Uses, None)
    assert log == ["open", "run", "run", "close"]


async def test_making_a_runtime_does_no_io_and_using_it_before_it_is_entered_says_so() -> None:
    rt = Runtime(agents=AGENTS)
    with pytest.raises(Misuse, match="enter the Runtime first"):
        await rt.submit(Square, Order(n=1))
    async with rt:
        with pytest.raises(Misuse, match="entered already"):
            await rt.__aenter__()


@pytest.mark.parametrize("not_there", [True])
async def test_a_lifespan_that_fails_closes_what_was_opened(*, not_there: bool) -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Mapping[type[Any], object]]:
        if not_there:
            raise ConnectionError("no database")
        yield {}

    with pytest.raises(ConnectionError, match="no database"):
        async with Runtime(agents=AGENTS, lifespan=lifespan):
            raise AssertionError


async def test_a_drain_releases_what_runs_to_be_taken_on_by_others() -> None:
    started = anyio.Event()

    class Slow(Agent[None, None]):
        async def run(self, ctx: Context, _: None, /) -> None:
            await ctx.step("s", self.body)

        async def body(self) -> None:
            started.set()
            await anyio.sleep_forever()

    async with runtime(agents=[Slow]) as rt:
        await rt.submit(Slow, None, run_id="r")
        await started.wait()
    (row,) = await rt.store.get(["r"])
    assert row is not None
    assert row.status.name == "READY"
    assert row.crashes == 0
    assert row.ticketed
    assert [d.ready for d in (await rt.tickets.depth()).values()] == [1]
    assert await rt.store.workers() == []


# Serverless


async def test_drive_goes_on_with_a_run_until_it_ends_or_parks() -> None:
    async with runtime(agents=AGENTS, worker=False) as rt:
        done, waits = await rt.submit(Square, Order(n=2)), await rt.submit(Waits, 1)
        assert await rt.drive(done.run_id, within_s=5) == "done"
        assert await rt.drive(waits.run_id, within_s=5) == "waiting"
        with pytest.raises(RunNotFound):
            await rt.drive("nobody", within_s=5)


async def test_drive_lets_go_of_a_run_when_the_time_is_up() -> None:
    class Steps(Agent[None, int]):
        async def run(self, ctx: Context, _: None, /) -> int:
            for n in range(1_000_000):
                await ctx.step("s", anyio.lowlevel.checkpoint)
                if n % 10 == 0:
                    await ctx.durable()
            return 0

    async with runtime(agents=[Steps], worker=False) as rt:
        handle = await rt.submit(Steps, None)
        assert await rt.drive(handle.run_id, within_s=0.05) == "queued"
        assert len(await rt.steps(handle.run_id)) > 0


async def test_tick_rings_the_timers_that_are_due() -> None:
    async with runtime(agents=AGENTS, worker=False) as rt:
        await rt.submit(Square, Order(n=2), delay_s=60)
        assert await rt.tick() == 0
        rt.clock.jump(61)
        await rt.tick()  # or the sweeper of this process, which wakes now too
        assert [d.ready for d in (await rt.queue.depth()).values()] == [1]


# Rollout


async def test_a_rollout_gives_new_runs_their_version_by_weight_and_the_same_one_each_time() -> None:
    class Square2(Square):
        name = "square"
        version = "2"

    async with runtime(agents=[Square, Square2]) as rt:
        await rt.rollout(Square, {"1": 50, "2": 50})
        await rt.submit_many(Square, {f"r{i}": Order(n=i) for i in range(200)})
        await rt.submit_many(Square, {f"r{i}": Order(n=i) for i in range(200)})
        versions = [i.version async for i in rt.runs()]
        assert len(versions) == 200
        assert 60 < versions.count("2") < 140
        with pytest.raises(InvalidSetting):
            await rt.rollout(Square, {"1": 0})


# The sync door


async def test_sync_code_on_another_thread_uses_the_same_runtime() -> None:
    async with Runtime(agents=AGENTS) as rt:
        assert await anyio.to_thread.run_sync(lambda: rt.sync(rt.run, Square, Order(n=4))) == 16
        with pytest.raises(Misuse, match="await the verb instead"):
            rt.sync(rt.run, Square, Order(n=4))


# Wrong settings


def test_a_url_of_an_unknown_scheme_names_those_that_are_there() -> None:
    with pytest.raises(UnknownScheme, match=r"no adapter for 'memry'.*did you mean 'memory'"):
        Runtime(state="memry://")


def test_an_object_for_state_needs_to_be_told_what_serves_the_other_ports() -> None:
    given = Runtime(state="memory://").store
    with pytest.raises(InvalidSetting, match="state is an object, so say what serves queue"):
        Runtime(state=given)


def test_a_worker_for_an_agent_that_is_not_listed_is_refused() -> None:
    with pytest.raises(UnknownAgent, match="did you mean 'square'"):
        Runtime(agents=AGENTS, worker=["squar"])


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [("AGENTKIT_STAET", "x", "did you mean 'AGENTKIT_STATE'"), ("AGENTKIT_LEASE_S", "-1", "AGENTKIT_LEASE_S='-1'")],
)
def test_a_wrong_environment_variable_fails_by_name(variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSetting, match=said):
        Runtime.from_env()


def test_the_environment_sets_what_no_argument_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTKIT_CONCURRENCY", "7")
    monkeypatch.setenv("AGENTKIT_AGENTS", f"{__name__}:Square, {__name__}:Waits")
    rt = Runtime.from_env()
    assert rt.settings.concurrency == 7
    assert rt.registry.kinds() == ["square@1", "waits@1"]
    assert Runtime(concurrency=3, settings=Settings(concurrency=9)).settings.concurrency == 3
