"""The command line that the examples have in common: where the state lies, which models answer, and how a program ends."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio

from agentkit import AgentKitError

Chosen = TypeVar("Chosen", bound="Options")

PACE_S = 0.4  # on a terminal: models that need no server answer too fast to follow


class Options(argparse.Namespace):
    """What every example can be told."""

    directory: Path
    state: str | None
    models: Path | None
    pace_s: float

    def file(self, name: str) -> Path:
        """A file of the example's own. Its directory is made."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory.absolute() / name

    def state_url(self, name: str) -> str:
        """Where the runs are kept: a SQLite file, unless the command line says otherwise."""
        return self.state or f"sqlite:///{self.file(f'{name}.db')}"


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options that all examples have."""
    made = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=description)
    made.add_argument("--models", type=Path, metavar="FILE", help="a models.toml (default: answers by rules, which need no server)")
    made.add_argument("--state", metavar="URL", help="where runs are kept (default: a SQLite file in --directory)")
    made.add_argument("--directory", type=Path, default=Path(".examples"), metavar="DIR", help="where its files lie (default: .examples)")
    pace_s = PACE_S if sys.stdout.isatty() else 0.0
    made.add_argument("--pace-s", type=float, default=pace_s, metavar="S", help="how long the answers by rules take to think")
    return made


def play(main: Callable[[Chosen], Awaitable[int]], chosen: Chosen) -> int:
    """Run an example to its end; the exit status is the answer: 130 when it was interrupted, 2 when it could not be carried out."""
    try:
        return anyio.run(functools.partial(main, chosen))
    except KeyboardInterrupt:
        print("interrupted; what was done is kept: call it again, and a run that was named above goes on with --run-id", file=sys.stderr)
        return 130
    except AgentKitError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
