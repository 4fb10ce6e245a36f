"""The demo itself: two worker processes, a kill -9, and a proof that it checks before it claims anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(180)  # a take-over waits for a lease of ten seconds, and the machine may be busy
def test_the_demo_loses_nothing_and_repeats_nothing_when_a_worker_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.licence_auditor.demo", "--directory", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False, cwd=Path(__file__).parents[2])
    logs = "".join(log.read_text() for log in (tmp_path / "demo").glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert "is taken over from" in done.stdout
    assert "each was audited exactly once" in done.stdout
    assert "none of them was begun again" in done.stdout
    assert "pytest" in (tmp_path / "demo" / "report.html").read_text()  # which runs this, so it is there
