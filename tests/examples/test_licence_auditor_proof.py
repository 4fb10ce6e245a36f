"""The demo's proof must be able to fail: each way of losing or repeating work is named."""

from __future__ import annotations

from typing import Literal

import pytest

from examples.licence_auditor import proof
from examples.licence_auditor.board import Board
from examples.licence_auditor.models import Doing, Line
from examples.licence_auditor.proof import Killed, Step


def line(what: Literal["began", "signed"], run: str, step: str, worker: str = "worker 1") -> Line:
    return Line(what=what, run=run, step=step, distribution=run.upper(), worker=worker)


GOOD = [
    line("began", "a", "read"),
    line("began", "b", "read", "worker 2"),
    line("began", "a", "sign"),
    line("signed", "a", "sign"),
    line("began", "b", "identify", "worker 2"),
    # worker 2 is killed here, with b's "read" durable and its "identify" in flight
    line("began", "b", "identify"),
    line("began", "b", "sign"),
    line("signed", "b", "sign"),
]
KILLED = Killed(worker="worker 2", durable=frozenset({Step("a", "read"), Step("a", "sign"), Step("b", "read")}), lines=5)


def test_a_step_that_was_in_flight_may_begin_again() -> None:
    assert proof.faults(GOOD, KILLED, ["A", "B"], ["A", "B"]) == []


@pytest.mark.parametrize(
    ("lines", "reported", "fault"),
    [
        (GOOD[:-1], ["A", "B"], "B was never audited"),
        ([*GOOD, line("signed", "b", "sign")], ["A", "B"], "B was audited 2 times"),
        ([*GOOD, line("signed", "c", "sign")], ["A", "B"], "C was audited, but is not installed"),
        (GOOD, ["A"], "B is missing from the report"),
        (GOOD, ["A", "B", "B"], "B stands in the report 2 times"),
        ([*GOOD, line("began", "b", "read")], ["A", "B"], "step 'read' of b had a durable result, and worker 1 began it again"),
    ],
)
def test_every_way_to_lose_or_repeat_an_audit_is_a_fault(lines: list[Line], reported: list[str], fault: str) -> None:
    assert proof.faults(lines, KILLED, ["A", "B"], reported) == [fault]


def test_a_take_over_tells_what_each_of_the_two_workers_did() -> None:
    (moved,) = proof.taken_over(GOOD, ["b"])
    assert str(moved) == "B: worker 2 had begun read, identify; worker 1 did identify, sign"


def test_a_run_that_was_signed_before_the_kill_needs_nobody_to_begin_a_step() -> None:
    (moved,) = proof.taken_over(GOOD[:4], ["a"])
    assert str(moved) == "A: worker 1 had signed it; the signature was found, so nobody signed again"


def test_a_worker_has_in_hand_what_it_began_and_nobody_signed() -> None:
    assert proof.in_hand(GOOD[:3], "worker 2") == {"b"}
    assert proof.in_hand(GOOD[:3], "worker 1") == {"a"}
    assert proof.in_hand(GOOD, "worker 1") == set()


def test_an_audit_past_its_first_step_is_half_done() -> None:
    assert proof.half_done(GOOD[:3], "worker 2") == set()
    assert proof.half_done(GOOD[:5], "worker 2") == {"b"}


async def test_the_board_tells_who_took_over_from_whom(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(total=1)
    board.doing(Doing(distribution="anyio", step="read", worker="worker 2"))
    board.moved("anyio")
    board.moved("anyio")
    board.doing(Doing(distribution="anyio", step="identify", worker="worker 1"))
    board.finished("anyio")
    await board.complete()
    said = capsys.readouterr().out
    assert said.count("anyio is taken over from worker 2") == 1
    assert "worker 1 goes on with anyio at 'identify'" in said
    assert "1 of 1" in said
