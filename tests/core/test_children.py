"""Children: durable runs of their own; a waiting parent parks, is woken once, and reads what came of them as it was decided."""

from __future__ import annotations

from typing import Any, ClassVar

import anyio
import pytest

from agentkit import Agent, AmbiguousStep, Context, Need, NeedNotMet, RunError, Settings, Signal, StoreUnavailable
from agentkit.ports.records import EntryKind
from agentkit.testing import LocalRuntime, runtime


class Double(Agent[int, int]):
    """Doubles; negative numbers fail; over a hundred it first sleeps so many seconds."""

    ran: ClassVar[list[int]] = []

    async def run(self, ctx: Context, n: int, /) -> int:
        self.ran.append(n)
        if n > 100:
            await ctx.sleep(n)
        return await ctx.step("double", self.double, n)

    async def double(self, n: int) -> int:
        if n < 0:
            raise ValueError(f"{n} is negative")
        return 2 * n


class Single(Agent[int, int]):
    async def run(self, ctx: Context, n: int, /) -> int:
        return await ctx.run("child", Double, n)


class Maps(Agent[list[int], list[int]]):
    async def run(self, ctx: Context, numbers: list[int], /) -> list[int]:
        return await ctx.map("double", Double, numbers, max_parallel=3)


class Needs(Agent[list[int], dict[str, Any]]):
    need = Need.all()

    async def run(self, ctx: Context, numbers: list[int], /) -> dict[str, Any]:
        out = await ctx.map("double", Double, numbers, key=str, need=self.need)
        return {"good": dict(out.good), "bad": {k: e.kind for k, e in out.bad.items()}}


ALL: list[Any] = [Double, Single, Maps, Needs]


async def entries(rt: LocalRuntime, run_id: str, kind: EntryKind) -> int:
    return sum(e.kind == kind for e in await rt.store.load(run_id))


async def test_a_child_is_a_run_of_its_own_named_after_its_parent_and_its_result_comes_back() -> None:
    async with runtime(agents=ALL) as rt:
        handle = await rt.submit(Single, 21, run_id="r")
        assert await handle.result() == 42
        info = await rt.handle("r/child#1").info()
        assert (info.agent, info.status, info.parent_id) == ("double", "done", "r")


async def test_a_child_that_fails_raises_run_error_with_its_kind_and_its_id() -> None:
    async with runtime(agents=ALL) as rt:
        with pytest.raises(RunError, match="-1 is negative") as caught:
            await rt.run(Single, -1, run_id="r")
        assert caught.value.kind == "ValueError"


async def test_a_map_keeps_the_order_of_its_inputs() -> None:
    async with runtime(agents=ALL) as rt:
        assert await rt.run(Maps, list(range(20))) == [2 * n for n in range(20)]
        assert await rt.run(Maps, list[int]()) == []


async def test_a_map_lets_only_so_many_children_start_at_a_time() -> None:
    Double.ran = []
    async with runtime(agents=ALL) as rt:
        handle = await rt.submit(Maps, [200] * 8, run_id="r")
        for started in (3, 6, 8):
            await rt.settle()
            assert len(set(await children(rt))) == started
            await rt.clock.advance(201)
        assert await handle.result() == [400] * 8


async def children(rt: LocalRuntime) -> list[str]:
    """Those that were claimed at least once."""
    return [i.run_id async for i in rt.runs(agent="double") if i.attempts]


async def test_in_a_map_the_first_failure_is_raised_and_the_others_are_cancelled() -> None:
    async with runtime(agents=ALL) as rt:
        handle = await rt.submit(Maps, [5000, -1, 6000], run_id="r")
        await rt.settle()
        with pytest.raises(RunError, match="-1 is negative"):
            await handle.result()
        await rt.settle()
        assert [(await rt.handle(f"r/double#1/{i}").info()).status for i in range(3)] == ["cancelled", "failed", "cancelled"]


