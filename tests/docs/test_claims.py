"""What the pages claim by name is there: settings with their defaults, commands with their options, tests that show a promise."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from agentkit import Settings
from agentkit.cli.app import root
from tests.docs.test_pages import PAGES, ROOT, blocks, run

HOW_TO = ROOT / "docs/how-to"
ROW = re.compile(r"^\| `(AGENTKIT_\w+)` \| (?:`([^`]*)`|(\w+)) \|", re.MULTILINE)
PROMISE = re.compile(r"\[(\w+)\]\(([^)]+\.py)\)")
COMMAND = re.compile(r"(?:^\$ |\| `|(?<=[^`])`)(agentkit [a-z][^`\n]*?)(?=`|$| &$)", re.MULTILINE)


def test_the_page_of_settings_lists_each_with_its_default() -> None:
    listed = {name: word or shown for name, shown, word in ROW.findall((HOW_TO / "settings.md").read_text())}
    words: dict[object, str] = {None: "none", "": "empty"}

    fields = Settings.model_fields.items()
    assert listed == {f"AGENTKIT_{name.upper()}": words.get(field.default) or str(field.default) for name, field in fields}


PROMISES = PROMISE.findall((ROOT / "docs/explanation/promises.md").read_text())


@pytest.mark.parametrize(("name", "link"), PROMISES, ids=[name for name, _ in PROMISES])
def test_a_promise_names_a_test_that_is_there(name: str, link: str) -> None:
    assert f"def test_{name}(" in (ROOT / "docs/explanation" / link).read_text()


def test_every_row_of_the_promises_names_a_test() -> None:
    text = (ROOT / "docs/explanation/promises.md").read_text().partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]

    assert [row for row in rows if not PROMISE.search(row)] == []


WHAT_HAPPENS = (ROOT / "docs/explanation/what-happens-when.md").read_text().partition("\n## ")[0]
HAPPENINGS = [[cell.strip() for cell in line.strip("|").split("|")] for line in WHAT_HAPPENS.splitlines() if line.startswith("| ")][1:]
ERROR = re.compile(r"`([A-Z][a-z]+[A-Z]\w+)`")
KIND = re.compile(r"\b[A-Z]{3,}\b")


def shown() -> dict[str, str]:
    """The tests of what happens, by name."""
    source = (ROOT / "tests/core/test_what_happens.py").read_text()
    tests = [node for node in ast.parse(source).body if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_")]
    return {test.name: ast.get_source_segment(source, test) or "" for test in tests}


def shown_by(row: Sequence[str]) -> str:
    """The name of the test that is the row."""
    return "test_" + re.sub(r"\W+", "_", row[0].lower())


def test_each_row_of_what_happens_is_a_test_and_each_test_a_row() -> None:
    assert [shown_by(row) for row in HAPPENINGS] == list(shown())


@pytest.mark.parametrize("row", HAPPENINGS, ids=[row[0] for row in HAPPENINGS])
def test_what_a_row_of_what_happens_names_its_test_looks_at(row: Sequence[str]) -> None:
    test = shown()[shown_by(row)]
    said = [*ERROR.findall(" ".join(row[1:3])), *KIND.findall(row[5])]

    assert len(row) == 6
    assert [word for word in said if word not in test and word != "StepError"] == []


def commands(page: Path) -> list[str]:
    """The commands of ours that a page tells a reader to type."""
    return [found.removesuffix(" &").replace("…", "") for found in COMMAND.findall(page.read_text())]


TOLD = sorted({command for page in PAGES if page.exists() for command in commands(page)})


def problem(line: str) -> str:
    """What is wrong with a command line, before anything runs; nothing when it can be typed as it stands."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = root
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            return f"no command {words[0]!r}"
        command, words = found, words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return ", ".join(f"no option {word}" for word in words if word.startswith("--") and word not in known)


@pytest.mark.parametrize("line", TOLD)
def test_a_command_of_a_page_can_be_typed(line: str) -> None:
    assert problem(line) == ""


def test_a_command_that_cannot_be_typed_is_found() -> None:
    assert problem("agentkit runs shew contract-17") == "no command 'shew'"
    assert problem("agentkit runs ls --old 1h") == "no option --old"
    assert len(TOLD) > 20


@pytest.mark.timeout(120)
def test_the_programs_of_the_readme_say_what_they_promise_and_say_it_again(tmp_path: Path) -> None:
    review, support = blocks(ROOT / "README.md")

    assert [run(review, tmp_path).stdout for _ in range(2)] == ["3 words, approved by ann\n"] * 2
    steps = "['model#1', 'look_up_order#1', 'model#2']"
    assert run(support, tmp_path).stdout == f"It is on its way.\n{steps}\n"


@pytest.mark.timeout(120)
def test_the_tests_that_the_page_on_tests_shows_pass(tmp_path: Path) -> None:
    for block in blocks(HOW_TO / "test-your-agents.md"):
        if block.title:
            (tmp_path / block.title).write_text(block.code)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert "4 passed" in done.stdout, done.stdout  # two tests, each on asyncio and on trio
