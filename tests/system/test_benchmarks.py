"""The benchmarks run, and every row answers with numbers. What the numbers are is for a quiet machine to say."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    "lock-step", "jitter", "one-at-a-time", "history", "cpu", "resilience", "queue", "runs", "latency", "import", "memory",
    "postgresql", "mariadb", "redis", "redis-queue", "postgresql-queue", "mariadb-queue",
]  # fmt: skip


@pytest.mark.timeout(300)  # all rows, on a machine that may be busy
def test_every_row_of_the_benchmarks_answers_with_finite_numbers_in_a_quick_run(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", str(kept)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    figures = json.loads(kept.read_text())["figures"]
    assert list(dict.fromkeys(figure["row"] for figure in figures)) == ROWS
    assert all(math.isfinite(figure["value"]) and figure["value"] >= 0 for figure in figures)
    assert all(math.isfinite(value) for figure in figures for value in figure["details"].values())
    assert all(figure["bar"] is None or figure["ok"] is _met(figure["value"], **figure["bar"]) for figure in figures)


def _met(measured: float, value: float, at_least: bool, aim: float | None) -> bool:
    return measured >= value if at_least else measured <= value