@pytest.mark.parametrize(
    ("need", "numbers", "after_s", "good", "bad"),
    [
        (Need.at_least(2), [1, 5000, 2], 0, {"1": 2, "2": 4}, {"5000": "NotInTime"}),
        (Need.at_least(1), [-1, 3], 0, {"3": 6}, {"-1": "ValueError"}),
        (Need.best_effort(), [-1, 3], 0, {"3": 6}, {"-1": "ValueError"}),
        (Need.best_effort(within_s=60), [1, 5000], 61, {"1": 2}, {"5000": "NotInTime"}),
        (Need.at_least(2, within_s=300), [1, 200, 5000], 301, {"1": 2, "200": 400}, {"5000": "NotInTime"}),
    ],
    ids=["a quorum", "a quorum despite a failure", "best effort", "best effort in time", "a quorum in time"],
)
async def test_a_need_says_when_the_join_is_decided(
    need: Need, numbers: list[int], after_s: float, good: dict[str, int], bad: dict[str, str], *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Needs, "need", need)
    async with runtime(agents=ALL) as rt:
        handle = await rt.submit(Needs, numbers, run_id="r")
        await rt.clock.advance(after_s)
        result = await handle.result()
        assert {k: v for k, v in result["bad"].items() if v != "NotInTime"} == {k: v for k, v in bad.items() if v != "NotInTime"}
        assert result["good"] == good
        assert result["bad"] == bad


class Unmet(Agent[list[int], dict[str, Any]]):
    """Says what it caught, before and after it has parked."""

    need = Need.all()
    caught: ClassVar[list[NeedNotMet]] = []

    async def run(self, ctx: Context, numbers: list[int], /) -> dict[str, Any]:
        try:
            await ctx.map("double", Double, numbers, need=self.need)
        except NeedNotMet as error:
            self.caught.append(error)
            await ctx.sleep(9_000)
            first = None if error.first is None else [error.first.kind, error.first.run_id]
            return {
                "kind": error.kind,
                "message": error.message,
                "counts": [error.good, error.total, error.needed, error.late],
                "first": first,
            }
        raise AssertionError("the need was met")


FIRST = "first failure: ValueError: -1 is negative (run 'r/double#1/1')"


@pytest.mark.parametrize(
    ("need", "numbers", "kind", "message", "counts"),
    [
        (Need.all(), [1, -1, 5000], "ValueError", f"1 of 3 succeeded, 3 needed; 1 had not ended; {FIRST}", [1, 3, 3, 1]),
        (Need.at_least(4), [1, -1, 2, -2, 3, -3], "ValueError", f"3 of 6 succeeded, 4 needed; {FIRST}", [3, 6, 4, 0]),
        (Need.at_least(2, within_s=60), [1, 5000], "NeedNotMet", "1 of 2 succeeded, 2 needed; 1 had not ended", [1, 2, 2, 1]),
    ],
    ids=["all", "a quorum", "a quorum in time"],
)
async def test_a_need_that_is_not_met_says_how_many_succeeded_and_what_failed_first_live_and_in_a_replay(
    need: Need, numbers: list[int], kind: str, message: str, counts: list[int], *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unmet, "need", need)
    monkeypatch.setattr(Unmet, "caught", [])
    async with runtime(agents=[*ALL, Unmet], settings=Settings(concurrency=1, grace_s=0)) as rt:  # children end one after the other
        handle = await rt.submit(Unmet, numbers, run_id="r")
        await rt.clock.advance(10_000)
        first = ["ValueError", "r/double#1/1"] if kind == "ValueError" else None
        assert await handle.result() == {"kind": kind, "message": message, "counts": counts, "first": first}
        assert len(Unmet.caught) > 1
        assert len({str(error) for error in Unmet.caught}) == 1


