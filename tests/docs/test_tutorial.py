"""The tutorial, as a reader does it: its files, its commands, real processes, a real kill -9."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agentkit.ports.records import EntryKind
from tests.docs.test_pages import ROOT, blocks

PAGE = ROOT / "docs/tutorials/resume-after-kill-9.md"
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITHIN_S = 60.0


class Shell:
    """One shell that is told the page's commands in turn."""

    def __init__(self, folder: Path) -> None:
        bin_folder = Path(sys.executable).parent
        ours = {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder), "COLUMNS": "120", "PYTHONUTF8": "1"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTKIT_")}
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        self._shell = subprocess.Popen(
            ["bash", "--norc"], cwd=folder, env=inherited | ours, stdin=pipe, stdout=pipe, stderr=nothing, text=True
        )

    def tell(self, command: str) -> str:
        """What a command says. One that goes into the background says nothing here."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        if command.endswith("&"):
            command = f"{command.removesuffix('&')} >worker.log 2>&1 &"
        self._shell.stdin.write(f"{command}\necho '--- said'\n")
        self._shell.stdin.flush()
        return "".join(iter(self._shell.stdout.readline, "--- said\n"))

    def close(self) -> None:
        self.tell("kill -9 $(jobs -p) 2>/dev/null")
        self._shell.communicate("exit\n")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    for block in blocks(PAGE):
        assert block.title is not None
        (tmp_path / block.title).write_text(block.code)
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def commands() -> list[str]:
    """Every command of the page, in order."""
    return [line.removeprefix("$ ") for block in CONSOLE.findall(PAGE.read_text()) for line in block.splitlines() if line.startswith("$ ")]


def until(holds: Callable[[], bool]) -> None:
    """Look until it is so."""
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def finished(file: Path, step: str) -> bool:
    """Whether the journal holds the step's result."""
    with closing(sqlite3.connect(file)) as book:
        return book.execute('SELECT 1 FROM journal WHERE "key" = ? AND kind = ?', (step, EntryKind.RESULT)).fetchone() is not None


@pytest.mark.timeout(150)
def test_the_story_of_the_tutorial_happens_as_it_is_told(shell: Shell, tmp_path: Path) -> None:
    made = tmp_path / "made.txt"
    submit, work, look, kill, show, work_again, tail, look_again, show_again, go = commands()

    assert shell.tell(submit) == "queued\n"
    shell.tell(work)
    until(lambda: made.exists() and "chapter 3" in made.read_text())
    assert shell.tell(look).splitlines()[-1] == "chapter 3 by claim 1"
    until(lambda: finished(tmp_path / "book.db", "chapter#2"))  # chapter 3 did not wait for it to be durable; no reader kills so soon
    shell.tell(kill)
    shown = shell.tell(show)
    assert ("running" in shown, "chapter#2" in shown, "chapter#3" in shown) == (True, True, False)

    shell.tell(work_again)
    followed = shell.tell(tail).splitlines()
    assert followed[0].endswith("chapter#1  finished")
    assert followed[-1].endswith("done")
    begun = shell.tell(look_again).splitlines()
    assert begun[3:] == [f"chapter {number} by claim 2" for number in (3, 4, 5, 6)]
    assert Counter(line.partition(" by")[0] for line in begun) == {f"chapter {n}": 2 if n == 3 else 1 for n in range(1, 7)}
    shown = shell.tell(show_again)
    assert re.search(r"claim 2  taken over by worker \w+ .* after the last entry of claim 1, worked .*, then done", shown)

    assert shell.tell(f"{go}; wait $!; echo left with $?") == "left with 0\n"
    assert "has drained" in (tmp_path / "worker.log").read_text()
