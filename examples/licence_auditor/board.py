"""What the demo shows while it runs: a live table on a terminal, one line per change elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING

from anyio import Event, move_on_after

from examples.licence_auditor.models import Doing

if TYPE_CHECKING:
    from rich.console import RenderableType

SILENCE_S = 3  # between two lines on the silence of a worker
RECENT = 5  # lines of news under the live table


@dataclass
class Board:
    """Who is at what. Told by events; drawn by `on_screen`, or printed line by line where nobody looks."""

    total: int
    live: bool = False
    workers: dict[str, str] = field(default_factory=dict[str, str])
    at: dict[str, Doing] = field(default_factory=dict[str, Doing])
    done: dict[str, str] = field(default_factory=dict[str, str])
    taken_over: set[str] = field(default_factory=set[str])
    news: list[str] = field(default_factory=list[str])
    all_done: Event = field(default_factory=Event)
    started: float = field(default_factory=monotonic)

    def worker(self, name: str, state: str) -> None:
        """A worker came, went, or fell silent."""
        self.workers[name] = state
        self.tell(f"{name}: {state}")

    def silent(self, name: str, seconds: int) -> None:
        """A killed worker has been silent for so long; what is printed line by line says so now and then."""
        self.workers[name] = f"killed, silent for {seconds} s"
        if not self.live and seconds % SILENCE_S == 0:
            print(self.stamped(f"{name} has been silent for {seconds} s"), flush=True)

    def doing(self, doing: Doing) -> None:
        """A step began: it says who is at which distribution."""
        before = self.at.get(doing.distribution)
        self.at[doing.distribution] = doing
        if before is not None and before.worker != doing.worker:
            self.tell(f"{doing.worker} goes on with {doing.distribution} at {doing.step!r}")

    def moved(self, distribution: str) -> None:
        """The run was claimed anew."""
        if distribution in self.at and distribution not in self.taken_over:
            self.taken_over.add(distribution)
            self.tell(f"{distribution} is taken over from {self.at[distribution].worker}")

    def finished(self, distribution: str) -> None:
        """An audit ended."""
        doing = self.at.pop(distribution, None)
        self.done[distribution] = doing.worker if doing else "?"
        if len(self.done) >= self.total:
            self.all_done.set()
        if not self.live:
            print(self.stamped(f"{len(self.done):3} of {self.total}  {self.done[distribution]:10} {distribution}"), flush=True)

    def tell(self, text: str) -> None:
        """Something that is still worth reading at the end."""
        self.news.append(self.stamped(text))
        if not self.live:
            print(self.news[-1], flush=True)

    async def complete(self, within_s: float = 3.0) -> None:
        """Wait until the events of every audit have arrived: they come a moment after the result."""
        with move_on_after(within_s):
            await self.all_done.wait()

    def stamped(self, text: str) -> str:
        """The text with the time since the start."""
        return f"{monotonic() - self.started:5.1f} s  {text}"


@contextmanager
def on_screen(board: Board) -> Generator[None]:
    """Draw the board while somebody looks and rich is there; afterwards its news stay on the screen."""
    if not (sys.stdout.isatty() and find_spec("rich")):
        yield
        return
    from rich.live import Live

    board.live = True
    try:
        with Live(get_renderable=lambda: _drawing(board), refresh_per_second=8, transient=True):
            yield
    finally:
        print("\n".join(board.news))


def _drawing(board: Board) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 3, 0, 0))
    for column in ("worker", "audited", "in hand"):
        table.add_column(column, vertical="top")
    for name, state in board.workers.items():
        count = sum(worker == name for worker in board.done.values())
        hands = "\n".join(f"{one.distribution}: {one.step}" for one in board.at.values() if one.worker == name)
        table.add_row(Text(f"{name}\n{state}", "bold red" if "killed" in state else "bold green"), str(count), Text(hands))
    head = Text(f"{len(board.done)} of {board.total} distributions audited, {monotonic() - board.started:.0f} s", "bold")
    bar = ProgressBar(total=board.total, completed=len(board.done), width=64)
    return Group(head, bar, Text(), table, Text(), Text("\n".join(board.news[-RECENT:]), "dim"))
