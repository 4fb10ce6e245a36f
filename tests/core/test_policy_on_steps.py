"""Policies on steps and child runs: attempts are made inside the step, under one key, and never more often than the retry budgets allow."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

import anyio
import pytest

from agentkit import Agent, Context, InvalidSetting, RunError, Settings, StepContext, StepError
from agentkit.durable.codec import PLAIN
from agentkit.errors import EngineFailed
from agentkit.inference.places import Model
from agentkit.ports.records import EntryKind
from agentkit.resilience.circuit_breaker import CircuitBreaker
from agentkit.resilience.deadline import remaining_s
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Retry
from agentkit.resilience.semaphore import Semaphore
from agentkit.resilience.state import current, tenant
from agentkit.testing import ScriptedModel, runtime

AT_ONCE = Retry(attempts=3, on=(ValueError,), wait_s=0)


class Flaky:
    """A function that fails so many times, and what it saw."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.keys: list[str] = []
        self.attempts: list[int] = []
        self.left: list[float] = []

    async def __call__(self, step: StepContext, n: int) -> int:
        self.keys.append(step.idempotency_key)
        self.attempts.append(step.attempt)
        self.left.append(remaining_s())
        if len(self.attempts) <= self.failures:
            raise ValueError("not yet")
        return n


class Calls(Agent[int, int]):
    flaky: ClassVar[Flaky]
    under: ClassVar[Policy | None]
    effect: ClassVar[bool] = False

    async def run(self, ctx: Context, n: int, /) -> int:
        return await ctx.step("call", self.flaky, n, policy=self.under, effect="fail" if self.effect else None)


def calls(failures: int, policy: Policy | None, *, effect: bool = False, own: Policy | None = None) -> tuple[type[Calls], Flaky]:
    flaky = Flaky(failures)
    made = type("Calls", (Calls,), {"flaky": flaky, "under": policy, "effect": effect, "policy": own, "name": "calls"})
    return made, flaky


async def test_attempts_of_a_policy_are_one_step_with_one_key_and_one_result() -> None:
    agent, flaky = calls(2, Policy("p", retry=AT_ONCE))
    async with runtime(agents=[agent]) as rt:
        assert await rt.run(agent, 7, run_id="r") == 7
        assert await rt.steps("r") == ["call#1"]
    assert flaky.keys == ["r:call#1"] * 3
    assert flaky.attempts == [1, 2, 3]


async def test_what_the_last_attempt_raised_is_the_error_of_the_step() -> None:
    agent, flaky = calls(9, Policy("p", retry=AT_ONCE))
    async with runtime(agents=[agent]) as rt:
        with pytest.raises(StepError, match="not yet") as caught:
            await rt.run(agent, 7)
    assert caught.value.kind == "ValueError"
    assert len(flaky.attempts) == 3


async def test_an_agents_policy_bounds_the_steps_that_have_none_of_their_own() -> None:
    agent, flaky = calls(2, None, own=Policy("agent", retry=AT_ONCE))
    async with runtime(agents=[agent]) as rt:
        assert await rt.run(agent, 7) == 7
    assert len(flaky.attempts) == 3


async def test_an_empty_policy_keeps_the_agents_away_from_a_step() -> None:
    agent, flaky = calls(1, Policy(), own=Policy("agent", retry=AT_ONCE))
    async with runtime(agents=[agent]) as rt:
        with pytest.raises(StepError):
            await rt.run(agent, 7)
    assert len(flaky.attempts) == 1


async def test_an_intent_holds_until_the_policys_whole_time_is_over() -> None:
    agent, flaky = calls(0, Policy("p", timeout_s=600), effect=True)
    async with runtime(agents=[agent]) as rt:
        await rt.run(agent, 7, run_id="r")
        (intent,) = [e for e in await rt.store.load("r", after=-1) if e.kind == EntryKind.INTENT]
        assert PLAIN.decode(intent.body, "intent")["deadline"] > rt.clock.time() + 600
    assert flaky.left == [600]


async def test_an_effect_under_a_policy_without_a_time_is_retried_only_until_its_intent_ends() -> None:
    agent, flaky = calls(9, Policy("p", retry=Retry(attempts=3, on=(ValueError,), wait_s=200, max_wait_s=200)), effect=True)
    async with runtime(agents=[agent]) as rt:
        with pytest.raises(StepError):
            await rt.run(agent, 7)
    assert len(flaky.attempts) == 1  # the next would come after the time at which nobody may be at it any more


async def test_calls_in_a_run_know_its_deadline_and_its_tenant() -> None:
    seen: list[tuple[float, str]] = []

    async def look() -> None:
        seen.append((remaining_s(), tenant.get()))

    class Looks(Agent[int, None]):
        async def run(self, ctx: Context, n: int, /) -> None:
            await ctx.step("look", look)

    async with runtime(agents=[Looks]) as rt:
        await rt.run(Looks, 1, tenant="acme", timeout_s=90)
    ((left_s, of),) = seen
    assert 0 < left_s <= 90
    assert of == "acme"


async def test_all_runs_of_a_runtime_share_the_state_behind_a_policys_name() -> None:
    agent, _ = calls(1000, Policy("broken", breaker=CircuitBreaker(min_calls=5)))
    async with runtime(agents=[agent]) as rt:
        kinds: list[str] = []
        for i in range(7):
            with pytest.raises(StepError) as caught:
                await rt.run(agent, i)
            kinds.append(caught.value.kind)
        assert current() is not rt.engine.services.policies
    assert kinds == ["ValueError"] * 5 + ["CircuitOpen"] * 2


