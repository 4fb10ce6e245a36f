#!/usr/bin/env python3
"""Move the fragments of changes/ into CHANGELOG.md under a new version: scripts/changelog.py 0.2.0 [2027-01-31].

Without a version it prints what the next release would say, and changes nothing.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("added", "changed", "fixed", "removed")
UNRELEASED = "## [Unreleased]\n"


def fragments(folder: Path) -> dict[str, list[Path]]:
    """Fragments by kind, in the order of their names; a file with another name is refused."""
    found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for path in sorted(folder.glob("*.md")):
        if path.name == "README.md":
            continue
        match = re.fullmatch(r"[a-z0-9-]+\.([a-z]+)\.md", path.name)
        if match is None or match[1] not in found:
            raise SystemExit(f"{path.name}: a fragment is named <slug>.<{'|'.join(KINDS)}>.md, the slug in a-z, 0-9 and dashes")
        found[match[1]].append(path)
    return found


def section(found: dict[str, list[Path]]) -> str:
    """The text of one release without its heading: a bullet for each fragment."""
    blocks = [
        f"### {kind.capitalize()}\n\n" + "\n".join(f"- {' '.join(path.read_text().split())}" for path in paths)
        for kind, paths in found.items()
        if paths
    ]
    return "\n\n".join(blocks)


def release(root: Path, version: str, day: str) -> None:
    """Write the release into CHANGELOG.md and remove the fragments it was made from."""
    found = fragments(root / "changes")
    page = root / "CHANGELOG.md"
    text = page.read_text()
    if UNRELEASED not in text:
        raise SystemExit(f"CHANGELOG.md has no line {UNRELEASED.strip()!r} to write below")
    page.write_text(text.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {day}\n\n{section(found)}\n", 1))
    for path in (path for paths in found.values() for path in paths):
        path.unlink()


def main(arguments: list[str]) -> None:
    if not arguments:
        print(section(fragments(ROOT / "changes")) or "changes/ holds no fragment")
        return
    day = arguments[1] if len(arguments) > 1 else datetime.datetime.now(datetime.UTC).date().isoformat()
    release(ROOT, arguments[0], day)


if __name__ == "__main__":
    main(sys.argv[1:])
