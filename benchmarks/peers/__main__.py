"""`python -m benchmarks.peers [--quick] [--json FILE]`: make the environments that are missing, run all in turns, print the ratios."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.table import number

HERE = Path(__file__).parent
FOLDER = Path(".bench") / "peers"
LIMIT_S = 300  # of one measurement: the slowest peer takes tens of seconds on a slow disk


@dataclass(frozen=True)
class Peer:
    """A program, and what its environment needs; without packages it runs in ours."""

    name: str
    program: str
    packages: Sequence[str] = ()
    wished: Sequence[str] = ()
    """Packages that it can do without where the index has none for this Python."""


PEERS = (
    Peer("agentkit", "ours.py"),
    Peer("raw", "raw_commit.py"),
    Peer("langgraph", "langgraph_plan.py", ("langgraph", "langgraph-checkpoint-sqlite")),
    Peer("dbos", "dbos_plan.py", ("dbos",), ("pysqlite3-binary",)),
)


@dataclass
class Answers:
    """What a peer said, turn by turn, or why it could not."""

    title: str = ""
    rates: list[float] = field(default_factory=list[float])
    cpu_ms: list[float] = field(default_factory=list[float])
    problem: str = ""


def command(args: Sequence[str], **more: Mapping[str, str]) -> tuple[str, str]:
    """(what it said, what went wrong)"""
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=LIMIT_S, env={**os.environ, **more.get("env", {})}, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return "", str(exc)
    said = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()
    return done.stdout, "" if done.returncode == 0 else said[-1]


def installed(peer: Peer, python: Path, packages: Sequence[str]) -> str:
    """Put packages into a peer's environment; what went wrong, or nothing."""
    if command(["uv", "--version"])[1]:
        return command([str(python), "-m", "pip", "install", "--quiet", *packages])[1]
    return command(["uv", "pip", "install", "--quiet", "--python", str(python), *packages])[1]


def environment(peer: Peer) -> tuple[Path, str]:
    """The interpreter for a peer, and what keeps it from being used."""
    if not peer.packages:
        return Path(sys.executable), ""
    folder = FOLDER / peer.name
    python, stamp = folder / "bin" / "python", folder / ".stamp"
    if stamp.exists():
        return python, ""
    shutil.rmtree(folder, ignore_errors=True)
    has_uv = not command(["uv", "--version"])[1]
    made = command(
        ["uv", "venv", "--quiet", "--python", sys.executable, str(folder)] if has_uv else [sys.executable, "-m", "venv", str(folder)]
    )[1]
    problem = made or installed(peer, python, peer.packages)
    if not problem:
        for package in peer.wished:
            installed(peer, python, [package])
        stamp.touch()
    return python, problem


def turn(peer: Peer, python: Path, plans: int, at_once: int, answers: Answers) -> None:
    """One measurement in a process and a folder of its own."""
    folder = FOLDER / "files"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = {"env": {"PYTHONPATH": str(HERE.parents[1])}} if not peer.packages else {}
    said, problem = command([str(python), str(HERE / peer.program), str(plans), str(at_once), str(folder)], **path)
    shutil.rmtree(folder, ignore_errors=True)
    if problem:
        answers.problem = problem
        return
    found = json.loads(said.splitlines()[-1])
    answers.title = found["peer"]
    answers.rates.append(found["steps_per_s"])
    answers.cpu_ms.append(found["cpu_ms_per_step"])


def measure(console: Console, plans: int, at_once: int, rounds: int) -> dict[str, Answers]:
    """All peers in turns."""
    answers = {peer.name: Answers(peer.name) for peer in PEERS}
    with console.status("") as status:
        pythons: dict[str, Path] = {}
        for peer in PEERS:
            status.update(f"environment of {peer.name}")
            pythons[peer.name], answers[peer.name].problem = environment(peer)
        for number_of_round in range(1, rounds + 1):
            for peer in PEERS:
                if not answers[peer.name].problem:
                    status.update(f"{at_once} at a time, round {number_of_round} of {rounds}: {peer.name}")
                    turn(peer, pythons[peer.name], plans, at_once, answers[peer.name])
    return answers


def show(console: Console, title: str, answers: Mapping[str, Answers]) -> None:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("who")
    for heading in ("steps/s", "x raw commit", "agentkit is", "CPU ms/step"):
        table.add_column(heading, justify="right")
    for peer in answers.values():
        if peer.problem:
            table.add_row(peer.title, f"[red]does not run here:[/] {peer.problem}")
            continue
        rate = statistics.median(peer.rates)
        ratios = [f"{number(ratio)} x" if ratio else "-" for ratio in (_ratio(peer, answers["raw"]), _ratio(answers["agentkit"], peer))]
        table.add_row(peer.title, number(rate), *ratios, number(statistics.median(peer.cpu_ms)))
    console.print(table)


def _ratio(one: Answers, other: Answers) -> float:
    """The median of the rounds' ratios; 0 where one of the two has no figures."""
    if one.problem or other.problem:
        return 0.0
    return statistics.median(a / b for a, b in zip(one.rates, other.rates, strict=True))


def main() -> int:
    """Measure and print; 1 when we ourselves or the raw limit did not run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="The same plans done by other libraries, on SQLite.")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works, not how fast it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    rounds, kept, ok = (1 if options.quick else 5), dict[str, object](), True
    for at_once, plans in ((50, 10 if options.quick else 50), (1, 3 if options.quick else 10)):
        answers = measure(console, plans, at_once, rounds)
        show(console, f"plans of 10 steps, {at_once} at a time, SQLite", answers)
        kept[f"{at_once} at a time"] = {name: vars(found) for name, found in answers.items()}
        ok = ok and not answers["agentkit"].problem and not answers["raw"].problem
    about = machine.describe()
    console.print(", ".join(f"{name} {value}" for name, value in about.items()), style="dim", highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": about, "peers": kept}, indent=2) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
