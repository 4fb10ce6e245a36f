"""What a newcomer finds: commands that exist, bounds and exceptions that say why."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["bench", "bench-peers", "demo", "docs", "examples", "lint", "soak", "test"]


def make(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_below(heading: str) -> list[str]:
    """Lines of pyproject.toml from a heading of a list to its end."""
    text = (ROOT / "pyproject.toml").read_text()
    return text.split(f"\n{heading} = [\n")[1].split("\n]")[0].splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_of_a_command(command: str) -> None:
    assert re.search(rf"make {command} +\S", make("help"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_makes_its_own_environment_first(command: str) -> None:
    plan = make("--dry-run", "VENV=/nowhere/.venv", "PYTHON=python3", command)

    assert plan.index("scripts/venv.sh /nowhere/.venv") < plan.index("/nowhere/.venv/bin/")


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci/run"

    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"


@pytest.mark.parametrize("heading", ["dependencies", "cli", "test"])
def test_each_bound_of_what_users_install_says_why(heading: str) -> None:
    assert [line for line in lines_below(heading) if "# " not in line] == []


def test_each_rule_of_style_that_is_ignored_says_why() -> None:
    assert [line for line in lines_below("ignore") if "# " not in line] == []
