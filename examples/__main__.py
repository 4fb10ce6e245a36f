"""Run every example, twice, as a person would, each in a process of its own: ``python -m examples``, or ``make examples``.

The second time they find what they left. Files go to a directory that is removed at the end, or to the one that is given.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LIMIT_S = 120  # for one example: a machine may be busy


class Example(NamedTuple):
    """How an example is called. `well`: the exit statuses that say so."""

    name: str
    arguments: Sequence[str] = ()
    well: frozenset[int] = frozenset({0})


EXAMPLES = [
    Example("support_agent"),
    Example("compliance_reviewer", ["--approve", "ann"]),
    Example("research_orchestrator"),
    Example("trip_planner"),
    Example("own_framework"),
    Example("fastapi_app"),
    Example("licence_auditor", well=frozenset({0, 1})),  # 1: what is installed here is not its fault
]


class Ran(NamedTuple):
    """One call of an example."""

    example: Example
    status: int
    took_s: float
    output: str

    @property
    def well(self) -> bool:
        return self.status in self.example.well and "Traceback" not in self.output


def run(example: Example, directory: Path) -> Ran:
    """Call an example in a directory. It says nothing on a terminal: its output is kept."""
    began = monotonic()
    command = [sys.executable, "-m", f"examples.{example.name}", *example.arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return Ran(example, done.returncode, monotonic() - began, done.stdout)


def run_all(directory: Path, names: Sequence[str]) -> Iterator[Ran]:
    """Call each twice."""
    for example in EXAMPLES:
        if not names or example.name in names:
            for _ in range(2):
                yield run(example, directory)


def main(arguments: Sequence[str]) -> int:
    """Run them and say how it went; 1 when one did not end well."""
    parser = argparse.ArgumentParser(prog="python -m examples", description="Run every example, twice.")
    parser.add_argument("names", nargs="*", choices=[*(example.name for example in EXAMPLES), []], metavar="EXAMPLE", help="only these")
    parser.add_argument("--directory", type=Path, help="keep their files here")
    parser.add_argument("--quiet", action="store_true", help="show the output of those alone that failed")
    chosen = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        directory: Path = chosen.directory or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        for ran in run_all(directory, chosen.names):
            failed = failed or not ran.well
            if not (chosen.quiet and ran.well):
                print(f"\n{ran.output.strip()}\n")
            print(f"{'ok  ' if ran.well else 'FAIL'} {ran.took_s:5.1f} s  {ran.example.name}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