async def test_a_run_that_fails_by_an_unmet_need_has_the_kind_of_the_first_failure_and_the_count_in_its_message() -> None:
    async with runtime(agents=ALL) as rt:
        with pytest.raises(RunError, match=r"0 of 1 succeeded, 1 needed; first failure: ValueError: -1 is negative") as caught:
            await rt.run(Maps, [-1], run_id="r")
        assert (caught.value.kind, caught.value.run_id) == ("ValueError", "r")


async def test_of_one_child_nothing_is_counted_its_error_is_raised_as_it_is() -> None:
    async with runtime(agents=ALL) as rt:
        with pytest.raises(RunError) as caught:
            await rt.run(Single, -1, run_id="r")
        assert (caught.value.kind, caught.value.message) == ("ValueError", "-1 is negative")


class Joins(Agent[int, dict[str, int]]):
    async def run(self, ctx: Context, n: int, /) -> dict[str, int]:
        return await ctx.join({"double": Double.of(n), "single": Single.of(n)})


async def test_a_join_runs_different_agents_side_by_side_by_key() -> None:
    async with runtime(agents=[*ALL, Joins]) as rt:
        assert await rt.run(Joins, 4, run_id="r") == {"double": 8, "single": 8}
        assert (await rt.handle("r/join#1/single/child#1").info()).status == "done"


async def test_two_children_of_one_key_are_refused_before_anything_starts() -> None:
    Double.ran = []
    async with runtime(agents=ALL) as rt:
        with pytest.raises(RunError, match="two children have the same key") as caught:
            await rt.run(Needs, [1, 1])
        assert caught.value.kind == AmbiguousStep.__name__
        assert Double.ran == []


async def test_a_map_of_a_thousand_children_wakes_its_parent_once() -> None:
    async with runtime(agents=ALL) as rt:
        handle = await rt.submit(Maps, [1] * 1000, run_id="r")
        await rt.settle()
        assert await handle.result() == [2] * 1000
        (row,) = await rt.store.get(["r"])
        assert row is not None
        assert row.inbox_seq == 1
        assert row.fence <= 2


async def test_two_parents_on_two_slots_do_not_dead_lock() -> None:
    async with runtime(agents=ALL, settings=Settings(concurrency=2, grace_s=0)) as rt:
        handles = [await rt.submit(Maps, [1, 2, 3]) for _ in range(2)]
        await rt.settle()
        assert [await h.result() for h in handles] == [[2, 4, 6]] * 2


async def test_parents_that_run_here_do_not_dead_lock_on_one_slot_either() -> None:
    async with runtime(agents=ALL, settings=Settings(concurrency=1, grace_s=0)) as rt:
        assert await rt.run(Maps, [1, 2, 3]) == [2, 4, 6]


async def test_a_crash_in_a_child_is_taken_over_and_the_parent_gets_every_result() -> None:
    async with runtime(agents=ALL) as rt:
        await rt.crash(at="double")
        handle = await rt.submit(Maps, [1, 2, 3], run_id="r")
        await rt.settle()
        assert await handle.result() == [2, 4, 6]
        assert rt.crashed == 1


async def test_the_decision_of_a_join_is_journalled_so_a_replay_sees_the_same_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(Needs):
        async def run(self, ctx: Context, numbers: list[int], /) -> dict[str, Any]:
            first = await super().run(ctx, numbers)
            await ctx.sleep(9000)  # by then the slow child has ended, or was cancelled
            return first

    monkeypatch.setattr(Later, "need", Need.at_least(1))
    async with runtime(agents=[*ALL, Later]) as rt:
        handle = await rt.submit(Later, [1, 5000])
        await rt.clock.advance(10_000)
        assert await handle.result() == {"good": {"1": 2}, "bad": {"5000": "NotInTime"}}


