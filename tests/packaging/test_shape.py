"""The house's limits hold, and the tool that says so can say otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.shape import breaches

ROOT = Path(__file__).resolve().parents[2]
LONG_FUNCTION = "def long() -> None:\n" + "    print()\n" * 60
UNFINISHED = "# TO" + "DO: later\n"
SKIPPED = "import pytest\npytest.sk" + "ip('no server')\n"


def test_the_code_keeps_the_limits_of_the_house() -> None:
    assert list(breaches(ROOT)) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({"src/a/b.py": "x = 1\n" * 501}, "501 lines", id="a long file"),
        pytest.param({"src/a/b.py": LONG_FUNCTION}, "long has 61 lines", id="a long function"),
        pytest.param({"src/a/b.py": "import a.c\n", "src/a/c.py": "from a.b import x\n"}, "import cycle", id="a cycle"),
        pytest.param({"src/a/b.py": "def f() -> None:\n    import a.c\n", "src/a/c.py": ""}, "inside f", id="a late import"),
        pytest.param({"tests/test_b.py": UNFINISHED}, "unfinished", id="a word that marks unfinished work"),
        pytest.param({"tests/test_b.py": SKIPPED}, "evaded", id="a skipped test"),
    ],
)
def test_a_breach_is_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    (found,) = breaches(tmp_path)
    assert said in found


def test_an_import_for_type_checkers_alone_is_no_cycle(tmp_path: Path) -> None:
    (tmp_path / "src/a").mkdir(parents=True)
    (tmp_path / "src/a/b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a.c\n")
    (tmp_path / "src/a/c.py").write_text("import a.b\n")

    assert list(breaches(tmp_path)) == []


def test_a_shipped_suite_may_report_an_undeclared_ability_as_skipped(tmp_path: Path) -> None:
    (tmp_path / "src/agentkit/testing").mkdir(parents=True)
    (tmp_path / "src/agentkit/testing/queue.py").write_text(SKIPPED)

    assert list(breaches(tmp_path)) == []
