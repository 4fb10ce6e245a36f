"""What the demo claims, checked: every distribution audited exactly once, and nothing durable made again.

Pure: it is given what the trail says really ran, what the journal held when the worker was killed, and the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from examples.licence_auditor.models import Line


class Step(NamedTuple):
    """A step of a run."""

    run: str
    name: str


@dataclass(frozen=True)
class Killed:
    """What stood where when a worker was killed: its name, the steps with a durable result, the lines of the trail."""

    worker: str
    durable: frozenset[Step]
    lines: int


@dataclass(frozen=True)
class TakenOver:
    """A run that two workers worked on, and the steps that each began."""

    distribution: str
    run: str
    by: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


def faults(lines: Sequence[Line], killed: Killed, listed: Iterable[str], reported: Iterable[str]) -> list[str]:
    """Everything that speaks against the claim; nothing, when it holds.

    Args:
        lines: the whole trail.
        killed: the state at the kill.
        listed: the distributions that the environment has.
        reported: the distributions that the report judges.
    """
    expected, answered = set(listed), Counter(reported)
    signed = Counter(line.distribution for line in lines if line.what == "signed")
    again = [line for line in lines[killed.lines :] if line.what == "began" and Step(line.run, line.step) in killed.durable]
    return [
        *(f"{name} was never audited" for name in sorted(expected - set(signed))),
        *(f"{name} was audited {count} times" for name, count in sorted(signed.items()) if count > 1),
        *(f"{name} was audited, but is not installed" for name in sorted(set(signed) - expected)),
        *(f"{name} is missing from the report" for name in sorted(expected - set(answered))),
        *(f"{name} stands in the report {count} times" for name, count in sorted(answered.items()) if count > 1),
        *(f"step {line.step!r} of {line.run} had a durable result, and {line.worker} began it again" for line in again),
    ]


def taken_over(lines: Sequence[Line]) -> list[TakenOver]:
    """The runs on which more than one worker began a step, in the order in which they changed hands."""
    runs: dict[str, list[Line]] = {}
    for line in lines:
        if line.what == "began":
            runs.setdefault(line.run, []).append(line)
    found: list[TakenOver] = []
    for run, begun in runs.items():
        workers = tuple(dict.fromkeys(line.worker for line in begun))
        if len(workers) > 1:
            before = tuple(line.step for line in begun if line.worker == workers[0])
            after = tuple(line.step for line in begun if line.worker != workers[0])
            found.append(TakenOver(begun[0].distribution, run, workers, before, after))
    return found


def in_hand(lines: Sequence[Line], worker: str) -> Collection[str]:
    """The runs whose last line is of this worker and is not their signature."""
    last: dict[str, Line] = {}
    signed: set[str] = set()
    for line in lines:
        last[line.run] = line
        if line.what == "signed":
            signed.add(line.run)
    return {run for run, line in last.items() if line.worker == worker and run not in signed}
