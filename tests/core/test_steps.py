"""A step: made once, remembered under its name, and the same on every replay."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from pydantic import BaseModel, SecretStr

from agentkit import Agent, Context, StepContext, StepError
from agentkit.testing import runtime


class Level(enum.Enum):
    LOW = "low"


class Animal(BaseModel):
    name: str


class Dog(Animal):
    tricks: int = 0


@dataclass
class Pair:
    left: int
    right: tuple[int, ...]


class Odd(Exception):
    """An error of the app's own."""


class Case:
    """What the step of a test does, and what the agent saw of it in each activation."""

    def __init__(self, fn: Callable[..., Any], *args: object, returns: Any = None, **options: Any) -> None:
        self.fn, self.args, self.returns, self.options = fn, args, returns, options
        self.seen: list[Any] = []


class Once(Agent[None, None]):
    """Makes the step, then parks, so that it is asked again in a replay."""

    async def run(self, ctx: Context, _: None, /) -> None:
        case = ctx.get(Case)
        try:
            case.seen.append(await ctx.step("s", case.fn, *case.args, returns=case.returns, **case.options))
        except StepError as exc:
            case.seen.append((exc.kind, exc.message, exc.step, exc.run_id))
        await ctx.sleep(3600)


async def live_and_replayed(case: Case) -> tuple[Any, Any]:
    async with runtime(agents=[Once], resources={Case: case}) as rt:
        handle = await rt.submit(Once, None, run_id="r")
        await rt.clock.advance(4000)
        await handle.result()
    live, replayed = case.seen
    return live, replayed


AWKWARD: dict[str, tuple[Any, Any]] = {
    "tuple": (tuple[int, str], (1, "a")),
    "a tuple that is not declared": (None, (1, 2)),
    "int keys": (dict[int, str], {1: "a"}),
    "int keys that are not declared": (None, {1: "a"}),
    "set": (set[str], {"a", "b"}),
    "enum": (Level, Level.LOW),
    "dataclass": (Pair, Pair(1, (2, 3))),
    "datetime": (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
    "date": (date, date(2026, 1, 1)),
    "timedelta": (timedelta, timedelta(days=1, microseconds=1)),
    "decimal": (Decimal, Decimal("1.10")),
    "uuid": (UUID, UUID(int=7)),
    "path": (Path, Path("a/b")),
    "bytes": (bytes, b"abc"),
    "optional model": (Animal | None, Animal(name="rex")),
    "big int": (int, 2**80),
    "float": (float, 0.1 + 0.2),
    "text of other scripts": (str, "żółw 語 \U0001f600 \0"),
    "nested": (list[dict[str, tuple[Level, ...]]], [{"a": (Level.LOW,)}]),
    "none": (None, None),
}


@pytest.mark.parametrize("name", AWKWARD)
async def test_a_result_is_the_same_live_and_replayed(name: str) -> None:
    declared, value = AWKWARD[name]
    live, replayed = await live_and_replayed(Case(lambda: value, returns=declared))
    assert live == replayed
    assert type(live) is type(replayed)
    if "not declared" not in name:
        assert live == value


def a_dog() -> Animal:
    return Dog(name="rex", tricks=3)


async def test_a_subclass_comes_back_as_what_the_function_declares_the_first_time_too() -> None:
    live, replayed = await live_and_replayed(Case(a_dog))
    if isinstance(live, Animal):
        assert type(live) is type(replayed) is Animal
        assert live == replayed == Animal(name="rex")
    else:
        assert live == replayed
        assert live[0] == "NotSerialisable"


def fails(error: Exception) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError("no"), "ValueError"), (Odd("strange"), "Odd"), (KeyError("k"), "KeyError"), (TimeoutError(), "TimeoutError")],
    ids=repr,
)
async def test_a_failure_is_the_same_step_error_live_and_replayed(error: Exception, kind: str) -> None:
    live, replayed = await live_and_replayed(Case(fails(error)))
    assert live == replayed == (kind, str(error), "s#1", "r")


