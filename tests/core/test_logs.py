"""Logs know their run."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentkit import logs
from agentkit.errors import InvalidSetting

log = logging.getLogger("app")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What `configure` writes; the root logger is as before afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    out = io.StringIO()
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stderr=out))  # pytest puts its own stderr back before the test starts
    yield out
    root.setLevel(level)
    root.handlers[:] = handlers


def parsed(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_fields_of_extra(lines: io.StringIO) -> None:
    logs.configure("json")
    log.info("took %d", 3, extra={"order": 17, "when": {1, 2}.__class__})
    (line,) = parsed(lines)
    assert (line["level"], line["logger"], line["message"], line["order"]) == ("info", "app", "took 3", 17)
    assert line["when"] == "<class 'set'>"
    assert line["ts"].endswith("+00:00")


async def test_what_user_code_logs_in_a_run_carries_the_run(lines: io.StringIO) -> None:
    logs.configure("json")

    async def run(run_id: str) -> None:
        with logs.bound(run_id=run_id, agent="review"):
            async with anyio.create_task_group() as steps:
                for name in ("a", "b"):
                    steps.start_soon(step, name)

    async def step(name: str) -> None:
        with logs.bound(step=name):
            await anyio.lowlevel.checkpoint()
            log.info("in a step")

    async with anyio.create_task_group() as runs:
        runs.start_soon(run, "r1")
        runs.start_soon(run, "r2")
    log.info("outside")
    seen = {(line.get("run_id"), line.get("agent"), line.get("step")) for line in parsed(lines)}
    assert seen == {(run, "review", step) for run in ("r1", "r2") for step in ("a", "b")} | {(None, None, None)}


def test_an_error_brings_its_type_and_traceback_in_the_same_line(lines: io.StringIO) -> None:
    logs.configure("json")
    try:
        raise KeyError("gone")
    except KeyError:
        log.exception("failed")
    (line,) = parsed(lines)
    assert line["error"] == "KeyError"
    assert "raise KeyError" in line["traceback"]


def test_tags_are_those_of_the_task_that_logged_even_when_formatted_elsewhere() -> None:
    record = logging.makeLogRecord({"msg": "hello"})
    with logs.bound(run_id="r1"):
        assert logs.Tagged().filter(record)
    with logs.bound(run_id="another"):
        assert json.loads(logs.JsonFormatter().format(record))["run_id"] == "r1"


def test_a_user_field_never_hides_a_field_of_ours(lines: io.StringIO) -> None:
    logs.configure("json")
    with logs.bound(run_id="r1"):
        log.info("hello", extra={"run_id": "forged", "level": "none"})
    (line,) = parsed(lines)
    assert (line["run_id"], line["level"]) == ("r1", "info")


def test_text_is_for_people_and_shows_the_run(lines: io.StringIO) -> None:
    logs.configure("text")
    with logs.bound(run_id="r1", step="extract"):
        log.warning("slow")
    assert lines.getvalue().rstrip().endswith("WARNING app  slow  run_id=r1  step=extract")


def test_configuring_again_replaces_our_handler_and_nobody_elses(lines: io.StringIO) -> None:
    theirs = logging.NullHandler()
    logging.getLogger().addHandler(theirs)
    logs.configure("text")
    logs.configure("json", "error")
    log.warning("not shown")
    log.error("shown once")
    assert [line["message"] for line in parsed(lines)] == ["shown once"]
    assert theirs in logging.getLogger().handlers


@pytest.mark.parametrize(
    ("setting", "level", "is_json"),
    [
        ("", "INFO", False),
        ("json", "INFO", True),
        ("debug", "DEBUG", False),
        ("json,warning", "WARNING", True),
        (" Text , Error ", "ERROR", False),
    ],
)
def test_one_setting_says_style_and_level(lines: io.StringIO, setting: str, level: str, is_json: bool) -> None:
    logs.configure_from(setting)
    log.critical("x")
    assert logging.getLogger().level == getattr(logging, level)
    assert lines.getvalue().startswith("{") == is_json


@pytest.mark.parametrize("setting", ["jsn", "json,loud", "text;debug"])
def test_a_wrong_setting_is_refused_with_what_is_right(setting: str) -> None:
    with pytest.raises(InvalidSetting, match="json or text, a level"):
        logs.configure_from(setting)


def test_a_wrong_style_or_level_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="did you mean 'json'"):
        logs.configure("jsonn")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="did you mean 'warning'"):
        logs.configure("text", "warnning")
