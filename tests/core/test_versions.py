"""Old journals and new code: what fits resumes, what does not is buried with both sides shown; forks and saved state."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import pytest
from pydantic import BaseModel

from agentkit import Agent, AnyAgent, Context, InvalidKey, RunBuried, RunError, RunNotFound
from agentkit.ports.records import Entry, EntryKind
from agentkit.testing import LocalRuntime, runtime


async def echo(value: object) -> str:
    return str(value)


def review(version: str, *calls: tuple[str, object], continues: tuple[str, ...] = ()) -> AnyAgent:
    """An agent `review` whose code makes these calls around a long sleep."""
    of, until = version, continues

    class Review(Agent[None, list[str]]):
        name = "review"
        version = of
        continues = until

        async def run(self, ctx: Context, _: None, /) -> list[str]:
            out = [await ctx.step(calls[0][0], echo, calls[0][1])] if calls else []
            await ctx.sleep(3600)
            return out + [await ctx.step(step, echo, value) for step, value in calls[1:]]

        @classmethod
        def upcast(cls, version: str, entry: Entry, /) -> Entry | None:
            return entry._replace(key="new#1") if entry.key == "old#1" else entry

    return Review


async def deploy(rt: LocalRuntime, agent: AnyAgent) -> None:
    """Today's code, as another process would have it."""
    rt.registry._agents.clear()  # pyright: ignore[reportPrivateUsage] - a deploy within one process
    rt.registry.add(agent)


async def resumed_by(old: AnyAgent, new: AnyAgent) -> object:
    async with runtime(agents=[old]) as rt:
        handle = await rt.submit(old, None, run_id="r")
        await rt.settle()
        await deploy(rt, new)
        await rt.clock.advance(4000)
        return await handle.result()


async def test_code_that_asks_for_the_same_resumes() -> None:
    assert await resumed_by(review("1", ("a", 1)), review("1", ("a", 1), ("new", 2))) == ["1", "2"]


async def test_other_arguments_of_a_recorded_step_bury_the_run_and_show_both_sides() -> None:
    with pytest.raises(RunBuried) as caught:
        await resumed_by(review("1", ("a", "red")), review("1", ("a", "blue")))
    assert caught.value.kind == "JournalMismatch"
    assert all(
        part in str(caught.value) for part in ("step 'a#1'", 'recorded echo ["red"]', 'asks for echo ["blue"]', "Raise the agent's version")
    )


async def test_a_version_that_continues_may_ask_with_other_arguments() -> None:
    assert await resumed_by(review("1", ("a", "red")), review("2", ("a", "blue"), continues=("1",))) == ["red"]


async def test_an_upcaster_renames_what_an_older_version_recorded() -> None:
    assert await resumed_by(review("1", ("old", 1)), review("2", ("new", 1), continues=("1",))) == ["1"]


async def test_a_version_that_nobody_serves_waits() -> None:
    async with runtime(agents=[review("1", ("a", 1))]) as rt:
        old = rt.registry.find("review")
        await rt.submit(old, None, run_id="r")
        await rt.settle()
        await deploy(rt, review("2", ("a", 1)))
        rt.clock.jump(4000)
        await rt.sweep()
        assert (await rt.handle("r").info()).status == "queued"


class Charges(Agent[None, str]):
    name = "charges"

    async def run(self, ctx: Context, _: None, /) -> str:
        await ctx.step("charge", echo, 1, effect="ask")
        await ctx.sleep(3600)
        return "charged"


class Forgets(Agent[None, str]):
    name = "charges"

    async def run(self, ctx: Context, _: None, /) -> str:
        await ctx.sleep(3600)
        return "never heard of it"


async def test_dropping_a_recorded_effect_buries_the_run() -> None:
    with pytest.raises(RunBuried, match="a recorded effect was dropped"):
        await resumed_by(Charges, Forgets)


# verify


async def test_verify_says_which_runs_fit_todays_code_and_writes_nothing() -> None:
    async with runtime(agents=[review("1", ("a", "red"))]) as rt:
        old = rt.registry.find("review")
        for i in range(3):
            await rt.submit(old, None, run_id=f"r{i}")
        await rt.settle()
        before = [await rt.store.load(f"r{i}", after=-1) for i in range(3)]
        assert [(v.run_id, v.ok) async for v in rt.verify()] == [("r0", True), ("r1", True), ("r2", True)]
        await deploy(rt, review("1", ("a", "blue")))
        verdicts = [v async for v in rt.verify(["r1"])]
        assert not verdicts[0].ok
        assert 'recorded echo ["red"]' in verdicts[0].problem
        assert [await rt.store.load(f"r{i}", after=-1) for i in range(3)] == before
        with pytest.raises(RunNotFound):
            _ = [v async for v in rt.verify(["nobody"])]


