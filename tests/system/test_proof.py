"""The books that the system tests keep: each breach is found, and an honest history has none."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit.ports.records import Entry, EntryKind, Run, RunStatus
from tests.system.proof import faults_of

RESULT, INTENT, STATUS = EntryKind.RESULT, EntryKind.INTENT, EntryKind.STATUS


def row(status: RunStatus = RunStatus.COMPLETED) -> Run:
    return Run(
        "r", "job", "1", status, None, 2, 0, 0, False, 0, 1, "", "", None, "", 0, False, 0, 0, None, None, "", 1.0, b"1", b"1", "", "",
        0.0, 0.0, None,
    )  # fmt: skip


def entry(seq: int, kind: EntryKind, key: str, fence: int, body: bytes = b"1") -> Entry:
    return Entry(seq, kind, key, 1, "", 0, body, 0, 0, fence)


def effect(key: str, fence: int) -> dict[str, Any]:
    return {"key": f"r:{key}", "fence": fence, "attempt": 1, "pid": 1, "value": None}


END = entry(4, STATUS, "", 2, b'{"status":"done"}')
HONEST = [entry(1, RESULT, "a#1", 1), entry(2, INTENT, "b#1", 1), entry(3, RESULT, "b#1", 2), END]
EFFECTS = [effect("a#1", 1), effect("b#1", 1), effect("b#1", 2)]


def test_an_honest_history_has_no_faults() -> None:
    assert faults_of(row(), HONEST, EFFECTS) == []


def test_a_run_that_its_parents_end_cancelled_before_anybody_claimed_it_has_no_history() -> None:
    assert faults_of(row(RunStatus.CANCELLED)._replace(fence=0), [], []) == []


@pytest.mark.parametrize(
    ("fault", "run", "entries", "effects"),
    [
        ("has not ended", row(RunStatus.PARKED), HONEST[:3], EFFECTS),
        ("did not end exactly once", row(), [*HONEST, entry(5, STATUS, "", 2, END.body)], EFFECTS),
        ("did not end exactly once", row(), HONEST[:3], EFFECTS),
        ("gaps", row(), [HONEST[0], *HONEST[2:]], EFFECTS),
        ("an older claim wrote", row(), [*HONEST[:3], END._replace(fence=1)], EFFECTS),
        ("has 2 outcomes", row(), [*HONEST[:3], entry(4, RESULT, "a#1", 2), END._replace(seq=5)], EFFECTS),
        ("had a durable outcome from claim 1", row(), HONEST, [*EFFECTS, effect("a#1", 2)]),
        ("2 times under claim", row(), HONEST, [*EFFECTS, effect("b#1", 2)]),
        ("2 times under claim", row(), HONEST, [*EFFECTS, effect("a#1", 1)]),
    ],
)
def test_each_breach_is_found(fault: str, run: Run, entries: list[Entry], effects: list[dict[str, Any]]) -> None:
    assert any(fault in found for found in faults_of(run, entries, effects))
