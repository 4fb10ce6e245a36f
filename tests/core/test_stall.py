"""The event-loop stall detector names the user's code."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from agentkit.runtime import stall
from agentkit.runtime.stall import Eye, Look, Place, Stall, StallWatch

blocks = pytest.mark.blocks_the_loop("a stall is what is under test")


def parse(until: threading.Event) -> None:
    """User code that blocks until the watch has seen it."""
    assert until.wait(10)


class Reports:
    """Collects reports and lets a test wait for them, from the loop or while blocking it."""

    def __init__(self) -> None:
        self.all: list[Stall] = []
        self.seen = threading.Event()

    def __call__(self, found: Stall) -> None:
        self.all.append(found)
        self.seen.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not condition():  # noqa: ASYNC110  the reports come from a thread
                await anyio.sleep(0.01)


@blocks
async def test_user_code_that_blocks_the_loop_is_named_once_and_its_length_told() -> None:
    reports = Reports()
    watch = StallWatch(warn_s=0.1, tick_s=0.01, report=reports)
    async with anyio.create_task_group() as group:
        group.start_soon(watch.run)
        await anyio.sleep(0.05)
        parse(reports.seen)
        await reports.until(lambda: len(reports.all) == 2)
        group.cancel_scope.cancel()
    first, last = reports.all
    assert (Path(first.by.file).name, first.by.function) == ("test_stall.py", "parse")
    assert Path(first.inside.file).name == "threading.py"
    assert (first.over, last.over) == (False, True)
    assert last.blocked_s >= first.blocked_s >= 0.1
    assert last.by == first.by


@blocks
async def test_a_second_stall_is_told_again() -> None:
    reports = Reports()
    async with anyio.create_task_group() as group:
        group.start_soon(StallWatch(warn_s=0.1, tick_s=0.01, report=reports).run)
        for told in (2, 4):
            await anyio.sleep(0.05)
            reports.seen.clear()
            parse(reports.seen)
            await reports.until(lambda told=told: len(reports.all) == told)  # type: ignore[misc]
        group.cancel_scope.cancel()
    assert [found.over for found in reports.all] == [False, True, False, True]


async def test_a_loop_that_ticks_is_left_alone_and_ends_with_its_thread() -> None:
    reports = Reports()
    watch = StallWatch(warn_s=0.2, tick_s=0.01, report=reports)
    async with anyio.create_task_group() as group:
        group.start_soon(watch.run)
        for _ in range(30):
            await anyio.sleep(0.01)
        assert watch.quiet_s() < 5
        group.cancel_scope.cancel()
    assert not reports.all


async def test_the_tick_stands_still_while_the_loop_does() -> None:
    watch = StallWatch(tick_s=0.01)
    async with anyio.create_task_group() as group:
        group.start_soon(watch.run)
        await anyio.sleep(0.05)
        before = watch.ticked_at
        with anyio.fail_after(10):
            while watch.ticked_at == before:  # noqa: ASYNC110  a tick is a number, nobody is told of it
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    ended_at = watch.ticked_at
    await anyio.sleep(0.05)
    assert watch.ticked_at == ended_at
    assert watch.quiet_s() > 0


PAUSE_S = 0.25


def eyes(*looks: tuple[float, float, float]) -> list[float]:
    eye = Eye(0.0)
    return [round(eye.blocked_s(Look(*look), PAUSE_S), 3) for look in looks]


def test_the_count_begins_at_the_last_tick() -> None:
    assert eyes((1.0, 0.0, 0.9), (1.25, 0.0, 0.9), (1.5, 0.0, 1.45)) == [0.1, 0.35, 0.05]


def test_a_process_that_was_stopped_is_nobodys_stall() -> None:
    assert eyes((1.0, 0.5, 0.9), (61.0, 0.5, 0.9), (61.25, 0.5, 61.2)) == [0.1, 0.0, 0.05]


def test_code_that_keeps_the_interpreters_lock_is_a_stall_although_the_watch_was_late() -> None:
    assert eyes((1.0, 0.5, 0.9), (4.0, 3.4, 0.9)) == [0.1, 3.1]


APP = Place("/srv/app.py", 41, "parse", "app")
JSON = Place(f"{stall.STDLIB[0]}/json/decoder.py", 7, "decode", "json")
LOOP = Place(f"{stall.STDLIB[0]}/asyncio/events.py", 9, "run", "asyncio")
BACKEND = Place(f"{stall.LIBRARIES[0]}/anyio/_core.py", 3, "wake", "anyio")
CLIENT = Place(f"{stall.LIBRARIES[0]}/requests/api.py", 5, "get", "requests")
OURS = Place("/repo/src/agentkit/durable/steps.py", 8, "drive", "agentkit")
ADAPTER = Place("/repo/adapters/agentkit_sql/runs.py", 8, "write", "agentkit_sql")
FROZEN = Place("<frozen importlib._bootstrap>", 1, "load", "importlib")


@pytest.mark.parametrize(
    ("stack", "by"),
    [
        ([APP, LOOP], APP),
        ([JSON, APP, LOOP], APP),
        ([CLIENT, APP, OURS, LOOP], APP),
        ([JSON, APP._replace(line=1), APP, LOOP], APP._replace(line=1)),
        ([ADAPTER, APP, OURS], APP),
        ([JSON, CLIENT, OURS, LOOP], CLIENT),
        ([FROZEN, BACKEND, LOOP], FROZEN),
    ],
)
def test_the_culprit_is_the_innermost_line_that_the_user_wrote(stack: list[Place], by: Place) -> None:
    assert stall.culprit(stack) == (by, stack[0])


def test_a_stack_is_read_from_the_inside_out() -> None:
    inner, outer = stall.stack_of(inspect.currentframe())[:2]
    assert (inner.function, inner.file) == ("test_a_stack_is_read_from_the_inside_out", __file__)
    assert outer.function != inner.function


def test_a_thread_that_is_gone_has_no_culprit() -> None:
    assert stall.culprit(stall.stack_of(None))[0].function == "unknown"


def test_the_log_says_where_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    at = Place("/srv/app.py", 41, "parse")
    stall.note(Stall(1.2, at, Place("/usr/lib/json.py", 7, "decode"), over=False))
    stall.note(Stall(3.4, at, at, over=True))
    assert caplog.messages == [
        "event loop blocked 1.2 s so far by app.py:41 in parse() (now at json.py:7 in decode()): await instead, or run it in a thread",
        "event loop was blocked 3.4 s in all by app.py:41 in parse()",
    ]
