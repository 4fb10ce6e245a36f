"""A short soak; `make soak` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.system.soak import Plan, Soak, closing

pytestmark = pytest.mark.timeout(300)


async def test_random_kills_and_freezes_lose_nothing_and_repeat_nothing_wrongly(tmp_path: Path) -> None:
    plan = Plan(seconds=20, workers=3, runs=200, lease_s=1.0, pause_s=0.7, seed=1)
    console = Console(force_terminal=False)
    score = await Soak(plan, tmp_path, console).run()
    console.print(closing(plan, score))
    assert score.faults == []
    assert score.ended == plan.runs
    assert score.kills
    assert score.long_stops
