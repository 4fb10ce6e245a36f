"""Shared permits while their holders are killed: never more out than there are, and none lost for longer than a lease."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.system.soak_limits import Held, Life, LimitPlan, LimitSoak, closing, held, longest_idle_s, most_at_once
from tests.system.soak_limits_app import PERMITS

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """What is tested is processes; their event loop makes no difference."""
    return "asyncio"


@pytest.mark.parametrize("store", ["sqlite", "redis", "postgresql"])
async def test_of_eight_permits_of_four_processes_none_is_given_twice_and_none_is_lost_for_longer_than_a_lease(
    store: str, tmp_path: Path
) -> None:
    plan = LimitPlan(seconds=6, lease_s=1.5, pause_s=1.2, seed=1, store=store)
    console = Console(force_terminal=False)
    score = await LimitSoak(plan, tmp_path, console).run()
    console.print(closing(plan, score))
    assert score.faults == []
    assert score.most == PERMITS
    assert score.kills > plan.processes
    assert score.held_at_death


# The books can tell


def line(call: str, what: str, at: float, *, pid: int = 1, weight: int = 1) -> dict[str, object]:
    return {"pid": pid, "call": call, "what": what, "weight": weight, "at": at}


def test_what_was_held_ends_with_its_line_or_with_its_process() -> None:
    lines = [line("a", "begin", 1.0), line("b", "begin", 2.0, weight=3), line("a", "end", 4.0), line("a", "begin", 3.0, pid=2)]
    assert held(lines, {1: 5.0, 2: 6.0}) == [Held(1.0, 4.0, 1), Held(2.0, 5.0, 3), Held(3.0, 6.0, 1)]


def test_the_most_at_one_moment_counts_weights_and_a_handover_is_not_counted_twice() -> None:
    assert most_at_once([Held(1.0, 3.0, 2), Held(2.0, 4.0, 3), Held(3.0, 5.0, 2)]) == 5
    assert most_at_once([Held(1.0, 3.1, 2), Held(2.0, 4.0, 3), Held(3.0, 5.0, 4)]) == 9
    assert most_at_once([]) == 0


def test_the_longest_idle_time_is_between_any_two_who_were_let_in_or_died_while_somebody_calls() -> None:
    holds = [Held(1.0, 9.0, 1), Held(6.0, 9.0, 1)]
    assert longest_idle_s(holds, [Life(0.0, 9.0)]) == 5.0
    assert longest_idle_s(holds, [Life(0.0, 9.0), Life(0.0, 4.0)]) == 3.0
    assert longest_idle_s(holds, [Life(0.0, 2.0), Life(5.5, 9.0)]) == 3.0