async def test_a_sync_step_is_retried_on_its_thread() -> None:
    tries: list[int] = []

    def fetch(n: int) -> int:
        tries.append(n)
        if len(tries) < 3:
            raise ValueError("not yet")
        return n

    class Fetches(Agent[int, int]):
        async def run(self, ctx: Context, n: int, /) -> int:
            return await ctx.step("fetch", fetch, n, policy=Policy("p", retry=AT_ONCE))

    async with runtime(agents=[Fetches]) as rt:
        assert await rt.run(Fetches, 5) == 5
    assert tries == [5, 5, 5]


async def test_no_more_sync_steps_run_at_a_time_than_the_runtime_has_threads() -> None:
    at_work = most = 0
    lock = threading.Lock()

    def work(n: int) -> int:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.002)
        with lock:
            at_work -= 1
        return n

    class Works(Agent[int, int]):
        async def run(self, ctx: Context, n: int, /) -> int:
            return await ctx.step("work", work, n)

    async with runtime(agents=[Works], settings=Settings(grace_s=0.0, threads=2)) as rt:
        handles = await rt.submit_many(Works, {f"r{i}": i for i in range(12)})
        assert [await handle.result() for handle in handles] == list(range(12))
    assert most == 2


# Child runs


class Child(Agent[int, int]):
    failures: ClassVar[int] = 0
    started: ClassVar[int] = 0

    async def run(self, ctx: Context, n: int, /) -> int:
        type(self).started += 1
        if type(self).started <= self.failures:
            raise ValueError("not yet")
        await ctx.sleep(n)
        return n


class Parent(Agent[int, int]):
    under: ClassVar[Policy]

    async def run(self, ctx: Context, n: int, /) -> int:
        return await ctx.run("child", Child, n, policy=self.under)


def parent(policy: Policy, failures: int = 0) -> type[Parent]:
    Child.started, Child.failures = 0, failures
    return type("Parent", (Parent,), {"under": policy, "name": "parent"})


async def test_a_policys_time_is_the_deadline_of_the_child() -> None:
    agent = parent(Policy(timeout_s=60))
    async with runtime(agents=[agent, Child]) as rt:
        handle = await rt.submit(agent, 3600, run_id="r")
        await rt.clock.advance(100)
        with pytest.raises(RunError) as caught:
            await handle.result()
    assert caught.value.kind == "RunTimeout"


async def test_a_policys_retries_make_further_children_and_the_parent_parks_between_them() -> None:
    agent = parent(Policy(retry=Retry(attempts=3, on=(RunError,), wait_s=30, max_wait_s=30)), failures=2)
    async with runtime(agents=[agent, Child]) as rt:
        handle = await rt.submit(agent, 0, run_id="r")
        await rt.clock.advance(1)
        assert (await handle.info()).status == "waiting"
        await rt.clock.advance(3600)
        assert await handle.result() == 0
        assert {row.run_id async for row in rt.runs()} == {"r", "r/child#1", "r/child#1~2", "r/child#1~3"}
    assert Child.started == 3


async def test_retries_of_a_child_go_on_where_they_were_after_a_crash() -> None:
    agent = parent(Policy(retry=Retry(attempts=3, on=(RunError,), wait_s=30, max_wait_s=30)), failures=1)
    async with runtime(agents=[agent, Child]) as rt:
        handle = await rt.submit(agent, 0, run_id="r")
        await rt.settle()
        await rt.engine.crash()
        await rt.clock.advance(3600)
        assert await handle.result() == 0
        assert Child.started == 2
        assert all([verdict.ok async for verdict in rt.verify()])


@pytest.mark.parametrize(
    "policy",
    [
        Policy("p", breaker=CircuitBreaker()),
        Policy("p", limits=[Semaphore("s", 1)]),
        Policy("p", hedge=True),
    ],
)
async def test_what_a_waiting_parent_would_hold_is_refused(policy: Policy) -> None:
    agent = parent(policy)
    async with runtime(agents=[agent, Child]) as rt:
        with pytest.raises(RunError, match="only timeout_s and retry apply") as caught:
            await rt.run(agent, 0)
    assert caught.value.kind == InvalidSetting.__name__


async def test_a_mapped_child_ends_with_the_policys_time() -> None:
    class Maps(Agent[list[int], int]):
        async def run(self, ctx: Context, ns: list[int], /) -> int:
            return sum(await ctx.map("child", Child, ns, policy=Policy(timeout_s=60)))

    Child.started = Child.failures = 0
    async with runtime(agents=[Maps, Child]) as rt:
        handle = await rt.submit(Maps, [1, 3600])
        await rt.clock.advance(100)
        with pytest.raises(RunError, match="deadline"):
            await handle.result()


async def test_a_step_that_waits_for_a_permit_holds_back_no_other_run() -> None:
    gpu = Policy("gpu", limits=[Semaphore("gpu", 1)])
    at_work = most = 0

    async def work(n: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await anyio.sleep(0.001)
        at_work -= 1
        return n

    class Works(Agent[int, int]):
        async def run(self, ctx: Context, n: int, /) -> int:
            return await ctx.step("work", work, n, policy=gpu)

    async with runtime(agents=[Works]) as rt:
        handles = await rt.submit_many(Works, {f"r{i}": i for i in range(20)})
        assert [await handle.result() for handle in handles] == list(range(20))
    assert most == 1


async def test_an_error_that_says_a_repetition_is_safe_needs_no_list_of_types() -> None:
    model = ScriptedModel([EngineFailed("eu", "502"), "here"])

    class Asks(Agent[str, str]):
        async def run(self, ctx: Context, text: str, /) -> str:
            return (await ctx.generate(text, model="chat")).output

    async with runtime(agents=[Asks], models={"chat": Model(model, policy=Policy("chat", retry=Retry(attempts=2, wait_s=0)))}) as rt:
        assert await rt.run(Asks, "hello", run_id="r") == "here"
        assert await rt.steps("r") == ["model#1"]
