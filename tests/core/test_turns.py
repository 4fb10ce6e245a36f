"""The line of a session and its turns: what becomes of the head, and that writers who meet lose nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Overloaded, SessionSettings
from agentkit.agents.turn import LOOK_S, MAX_LOOK_S, look_s
from agentkit.agents.turns import ABSENT_S, Head, Place, Standing, Turn, Turns, added, cleared, entered, left, standing
from agentkit.durable.identity import digest
from agentkit.inmemory.values import InMemoryValues
from agentkit.ports.messages import Message
from agentkit.ports.records import Run, RunStatus
from tests.core.spenders import YieldingValues

ids = st.sampled_from("abcdef")


def line(head: Head) -> list[str]:
    return [place.run_id for place in head.line]


def head_of(*run_ids: str) -> Head:
    return Head(line=tuple(map(Place, run_ids)))


A_RUN = Run(
    run_id="", kind="", version="", status=RunStatus.RUNNING, owner=None, fence=1, wake=0, inbox_seq=0, ticketed=True, crashes=0,
    priority=1, tenant="", key="", parent_id=None, parent_key="", idx=0, notify=False, depth=0, seed=0, deadline=None, wake_at=None,
    waiting_for="", keep_s=1.0, input=b"", result=b"", trace="", meta="", created_at=0.0, updated_at=0.0, expires_at=None,
)  # fmt: skip


def run(status: RunStatus) -> Run:
    return A_RUN._replace(status=status)


# The head


@given(st.lists(ids))
def test_a_run_has_one_place_however_often_it_enters(entering: list[str]) -> None:
    head = Head()
    for run_id in entering:
        head = entered(head, run_id)
    assert line(head) == list(dict.fromkeys(entering))


def test_a_full_line_refuses_who_is_not_in_it() -> None:
    assert entered(head_of("a", "b"), "b", 2) == head_of("a", "b")
    with pytest.raises(Overloaded):
        entered(head_of("a", "b"), "c", 2)


@pytest.mark.parametrize("status", list(RunStatus))
def test_of_those_ahead_only_who_has_ended_goes(status: RunStatus) -> None:
    head = cleared(head_of("a", "b", "me", "c"), "me", {"a": run(status), "b": run(RunStatus.PARKED)}, 0.0)
    assert line(head) == (["b", "me", "c"] if status.ended else ["a", "b", "me", "c"])


def test_a_run_that_nobody_makes_goes_after_a_while_and_not_before() -> None:
    head = head_of("absent", "me")
    for now, wanted in ((100.0, ["absent", "me"]), (100.0 + ABSENT_S - 1, ["absent", "me"]), (100.0 + ABSENT_S, ["me"])):
        head = cleared(head, "me", {"absent": None}, now)
        assert line(head) == wanted


@pytest.mark.parametrize(("waited_s", "wanted"), [(0.0, LOOK_S), (60.0, 60.0), (1e6, MAX_LOOK_S)])
def test_who_waits_looks_again_when_he_has_waited_twice_as_long(waited_s: float, wanted: float) -> None:
    assert look_s(Standing(head_of("first", "me"), 1), waited_s) == wanted


def test_who_stands_behind_one_without_a_run_looks_again_soon_however_long_he_has_waited() -> None:
    head = cleared(head_of("absent", "me"), "me", {"absent": None}, 100.0)
    assert look_s(Standing(head, 1), 1e6) == ABSENT_S


def test_one_that_is_made_after_all_was_never_late() -> None:
    head = cleared(head_of("slow", "me"), "me", {"slow": None}, 100.0)
    assert cleared(head, "me", {"slow": run(RunStatus.READY)}, 110.0) == head_of("slow", "me")


def test_those_behind_are_nobodys_business() -> None:
    assert cleared(head_of("me", "ended"), "me", {"ended": run(RunStatus.FAILED)}, 0.0) == head_of("me", "ended")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50))), st.integers(1, 12), st.one_of(st.none(), st.integers(1, 120)))
def test_what_is_kept_is_bounded_and_the_newest_turn_always_stays(said: list[tuple[int, int]], messages: int, tokens: int | None) -> None:
    settings, head = SessionSettings(keep_messages=messages, keep_tokens=tokens), Head()
    for n, (count, cost) in enumerate(said):
        head = added(head, Turn(str(n), count, cost, 1), settings)
        kept = [turn.id for turn in head.turns]
        assert kept == [str(i) for i in range(n + 1)][-len(kept) :]
        if len(kept) > 1:
            assert sum(max(1, turn.messages) for turn in head.turns) <= messages
            assert tokens is None or sum(turn.tokens for turn in head.turns) <= tokens
    for turn in head.turns:
        assert added(head, turn, settings) == head


@given(st.lists(ids, unique=True), ids)
def test_who_has_left_stands_nowhere_and_the_others_where_they_were(entering: list[str], leaver: str) -> None:
    head = left(head_of(*entering), leaver)
    assert standing(head, leaver) is None
    assert line(head) == [run_id for run_id in entering if run_id != leaver]


def test_a_head_of_a_newer_version_is_read() -> None:
    assert Head.model_validate_json('{"line":[["a",null]],"more":1}') == head_of("a")


# Writers who meet


def process(values: InMemoryValues, **settings: Any) -> Turns:
    """The session as one process sees it."""
    return Turns(values, "s/", SessionSettings(**settings), anyio.Lock())


def says(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


async def nobody(run_ids: Sequence[str]) -> list[Run | None]:
    return [run(RunStatus.RUNNING) for _ in run_ids]


async def test_many_who_enter_at_once_from_many_processes_all_have_one_place() -> None:
    values = YieldingValues()
    async with anyio.create_task_group() as tasks:
        for n in range(40):
            tasks.start_soon(process(values).enter, str(n % 30))
    assert sorted(line(await process(values).head())) == sorted(str(n) for n in range(30))


async def test_only_the_first_in_the_line_adds_to_the_history() -> None:
    turns = process(YieldingValues())
    for run_id in ("first", "second"):
        await turns.enter(run_id)
    await turns.end("second", says("too early"))
    await turns.end("nobody", says("not in the line"))
    await turns.end("first", says("in turn"))
    await turns.end("first", says("again"))
    head = await turns.head()
    assert line(head) == []
    assert [m.content for m in await turns.messages(head)] == ["in turn"]


async def test_two_that_end_the_same_turn_end_it_once() -> None:
    values = YieldingValues()
    await process(values).enter("a")
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(partial(process(values).end, "a", says("once"), in_charge="desk"))
    head = await process(values).head()
    assert [m.content for m in await process(values).messages(head)] == ["once"]
    assert head.in_charge == "desk"


async def test_a_turn_whose_parts_are_written_but_not_named_is_not_there() -> None:
    class Dies(YieldingValues):
        async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
            if key == "s/head" and b"turns" in value:
                raise OSError("killed")
            return await super().put(key, value, expected=expected, ttl_s=ttl_s)

    values = Dies(max_value_bytes=200)
    turns = process(values)
    await turns.enter("a")
    with pytest.raises(OSError, match="killed"):
        await turns.end("a", says("x" * 500))
    head = await turns.head()
    assert await turns.messages(head) == []
    assert line(head) == ["a"]


async def test_a_session_deleted_while_a_turn_ends_keeps_nothing_of_it() -> None:
    class Deleted(YieldingValues):
        async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
            version = await super().put(key, value, expected=expected, ttl_s=ttl_s)
            if "/turn/" in key:
                await process(self).delete()
            return version

    values = Deleted()
    await process(values).enter("a")
    await process(values).end("a", says("gone"))
    assert await values.scan("s/") == []


async def test_a_run_that_lost_its_place_gets_a_new_one_at_the_end() -> None:
    turns = process(YieldingValues(), max_waiting=1)
    await turns.enter("other")
    found = await turns.stand("lost", nobody, 0.0)
    assert found.ahead == 1
    assert line(await turns.head()) == ["other", "lost"]


async def test_a_turn_that_has_ended_stands_as_such() -> None:
    turns = process(YieldingValues())
    await turns.enter("a")
    await turns.end("a", says("hi"))
    found = await turns.stand("a", nobody, 0.0)
    assert found.ended is not None
    assert found.ended.id == digest(b"a")
    assert await turns.said(found.ended) == says("hi")


@given(st.integers(0, 30))
def test_the_last_messages_are_read_from_as_few_turns_as_hold_them(last: int) -> None:
    async def body() -> None:
        asked: list[int] = []

        class Counting(InMemoryValues):
            async def get(self, keys: Sequence[str]) -> dict[str, Any]:
                asked.append(sum("/turn/" in key for key in keys))
                return await super().get(keys)

        turns = process(Counting())
        for n in range(10):
            await turns.append(str(n), says(str(n)) * 2)
        asked.clear()
        found = await turns.messages(await turns.head(), last=last)
        assert max(asked) == min(10, (last + 1) // 2)
        assert [m.content for m in found] == [str(n) for n in range(10) for _ in range(2)][20 - 2 * max(asked) :]

    anyio.run(body)
