"""The adapter that the page builds keeps the laws, and the suite that the page runs notices when it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/write-an-adapter.md"
FILES = dict(re.findall(r"^```python title=(\S+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


def run_its_tests(folder: Path, adapter: str, which: str = "") -> str:
    """What pytest prints in a project that holds nothing but the page's two files."""
    (folder / "file_values.py").write_text(adapter)
    (folder / "test_file_values.py").write_text(FILES["test_file_values.py"])
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-k", which]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False).stdout


def test_the_test_is_as_short_as_promised() -> None:
    assert len([line for line in FILES["test_file_values.py"].splitlines() if line.strip()]) <= 15


@pytest.mark.timeout(120)
def test_a_third_party_runs_the_suite_on_its_own_adapter(tmp_path: Path) -> None:
    out = run_its_tests(tmp_path, FILES["file_values.py"])
    passed = re.search(r"^(\d+) passed in", out, re.MULTILINE)
    assert passed, out[-3000:]
    assert int(passed[1]) >= 60


@pytest.mark.timeout(120)
def test_the_suite_fails_with_both_sides_when_the_adapter_is_wrong(tmp_path: Path) -> None:
    wrong = FILES["file_values.py"].replace("key > after", "key >= after")
    out = run_its_tests(tmp_path, wrong, "scan")
    assert "test_scan_goes_on_after_a_key_and_stops_at_its_limit" in out
    assert re.search(r"AssertionError: assert \[.* == \[", out), out[-3000:]
