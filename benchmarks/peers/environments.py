"""An environment of its own for each peer, made when it is missing or when what it needs has changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = Path(".bench") / "peers"
LIMIT_S = 120  # of one measurement: the slowest peer takes tens of seconds on a slow disk


@dataclass(frozen=True)
class Peer:
    """A program, and what its environment needs; without packages it runs in ours."""

    name: str
    program: str
    packages: Sequence[str] = ()
    wished: Sequence[str] = ()
    """Packages that it can do without where the index has none for this Python."""
    times: int = 1
    """How many times as much it has to do, so that a fast one has enough to be measured by."""


def command(args: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """(what it said, what went wrong)"""
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=LIMIT_S, env={**os.environ, **(env or {})}, check=False)
    except subprocess.TimeoutExpired:
        return "", f"it did not end within {LIMIT_S} s"
    except OSError as exc:
        return "", str(exc)
    said = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()
    return done.stdout, "" if done.returncode == 0 else said[-1]


def uv() -> str | None:
    """Where uv lies: on the path, or beside the interpreter that runs this."""
    return shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))


def new(folder: Path) -> str:
    """Make an empty environment; what went wrong, or nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    if found := uv():
        return command([found, "venv", "--quiet", "--python", sys.executable, str(folder)])[1]
    return command([sys.executable, "-m", "venv", str(folder)])[1]


def install(python: Path, packages: Sequence[str]) -> str:
    """Put packages into an environment; what went wrong, or nothing."""
    if found := uv():
        return command([found, "pip", "install", "--quiet", "--python", str(python), *packages])[1]
    return command([str(python), "-m", "pip", "install", "--quiet", *packages])[1]


def environment(peer: Peer) -> tuple[Path, str]:
    """The interpreter for a peer, and what keeps it from being used."""
    if not peer.packages:
        return Path(sys.executable), ""
    folder = FOLDER / peer.name
    python, stamp = folder / "bin" / "python", folder / ".stamp"
    needs = "\n".join([*peer.packages, *peer.wished])
    if stamp.exists() and stamp.read_text() == needs:
        return python, ""
    problem = new(folder) or install(python, peer.packages)
    if not problem:
        for package in peer.wished:
            install(python, [package])
        stamp.write_text(needs)
    return python, problem


def run(peer: Peer, python: Path, *args: str) -> tuple[str, str]:
    """Run a peer's program in a process of its own: (what it said, what went wrong)."""
    path = {} if peer.packages else {"PYTHONPATH": str(HERE.parents[1])}
    return command([str(python), str(HERE / peer.program), *args], path)
