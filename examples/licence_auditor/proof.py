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
    """A run that changed hands: the steps that its first worker began, and those that the next one did."""

    distribution: str
    first: str
    began: tuple[str, ...]
    next: str | None
    did: tuple[str, ...]

    def __str__(self) -> str:
        if self.next is None:
            return f"{self.distribution}: {self.first} had signed it; the signature was found, so nobody signed again"
        return f"{self.distribution}: {self.first} had begun {', '.join(self.began)}; {self.next} did {', '.join(self.did)}"


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


def taken_over(lines: Sequence[Line], runs: Collection[str]) -> list[TakenOver]:
    """What the trail says of the runs that were claimed more than once, in the order in which they were begun."""
    found: list[TakenOver] = []
    for run, begun in _begun(lines).items():
        if run in runs:
            first = begun[0].worker
            others = [line for line in begun if line.worker != first]
            found.append(
                TakenOver(
                    distribution=begun[0].distribution,
                    first=first,
                    began=tuple(line.step for line in begun if line.worker == first),
                    next=others[0].worker if others else None,
                    did=tuple(line.step for line in others),
                )
            )
    return found


def in_hand(lines: Sequence[Line], worker: str) -> set[str]:
    """The runs that this worker began last and nobody signed."""
    signed = {line.run for line in lines if line.what == "signed"}
    return {run for run, begun in _begun(lines).items() if begun[-1].worker == worker and run not in signed}


def half_done(lines: Sequence[Line], worker: str) -> set[str]:
    """The runs in hand that are past their first step: a kill finds something durable there to keep."""
    begun = _begun(lines)
    return {run for run in in_hand(lines, worker) if len(begun[run]) > 1}


def _begun(lines: Iterable[Line]) -> dict[str, list[Line]]:
    runs: dict[str, list[Line]] = {}
    for line in lines:
        if line.what == "began":
            runs.setdefault(line.run, []).append(line)
    return runs
