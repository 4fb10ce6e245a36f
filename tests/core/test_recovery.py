"""Who is dead: observed by beats that stand still, never computed from clocks. Pure tables, then crashes and burial."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, Context, RunBuried, Settings
from agentkit.durable.recovery import Watch, observe
from agentkit.testing import LocalRuntime, runtime

LEASE_S = 8.0


def look(*looks: tuple[float, dict[str, int]], watch: Watch | None = None) -> dict[str, int]:
    """What the last of some looks found silent."""
    silent: dict[str, int] = {}
    watch = watch or Watch()
    for now, beats in looks:
        watch, silent = observe(watch, beats, now, LEASE_S)
    return silent


def test_a_beat_that_stands_still_for_a_lease_is_silence() -> None:
    steady = [(float(t), {"w": 5}) for t in range(9)]
    assert look(*steady[:8]) == {}
    assert look(*steady) == {"w": 5}


def test_a_beat_that_moves_is_life_however_slowly_it_moves() -> None:
    assert look(*((float(t), {"w": t // 7}) for t in range(60))) == {}


def test_the_first_look_finds_nobody_silent_whatever_the_clock_says() -> None:
    assert look((1e9, {"w": 5})) == {}


def test_after_a_gap_in_the_observations_the_watch_begins_anew() -> None:
    before = [(float(t), {"w": 5}) for t in range(8)]
    assert look(*before, (12.5, {"w": 5})) == {}  # the observer slept, or its store was away: everybody looks silent
    assert look(*before, *((12.5 + t, {"w": 5}) for t in range(9))) == {"w": 5}


def test_after_an_error_of_its_own_the_observer_begins_anew_with_an_empty_watch() -> None:
    watch = Watch()
    for t in range(8):
        watch, _ = observe(watch, {"w": 5}, float(t), LEASE_S)
    assert observe(Watch(), {"w": 5}, 8.0, LEASE_S)[1] == {}


def test_a_worker_that_is_gone_is_forgotten_and_one_that_came_later_has_its_own_time() -> None:
    looks = [(float(t), {"old": 1} if t < 4 else {"new": 1}) for t in range(10)]
    assert look(*looks) == {}


@given(st.lists(st.floats(0.1, LEASE_S / 2 - 0.01), min_size=1, max_size=40))
def test_silence_is_found_within_a_lease_and_one_pause_and_never_before_a_lease(pauses: list[float]) -> None:
    watch, now = Watch(), 0.0
    watch, silent = observe(watch, {"w": 1}, now, LEASE_S)
    for pause in pauses:
        now += pause
        watch, silent = observe(watch, {"w": 1}, now, LEASE_S)
        assert bool(silent) == (now >= LEASE_S)


@given(st.lists(st.tuples(st.floats(0.1, 100), st.booleans()), max_size=40))
def test_nobody_is_found_dead_whose_beat_moved_within_the_last_lease(steps: list[tuple[float, bool]]) -> None:
    watch, now, beat, moved_at = Watch(), 0.0, 0, 0.0
    for pause, moves in steps:
        now += pause
        if moves:
            beat, moved_at = beat + 1, now
        watch, silent = observe(watch, {"w": beat}, now, LEASE_S)
        assert not silent or now - moved_at >= LEASE_S


# Crash loops


class Deadly(Agent[int, int]):
    """Ends its process at its first step as often as the input says."""

    lives: ClassVar[dict[str, int]] = {}
    alone: ClassVar[list[int]] = []
    rt: LocalRuntime

    async def run(self, ctx: Context, deaths: int, /) -> int:
        return await ctx.step("s", self.body, ctx.run_id, deaths)

    async def body(self, run_id: str, deaths: int) -> int:
        n = self.lives[run_id] = self.lives.get(run_id, 0) + 1
        self.alone.append(len(self.rt.engine.active))
        if n <= deaths:
            await self.rt.crash(at="s")
        return n


class Bystander(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        await ctx.sleep(3600)
        return "unharmed"


@pytest.mark.parametrize("deaths", [1, 2])
async def test_a_run_whose_process_dies_is_taken_over_and_ends(deaths: int) -> None:
    Deadly.lives, Deadly.alone = {}, []
    async with runtime(agents=[Deadly]) as rt:
        Deadly.rt = rt
        handle = await rt.submit(Deadly, deaths, run_id="r")
        await rt.settle()
        assert await handle.result() == deaths + 1
        info = await handle.info()
        assert info.attempts == deaths + 1
        assert info.crashes == 0


async def test_a_run_that_kills_its_process_again_and_again_is_buried_with_the_reason_and_its_neighbours_are_not() -> None:
    Deadly.lives, Deadly.alone = {}, []
    async with runtime(agents=[Deadly, Bystander]) as rt:
        Deadly.rt = rt
        other = await rt.submit(Bystander, None)
        handle = await rt.submit(Deadly, 100, run_id="r")
        await rt.settle()
        with pytest.raises(RunBuried, match="its process died 3 times while it ran"):
            await handle.result()
        assert Deadly.lives == {"r": 3}
        await rt.clock.advance(4000)
        assert await other.result() == "unharmed"


async def test_a_suspect_runs_alone() -> None:
    Deadly.lives, Deadly.alone = {}, []
    async with runtime(agents=[Deadly]) as rt:
        Deadly.rt = rt
        await rt.submit_many(Deadly, {"bad": 2} | {f"good{i}": 0 for i in range(5)})
        await rt.settle()
        assert {i.status async for i in rt.runs()} == {"done"}
        assert Deadly.lives["bad"] == 3
        assert Deadly.alone[-1] == 1


async def test_a_buried_run_is_revived_by_redrive_with_its_crashes_forgotten() -> None:
    Deadly.lives, Deadly.alone = {}, []
    async with runtime(agents=[Deadly], settings=Settings(max_crashes=1, grace_s=0)) as rt:
        Deadly.rt = rt
        handle = await rt.submit(Deadly, 1, run_id="r")
        await rt.settle()
        assert (await handle.info()).status == "buried"
        assert await rt.queue.redrive(["r"]) == 1
        await rt.settle()
        assert await handle.result() == 2


async def test_a_worker_that_is_silent_for_a_lease_loses_its_runs_to_one_that_is_not() -> None:
    async with runtime(agents=[Bystander]) as rt:
        await rt.store.register("zombie", "bystander@1", "elsewhere")
        await rt.store.beat("zombie")
        await rt.submit(Bystander, None, run_id="r", delay_s=5)
        rt.clock.jump(6)
        await rt.store.sweep({}, max_crashes=3, lost_after_s=1e9, limit=10)
        await rt.store.claim("zombie", ["r"], {"bystander": frozenset({"1"})})
        info = await rt.handle("r").info()
        assert info.status == "running"
        for _ in range(20):
            rt.clock.jump(rt.engine.lease_s / 8)
            await rt.settle()
        info = await rt.handle("r").info()
        assert info.status == "waiting"
        assert info.attempts == 2