class CatchesTheOriginal(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        try:
            await ctx.step("s", fails(Odd("strange")))
        except Odd:
            return "the original"
        except StepError as exc:
            return exc.kind
        return "nothing"


async def test_the_original_type_is_never_raised_not_even_the_first_time() -> None:
    async with runtime(agents=[CatchesTheOriginal]) as rt:
        assert await rt.run(CatchesTheOriginal, None) == "Odd"


async def test_the_original_is_the_cause_of_the_live_error_so_a_traceback_leads_to_it() -> None:
    async with runtime(agents=[RaisesOut]) as rt:
        with pytest.raises(StepError) as caught:
            await rt.run(RaisesOut, None, run_id="r")
    assert (caught.value.kind, caught.value.step, caught.value.run_id) == ("Odd", "s#1", "r")
    assert RaisesOut.cause is not None
    assert type(RaisesOut.cause) is Odd


class RaisesOut(Agent[None, None]):
    cause: BaseException | None = None

    async def run(self, ctx: Context, _: None, /) -> None:
        try:
            await ctx.step("s", fails(Odd("strange")))
        except StepError as exc:
            type(self).cause = exc.__cause__
            raise


async def test_a_result_that_does_not_serialise_fails_the_step_and_names_the_path_inside_it() -> None:
    live, replayed = await live_and_replayed(Case(lambda: {"a": [1, {"b": {1, 2}}]}))
    assert live == replayed
    assert live[0] == "NotSerialisable"
    assert "['a'][1]['b']" in live[1]
    assert "'s#1'" in live[1]
    assert "returns=" in live[1]


async def test_a_result_over_the_limit_fails_the_step_with_its_size_the_limit_and_the_way_out() -> None:
    live, replayed = await live_and_replayed(Case(lambda: "x" * 1_000_001))
    assert live == replayed
    assert live[0] == "EntryTooLarge"
    assert "1000003 bytes" in live[1]
    assert "the limit is 1000000" in live[1]
    assert "blob store" in live[1]


async def test_a_long_error_message_is_cut_not_refused() -> None:
    live, replayed = await live_and_replayed(Case(fails(ValueError("x" * 3_000_000))))
    assert live == replayed
    assert live[0] == "ValueError"
    assert len(live[1]) == 10_000


def same(value: list[int]) -> list[int]:
    return value


class Mutates(Agent[None, list[int]]):
    async def run(self, ctx: Context, _: None, /) -> list[int]:
        value = await ctx.step("s", partial(same, [1]), returns=list[int])
        value.append(2)
        again = await ctx.step("s", partial(same, [3]), returns=list[int])
        await ctx.sleep(60)
        return [*value, *again]


async def test_what_run_does_to_a_result_afterwards_does_not_reach_the_journal() -> None:
    async with runtime(agents=[Mutates]) as rt:
        handle = await rt.submit(Mutates, None)
        await rt.clock.advance(100)
        assert await handle.result() == [1, 2, 3]
        (first, *_) = await rt.store.load(handle.run_id)
        assert first.body == b"[1]"


async def test_an_object_that_the_body_keeps_and_changes_later_does_not_change_the_result() -> None:
    kept = [1]
    live, replayed = await live_and_replayed(Case(lambda: kept))
    kept.append(2)
    assert live == replayed == [1]


# Where bodies run and what they are handed


class Seen(BaseModel):
    run_id: str
    tenant: str
    attempt: int
    key: str
    fence: int


async def look(step: StepContext, n: int) -> Seen:
    assert n == 7
    return Seen(run_id=step.run_id, tenant=step.tenant, attempt=step.attempt, key=step.idempotency_key, fence=step.fence)


class Looks(Agent[None, Seen]):
    async def run(self, ctx: Context, _: None, /) -> Seen:
        return await ctx.step("look", look, 7, effect="rerun")


async def test_a_body_that_asks_for_it_gets_the_step_context_first() -> None:
    async with runtime(agents=[Looks]) as rt:
        handle = await rt.submit(Looks, None, run_id="r", tenant="acme")
        assert await handle.result() == Seen(run_id="r", tenant="acme", attempt=1, key="r:look#1", fence=1)


async def test_after_a_crash_the_attempt_and_the_fence_rise_and_the_idempotency_key_stays() -> None:
    async with runtime(agents=[Looks]) as rt:
        await rt.crash(at="look")
        handle = await rt.submit(Looks, None, run_id="r")
        await rt.settle()
        assert await handle.result() == Seen(run_id="r", tenant="", attempt=2, key="r:look#1", fence=2)


async def test_a_sync_body_runs_on_a_thread() -> None:
    main = threading.get_ident()
    live, _ = await live_and_replayed(Case(lambda: threading.get_ident() != main))
    assert live is True


def add(a: int, b: int, *, c: int) -> int:
    return a + b + c


async def test_keywords_are_given_with_a_partial() -> None:
    live, replayed = await live_and_replayed(Case(partial(add, c=3), 1, 2))
    assert live == replayed == 6


async def test_a_body_over_its_time_fails_the_step() -> None:
    live, replayed = await live_and_replayed(Case(anyio.sleep_forever, timeout_s=0.01))
    assert live == replayed == ("TimeoutError", "no end within 0.01 s", "s#1", "r")


class Database:
    def __init__(self, name: str) -> None:
        self.name = name


class AsksForMore(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        return await ctx.step("s", self.body)

    async def body(self, step: StepContext) -> str:
        assert step.get(Database).name == "db"
        return str(step.get(threading.Thread))


async def test_a_resource_that_nobody_gave_is_named_with_those_that_were() -> None:
    async with runtime(agents=[AsksForMore], resources={Database: Database("db")}) as rt:
        with pytest.raises(StepError, match=r"no resource of type Thread \(lifespan gave: Database\)"):
            await rt.run(AsksForMore, None)


# Names


class Names(Agent[None, None]):
    async def run(self, ctx: Context, _: None, /) -> None:
        for n in (1, 2):
            await ctx.step("loop", add_one, n)
        later = ctx.step("b", add_one, 1)
        await ctx.step("b", add_one, 2)
        await later
        await ctx.step("mine", add_one, 3, key="x")
        assert await ctx.step("mine", add_one, 3, key="x") == 4
        await ctx.step("outer", partial(self.outer, ctx))
        await ctx.step("loop", add_one, 9)

    async def outer(self, ctx: Context) -> int:
        return await ctx.step("inner", add_one, 1) + await ctx.step("inner", add_one, 2)


async def add_one(n: int) -> int:
    return n + 1


async def test_a_name_counts_when_it_is_called_a_loop_makes_new_ones_and_a_nested_step_lies_under_its_parent() -> None:
    async with runtime(agents=[Names]) as rt:
        await rt.run(Names, None, run_id="r")
        assert await rt.steps("r") == [
            "loop#1",
            "loop#2",
            "b#2",
            "b#1",
            "mine=x",
            "outer#1/inner#1",
            "outer#1/inner#2",
            "outer#1",
            "loop#3",
        ]
        assert [e.body for e in await rt.store.load("r") if e.key in ("b#1", "b#2")] == [b"3", b"2"]


async def takes_a_secret(secret: SecretStr) -> None: ...


async def test_a_secret_argument_does_not_reach_the_journal() -> None:
    async with runtime(agents=[Once], resources={Case: Case(takes_a_secret, SecretStr("hunter2"))}) as rt:
        await rt.submit(Once, None, run_id="r")
        await rt.settle()
        assert "hunter2" not in repr(await rt.store.load("r"))