class ByOrder(Agent[None, str]):
    """Its next call depends on which branch ended first: it replays alike only by luck."""

    async def run(self, ctx: Context, _: None, /) -> str:
        order: list[str] = []

        async def branch(ctx: Context, name: str) -> None:
            await ctx.step("s", echo, name)
            order.append(name)

        await ctx.gather(*(partial(branch, name=n) for n in "abcd"))
        return await ctx.step("next", echo, order)


async def test_verify_finds_code_that_depends_on_the_order_of_completion() -> None:
    async with runtime(agents=[ByOrder]) as rt:
        await rt.submit_many(ByOrder, {f"r{i}": None for i in range(5)})
        await rt.settle()
        verdicts = [v async for v in rt.verify()]
        assert not all(v.ok for v in verdicts)
        assert all("step 'next#1'" in v.problem for v in verdicts if not v.ok)


# fork


class Path(Agent[None, list[str]]):
    made: ClassVar[list[str]] = []

    async def run(self, ctx: Context, _: None, /) -> list[str]:
        out = [await ctx.step(n, self.body, n) for n in ("a", "b", "c")]
        return [*out, str(ctx.uuid4())]

    async def body(self, n: str) -> str:
        self.made.append(n)
        return f"{n}{len(self.made)}"


@pytest.mark.parametrize("at", ["b", "b#1"])
async def test_a_fork_remembers_what_was_before_the_step_and_makes_the_rest_anew(at: str) -> None:
    Path.made = []
    async with runtime(agents=[Path]) as rt:
        original = await rt.run(Path, None, run_id="r")
        fork = await rt.fork("r", at=at)
        await rt.settle()
        result = await rt.handle(fork.run_id, Path).result()
        assert result[:3] == ["a1", "b4", "c5"]
        assert Path.made == ["a", "b", "c", "b", "c"]
        assert result[3] == original[3]  # the seed is the same
        assert await rt.handle("r", Path).result() == original


async def test_a_fork_at_a_step_that_is_not_there_names_those_that_are() -> None:
    async with runtime(agents=[Path]) as rt:
        await rt.run(Path, None, run_id="r")
        with pytest.raises(InvalidKey, match=r"has no such step; it has: a#1, b#1, c#1"):
            await rt.fork("r", at="x")
        with pytest.raises(RunNotFound):
            await rt.fork("nobody", at="a")


# state


class Total(BaseModel):
    count: int = 0
    seen: list[int] = []


class Counts(Agent[int, Total]):
    made: ClassVar[list[int]] = []

    async def run(self, ctx: Context, rounds: int, /) -> Total:
        state = await ctx.state(Total())
        while state.value.count < rounds:
            n = state.value.count
            await ctx.step("round", self.body, n)
            await ctx.sleep(60)
            state.value.seen.append(n)
            state.value.count += 1
            await state.save()
        return state.value

    async def body(self, n: int) -> int:
        self.made.append(n)
        return n


async def test_after_a_save_a_replay_starts_there_and_reads_nothing_older() -> None:
    Counts.made = []
    async with runtime(agents=[Counts]) as rt:
        handle = await rt.submit(Counts, 5, run_id="r")
        await rt.clock.advance(61 * 3)
        assert len(await rt.store.load("r")) < 6 < len(await rt.store.load("r", after=-1))
        assert (await rt.store.load("r"))[0].kind == EntryKind.SNAPSHOT
        await rt.crash(at="round", before=True)
        await rt.clock.advance(61 * 5)
        assert (await handle.result()).seen == [0, 1, 2, 3, 4]
        assert Counts.made == [0, 1, 2, 3, 4]
        assert rt.crashed == 1


class LateState(Agent[None, None]):
    async def run(self, ctx: Context, _: None, /) -> None:
        await ctx.step("first", echo, 1)
        await ctx.state(Total())


async def test_state_must_come_first_for_what_is_before_it_would_run_again() -> None:
    async with runtime(agents=[LateState]) as rt:
        with pytest.raises(RunError, match="must be the first verb of run"):
            await rt.run(LateState, None)