async def test_cancelling_a_parent_cancels_its_children_level_by_level() -> None:
    class Top(Agent[int, int]):
        async def run(self, ctx: Context, n: int, /) -> int:
            return await ctx.run("single", Single, n)

    async with runtime(agents=[*ALL, Top]) as rt:
        handle = await rt.submit(Top, 5000, run_id="r")
        await rt.settle()
        await handle.cancel("all of it")
        await rt.settle()
        assert {i.run_id: i.status async for i in rt.runs()} == {
            "r": "cancelled", "r/single#1": "cancelled", "r/single#1/child#1": "cancelled",
        }  # fmt: skip


async def test_a_parent_that_fails_takes_its_open_children_along() -> None:
    class FailsBeside(Agent[None, None]):
        async def run(self, ctx: Context, _: None, /) -> None:
            async def wait(ctx: Context) -> None:
                await ctx.run("child", Double, 5000)

            async def fail(ctx: Context) -> None:
                await ctx.sleep(60)
                raise KeyError("x")

            await ctx.first(wait, fail)

    async with runtime(agents=[*ALL, FailsBeside]) as rt:
        await rt.submit(FailsBeside, None, run_id="r")
        await rt.clock.advance(61)
        assert [i.status async for i in rt.runs(agent="double")] == ["cancelled"]


class FailsWithAChild(Agent[None, None]):
    """Fails once it was told to, while its child sleeps."""

    word = Signal(str)

    async def run(self, ctx: Context, _: None, /) -> None:
        async def wait(ctx: Context) -> None:
            await ctx.run("child", Double, 5000)

        async def fail(ctx: Context) -> None:
            await ctx.wait_for(self.word)
            raise KeyError("x")

        await ctx.first(wait, fail)


