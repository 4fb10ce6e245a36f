"""Every block of Python in the pages runs, every page links to what exists, and the reference says what the code says.

A block is a program: it is saved in a new folder and run by itself. Words after `python` change that:

- `title=app.py` names the file, which is then beside every block of its page;
- `continued` puts the blocks of the page that came before in front of it;
- `no-run` only compiles it; its first line is a comment that says why.

A comment behind a `print` says what it prints.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.reference import exported, stale

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "adapters/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```python(?P<words>[^\n]*)\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"^ *print\(.*  # (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    words: tuple[str, ...]
    code: str

    @property
    def title(self) -> str | None:
        return next((word.removeprefix("title=").strip('"') for word in self.words if word.startswith("title=")), None)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found: list[Block] = []
    for match in FENCE.finditer(text):
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, tuple(match["words"].split()), code))
    return found


def program(block: Block) -> str:
    """The code of a block, with what it continues."""
    if "continued" not in block.words:
        return block.code
    before = [other.code for other in blocks(block.page) if other.line < block.line and "no-run" not in other.words]
    return "\n".join([*before, block.code])


EVERY_BLOCK = [block for page in PAGES if page.exists() for block in blocks(page)]


def promised(block: Block) -> list[str]:
    """What the comments behind the prints of a block say that they print; an ellipsis stands for anything."""
    return [part.strip() for said in PRINTS.findall(block.code) for part in said.split("…") if part.strip()]


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block as a user would who saved it, in a folder with the named files of its page."""
    for other in blocks(block.page):
        if other.title:
            (folder / other.title).write_text(other.code)
    file = folder / (block.title or "block.py")
    file.write_text(program(block))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENTKIT_")} | {"HOME": str(folder)}
    command = [sys.executable, "-W", "error", file.name]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("block", EVERY_BLOCK, ids=str)
def test_a_block_of_a_page_runs_or_says_why_it_does_not(block: Block, tmp_path: Path) -> None:
    if "no-run" in block.words:
        compile(block.code, str(block), "exec")
        assert block.code.startswith("# "), f"{block}: the first line says why this does not run"
        return
    done = run(block, tmp_path)

    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert [said for said in promised(block) if said not in done.stdout] == [], f"{block}\n{done.stdout}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_links_to_files_that_exist(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("module", ["agentkit", "agentkit.testing"])
def test_the_reference_tells_of_each_public_name(module: str) -> None:
    text = (ROOT / f"docs/reference/{module.removeprefix('agentkit.')}.md").read_text()

    assert [name for name in exported(module) if f"\n## `{name}`\n" not in text] == []


def test_the_reference_says_what_the_docstrings_say() -> None:
    assert [str(page.relative_to(ROOT)) for page in stale()] == [], "run make docs"


def test_the_runner_finds_a_block_and_what_it_continues(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python title=a.py\nx = 1\n```\ntext\n\n- item\n\n  ```python continued\n  assert x == 1\n  ```\n")

    first, second = blocks(page)

    assert (first.title, second.line) == ("a.py", 8)
    assert program(second) == "x = 1\n\nassert x == 1\n"
