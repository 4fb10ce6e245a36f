"""How the examples show what happens: in colour and live on a terminal where rich is installed, as plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from agentkit import RunEvent, RunHandle, Runtime

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

O_co = TypeVar("O_co", covariant=True)

LOOK_S = 0.1  # between two looks at the store: nobody reads faster
ENDED = frozenset({"done", "failed", "cancelled", "buried"})
STYLES = {"done": "green", "running": "bold cyan", "waiting": "yellow", "failed": "bold red", "cancelled": "red", "buried": "bold red"}


class Screen:
    """Where the examples print."""

    def __init__(self) -> None:
        self.looked_at = sys.stdout.isatty() and find_spec("rich") is not None
        self._console: Console | None = None
        self._in_line = False
        self._shown: dict[str, int] = {}
        self._failed_tools: set[str] = set()
        if self.looked_at:
            from rich.console import Console

            self._console = Console(highlight=False)

    def line(self, text: str = "", style: str = "") -> None:
        """A line of its own."""
        if self._in_line:
            self._write("\n", "")
        self._write(f"{text}\n", style)

    def piece(self, text: str, style: str = "") -> None:
        """Something that the next piece goes on with."""
        self._write(text, style)

    def _write(self, text: str, style: str) -> None:
        self._in_line = not text.endswith("\n")
        if self._console is None:
            print(text, end="", flush=True)
        else:
            self._console.print(text, style=style, end="", markup=False, soft_wrap=True)

    def event(self, event: RunEvent) -> None:
        """What a run tells, as it comes. Steps that ended are not shown: there are many, and `agentkit runs show` has them."""
        match event.type:
            case "text":
                self._text(event.step, event.text, event.position)
            case "tool":
                self.line(f"  [{event.tool}: {event.phase}]", "red" if event.phase == "failed" else "dim")
                if event.phase == "failed":
                    self._failed_tools.add(event.step)
            case "progress":
                self.line(f"  {event.data}", "dim")
            case "approval" if not event.granted:
                self.line(f"  {event.step} waits for a human's leave: {event.arguments}", "yellow")
            case "budget":
                self.line(f"  budget: {event.account} has used {event.soft:.0%} of its limit", "yellow")
            case "step" if event.phase in ("failed", "retrying") and event.step not in self._failed_tools:
                self.line(f"  {event.step}: {event.phase}", "red")
            case "step" if "/undo:" in event.step and event.phase == "finished":
                self.line(f"  {event.step}: taken back", "yellow")
            case _:
                pass

    def _text(self, step: str, text: str, position: int) -> None:
        """A piece of an answer. After a crash the answer is made again from its beginning: then it begins a line of its own."""
        if position < self._shown.get(step, 0):
            self.line("  (once more, from the beginning)", "dim")
        self._shown[step] = position + len(text)
        self.piece(text)

    async def follow(self, handle: RunHandle[O_co]) -> O_co:
        """Show a run as it happens, and return its result. Raises as `RunHandle.result`."""
        async with handle.events() as events:
            async for event in events:
                self.event(event)
        if self._in_line:
            self._write("\n", "")
        return await handle.result()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], style_of: int | None = None) -> None:
        """A table. `style_of`: the column whose word colours its cell."""
        if self._console is None:
            widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
            for row in [columns, *rows]:
                self.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, vertical="top")
        for row in rows:
            table.add_row(*(Text(cell, STYLES.get(cell, "") if at == style_of else "") for at, cell in enumerate(row)))
        self._console.print(table)

    @contextmanager
    def board(self, title: str) -> Generator[Board]:
        """A board that is redrawn while somebody looks; elsewhere each change is a line."""
        board = Board(title, self)
        if self._console is None:
            yield board
            return
        from rich.live import Live

        with Live(get_renderable=board.drawing, console=self._console, refresh_per_second=8):
            yield board


@dataclass
class Board:
    """Who is at what: runs by their id."""

    title: str
    screen: Screen
    states: dict[str, str] = field(default_factory=dict[str, str])

    def set(self, name: str, state: str) -> None:
        """A run came, or changed."""
        if self.states.get(name) != state:
            self.states[name] = state
            if not self.screen.looked_at:
                self.screen.line(f"  {name}: {state}")

    def drawing(self) -> RenderableType:
        """As it stands, for rich."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
        for name, state in self.states.items():
            table.add_row(Text(f"  {name}"), Text(state, STYLES.get(state.partition(" ")[0], "")))
        ended = sum(state.partition(" ")[0] in ENDED for state in self.states.values())
        return Group(Text(self.title, "bold"), ProgressBar(total=max(1, len(self.states)), completed=ended, width=48), table)

    async def until_ended(self, runtime: Runtime, handle: RunHandle[Any]) -> None:
        """Keep a run and its children on the board until it has ended."""
        while (await handle.info()).status not in ENDED:
            await self.look(runtime, [handle.run_id])
            await anyio.sleep(LOOK_S)
        await self.look(runtime, [handle.run_id])

    async def look(self, runtime: Runtime, parents: Sequence[str]) -> None:
        """One look at the store."""
        async for info in runtime.runs():
            if info.run_id in parents or info.parent_id in parents:
                self.set(info.run_id, f"{info.status} for {info.waiting_for}" if info.waiting_for else info.status)
