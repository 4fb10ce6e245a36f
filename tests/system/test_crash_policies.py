"""What becomes of the effect that was in flight: each policy keeps its promise."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from agentkit import Runtime, StepError
from agentkit.testing.crash import Child, Crew, until
from tests.system import proof
from tests.system.app import Charged, Effects
from tests.system.conftest import MARKS, Opened

pytestmark = MARKS

NOT_YET, IN_IT, HAPPENED = "after write INTENT", "inside step charge, before its effect", "after step charge"
hows = pytest.mark.parametrize("how", ["kill", "stop"])
points = pytest.mark.parametrize("point", [NOT_YET, HAPPENED])


@asynccontextmanager
async def halted(policy: str, halt: str, crew: Crew, opened: Opened) -> AsyncGenerator[tuple[Runtime, Child]]:
    """A run under `policy` whose first worker halted; others are at work on it."""
    async with opened() as runtime:
        await runtime.submit(Charged, f"{policy} 4", run_id="probed-4")
        worker = await crew.start(halt)
        await worker.reached(halt.partition("@")[2])
        async with opened(worker=True):
            yield runtime, worker


async def settled(worker: Child, runtime: Runtime, effects: Effects, happened: int) -> None:
    """The frozen one thaws and adds nothing."""
    worker.go_on()
    worker.terminate()
    await worker.ended()
    assert proof.made(effects.lines(), "probed-4:charge#1") == happened
    assert await proof.faults(runtime.store, ["probed-4"], effects.lines()) == []


@hows
@points
async def test_rerun_makes_the_effect_again_under_the_same_key(point: str, how: str, crew: Crew, opened: Opened, effects: Effects) -> None:
    async with halted("rerun", f"{how}@{point}", crew, opened) as (runtime, worker):
        assert await proof.result_of(runtime, "probed-4", Charged) == 8
        await settled(worker, runtime, effects, 1 if point == NOT_YET else 2)


@hows
@points
async def test_a_probe_finds_out_and_the_effect_happens_once(point: str, how: str, crew: Crew, opened: Opened, effects: Effects) -> None:
    async with halted("probe", f"{how}@{point}", crew, opened) as (runtime, worker):
        assert await proof.result_of(runtime, "probed-4", Charged) == 8
        await settled(worker, runtime, effects, 1)


@hows
@points
async def test_fail_fails_and_the_effect_is_never_made_again(point: str, how: str, crew: Crew, opened: Opened, effects: Effects) -> None:
    async with halted("fail", f"{how}@{point}", crew, opened) as (runtime, worker):
        with pytest.raises(StepError) as failed:
            await proof.result_of(runtime, "probed-4", Charged)
        assert failed.value.kind == "EffectUnknown"
        await settled(worker, runtime, effects, 0 if point == NOT_YET else 1)


@hows
@points
async def test_ask_waits_for_the_operator_and_does_as_he_says(point: str, how: str, crew: Crew, opened: Opened, effects: Effects) -> None:
    async with halted("ask", f"{how}@{point}", crew, opened) as (runtime, worker):
        handle = runtime.handle("probed-4", Charged)

        async def asking() -> bool:
            return (await handle.info()).waiting_for == "operator:charge"

        await until("the run asks", asking)
        if point == NOT_YET:
            await handle.resolve("charge", "rerun")
        else:
            await handle.resolve("charge", "done", result=8)
        assert await proof.result_of(runtime, "probed-4", Charged) == 8
        await settled(worker, runtime, effects, 1)


@pytest.mark.parametrize("policy", ["rerun", "probe"])
async def test_a_process_killed_inside_the_body_leaves_the_effect_to_its_policy(
    policy: str, crew: Crew, opened: Opened, effects: Effects
) -> None:
    async with halted(policy, f"kill@{IN_IT}", crew, opened) as (runtime, worker):
        assert await proof.result_of(runtime, "probed-4", Charged) == 8
        await settled(worker, runtime, effects, 1)