@pytest.mark.parametrize("before", [True, False])
async def test_a_parent_that_dies_while_it_fails_leaves_no_child_at_work(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(agents=[*ALL, FailsWithAChild]) as rt:
        cancel_children, crashes = rt.store.cancel_children, [True]

        async def crash_once(run_id: str, join_key: str | None, body: bytes) -> Any:
            tickets = None if before and crashes else await cancel_children(run_id, join_key, body)
            if crashes:
                crashes.clear()
                await rt.engine.crash()
                raise StoreUnavailable("memory://", "this process is dead")
            return tickets

        monkeypatch.setattr(rt.store, "cancel_children", crash_once)
        handle = await rt.submit(FailsWithAChild, None, run_id="r")
        await rt.settle()
        await handle.signal(FailsWithAChild.word, "go")
        await rt.settle()
        assert crashes == []
        assert (await handle.info()).status == "failed"
        assert [i.status async for i in rt.runs(agent="double")] == ["cancelled"]


async def test_a_parent_that_fails_while_the_store_is_away_does_so_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(agents=[*ALL, FailsWithAChild]) as rt:
        cancel_children, away = rt.store.cancel_children, [StoreUnavailable("memory://", "no answer")]

        async def not_at_first(run_id: str, join_key: str | None, body: bytes) -> Any:
            if away:
                raise away.pop()
            return await cancel_children(run_id, join_key, body)

        monkeypatch.setattr(rt.store, "cancel_children", not_at_first)
        handle = await rt.submit(FailsWithAChild, None, run_id="r")
        await rt.settle()
        await handle.signal(FailsWithAChild.word, "go")
        await rt.settle()
        assert ((await handle.info()).status, (await handle.info()).waiting_for) == ("waiting", "store")
        await rt.clock.advance(3)
        assert (await handle.info()).status == "failed"
        assert [i.status async for i in rt.runs(agent="double")] == ["cancelled"]


class Deep(Agent[int, int]):
    async def run(self, ctx: Context, n: int, /) -> int:
        return n if n == 0 else await ctx.run("deeper", Deep, n - 1)


async def test_children_go_sixteen_levels_deep_and_no_further() -> None:
    async with runtime(agents=[Deep]) as rt:
        assert await rt.run(Deep, 16) == 0
        with pytest.raises(RunError, match=r"depth of children .* \(16\)"):
            await rt.run(Deep, 17)


class Starts(Agent[int, str]):
    async def run(self, ctx: Context, n: int, /) -> str:
        handle = await ctx.start("later", Double, n)
        await ctx.sleep(60)
        again = await ctx.start("later", Double, n, key="k")
        return f"{handle.run_id} {again.run_id}"


async def test_a_run_that_is_only_started_outlives_the_one_that_started_it() -> None:
    async with runtime(agents=[Double, Starts]) as rt:
        handle = await rt.submit(Starts, 5000, run_id="r")
        await rt.clock.advance(61)
        assert await handle.result() == "r/later#1 r/later=k"
        await handle.cancel()
        await rt.clock.advance(6000)
        assert await rt.handle("r/later#1", Double).result() == 10_000
        assert (await rt.handle("r/later#1").info()).parent_id is None


async def test_a_child_takes_tenant_and_deadline_of_its_parent() -> None:
    async with runtime(agents=ALL) as rt:
        await rt.submit(Single, 5000, run_id="r", tenant="acme", timeout_s=100)
        await rt.settle()
        (row,) = await rt.store.get(["r/child#1"])
        (parent,) = await rt.store.get(["r"])
        assert row is not None
        assert parent is not None
        assert (row.tenant, row.deadline) == ("acme", parent.deadline)
        assert row.depth == 1


class Unlisted(Agent[None, None]):
    async def run(self, ctx: Context, _: None, /) -> None: ...


class UsesUnlisted(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        try:
            await ctx.run("child", Unlisted, None)
        except Exception as exc:
            return str(exc)
        return "ran"


async def test_a_child_of_an_agent_that_nobody_listed_says_so() -> None:
    async with runtime(agents=[UsesUnlisted]) as rt:
        with anyio.fail_after(5):
            assert "no agent 'unlisted@1' here" in await rt.run(UsesUnlisted, None)


async def test_a_need_for_some_of_none_is_not_met() -> None:
    class Nobody(Needs):
        need = Need.at_least(2)

    async with runtime(agents=[*ALL, Nobody]) as rt:
        with pytest.raises(RunError, match="0 of 0 succeeded, 2 needed") as caught:
            await rt.run(Nobody, list[int]())
        assert caught.value.kind == "NeedNotMet"


async def test_a_join_is_decided_durably_before_the_others_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or whoever goes on after a crash would take the cancelled ones for failures, and the first of them for the reason."""
    async with runtime(agents=ALL) as rt:
        cancel_children, decided = rt.store.cancel_children, list[bool]()

        async def looking(run_id: str, join_key: str | None, body: bytes) -> Any:
            if join_key is not None:
                decided.append(any(e.kind == EntryKind.SIGNAL and e.key == join_key for e in await rt.store.load(run_id)))
            return await cancel_children(run_id, join_key, body)

        monkeypatch.setattr(rt.store, "cancel_children", looking)
        handle = await rt.submit(Maps, [5000, -1], run_id="r")
        await rt.settle()
        with pytest.raises(RunError, match="-1 is negative"):
            await handle.result()
        assert decided == [True]


async def test_what_a_parent_that_died_had_still_to_cancel_is_cancelled_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(agents=ALL) as rt:
        cancel_children, crashes = rt.store.cancel_children, [True]

        async def crash_first(run_id: str, join_key: str | None, body: bytes) -> Any:
            if crashes and join_key is not None:
                crashes.clear()
                await rt.engine.crash()
                await anyio.sleep_forever()
            return await cancel_children(run_id, join_key, body)

        monkeypatch.setattr(rt.store, "cancel_children", crash_first)
        monkeypatch.setattr(Needs, "need", Need.at_least(1))
        handle = await rt.submit(Needs, [1, 5000], run_id="r")
        await rt.settle()
        assert await handle.result() == {"good": {"1": 2}, "bad": {"5000": "NotInTime"}}
        await rt.settle()
        assert crashes == []
        assert (await rt.handle("r/double#1/5000").info()).status == "cancelled"
