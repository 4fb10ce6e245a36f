"""A release collects what lies in changes/."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.changelog import fragments, release

ROOT = Path(__file__).resolve().parents[2]
PAGE = "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n### Added\n\n- The start.\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "changes").mkdir()
    (tmp_path / "CHANGELOG.md").write_text(PAGE)
    return tmp_path


def test_each_fragment_of_the_house_has_a_name_that_a_release_can_read() -> None:
    assert fragments(ROOT / "changes")


def test_a_fragment_with_another_name_is_refused(root: Path) -> None:
    (root / "changes" / "news.md").write_text("News.")

    with pytest.raises(SystemExit, match=r"news\.md: a fragment is named"):
        release(root, "0.2.0", "2026-02-02")
    assert (root / "CHANGELOG.md").read_text() == PAGE


def test_a_release_moves_the_fragments_into_the_page_newest_release_first(root: Path) -> None:
    (root / "changes" / "README.md").write_text("How.")
    (root / "changes" / "b.fixed.md").write_text("A leak\nis closed.\n")
    (root / "changes" / "a.added.md").write_text("A door.\n")

    release(root, "0.2.0", "2026-02-02")

    text = (root / "CHANGELOG.md").read_text()
    new = "## [Unreleased]\n\n## [0.2.0] - 2026-02-02\n\n### Added\n\n- A door.\n\n### Fixed\n\n- A leak is closed.\n\n## [0.1.0]"
    assert new in text
    assert [path.name for path in (root / "changes").iterdir()] == ["README.md"]
