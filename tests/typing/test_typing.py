"""The public API as type checkers see it: right programs pass, each misuse is rejected where it stands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MISUSE = HERE / "misuse.py"
REJECTED = {number for number, line in enumerate(MISUSE.read_text().splitlines(), 1) if line.endswith("# rejected")}
PROGRAMS = sorted(path for path in HERE.glob("*.py") if path.name not in {"misuse.py", Path(__file__).name})


def pyright(folder: Path, *paths: Path) -> set[int]:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(HERE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(PROGRAMS) + 1
    faults = [fault for fault in report["generalDiagnostics"] if fault["severity"] == "error" and Path(fault["file"]) in paths]
    return {fault["range"]["start"]["line"] + 1 for fault in faults}


def mypy(folder: Path, *paths: Path) -> set[int]:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(folder),
        "--config-file=",
        "--no-error-summary",
        *map(str, paths),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=False)
    return {int(number) for number in re.findall(r":(\d+): error:", done.stdout)}


Check = Callable[..., set[int]]


@pytest.mark.parametrize("check", [pyright, mypy])
@pytest.mark.timeout(240)
def test_the_programs_of_users_pass_both_strict_checkers(check: Check, tmp_path: Path) -> None:
    assert check(tmp_path, *PROGRAMS) == set()


@pytest.mark.parametrize("check", [pyright, mypy])
@pytest.mark.timeout(240)
def test_each_misuse_is_rejected_and_nothing_else_is(check: Check, tmp_path: Path) -> None:
    assert check(tmp_path, MISUSE) == REJECTED
