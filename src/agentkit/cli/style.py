"""How the command line speaks: tables and colour on a terminal, plain columns in a pipe, JSON for machines."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeAlias, TypeVar, cast

import click
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from agentkit.errors import AgentKitError

Cell: TypeAlias = "str | Text"
Command = TypeVar("Command", bound=Callable[..., object])

COLOURS = {
    "queued": "cyan", "running": "blue", "waiting": "yellow",
    "done": "green", "failed": "red", "cancelled": "magenta", "buried": "bold red",
    "ok": "green", "note": "cyan", "warn": "yellow", "fail": "bold red",
}  # fmt: skip
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s|)")
_UNITS = {"d": 86_400.0, "h": 3_600.0, "min": 60.0, "m": 60.0, "s": 1.0, "": 1.0}
PIPE_WIDTH = 10_000  # nothing is cut in a pipe: a program reads it


class Failed(click.ClickException):
    """Said in one sentence on stderr; the exit code is 1."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"agentkit: {self.message}", file=file or sys.stderr)


class WrongUse(Failed):
    """The command was not given what it needs; the exit code is 2, as for a wrong option."""

    exit_code = 2


def sentence(group: BaseExceptionGroup[BaseException]) -> str | None:
    """What to say of errors that came together; None when one of them is not ours and deserves its traceback."""
    ours, others = group.split(AgentKitError)
    return None if others is not None or ours is None else "; ".join(dict.fromkeys(map(str, leaves(ours))))


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors themselves, out of all groups."""
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from leaves(cast("BaseExceptionGroup[BaseException]", exc))
        else:
            yield exc


def example(*lines: str) -> Callable[[Command], Command]:
    """Add lines to the help of a command, as they would be typed."""

    def add(function: Command) -> Command:
        typed = "\n".join(f"  {line}" for line in lines)
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExample:\n{typed}"  # \b: click keeps these lines as they are
        return function

    return add


class Out:
    """Where a command writes. With `as_json` only `data` is heard, else only the rest."""

    def __init__(self, *, as_json: bool, console: Console | None = None) -> None:
        self.as_json = as_json
        self.console = console or terminal()

    def data(self, value: object) -> None:
        """One JSON document in one line."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=False, default=str))

    def show(self, *parts: RenderableType) -> None:
        if not self.as_json:
            for part in parts:
                if isinstance(part, Table) and not self.console.is_terminal:
                    part.box = None
                self.console.print(part, highlight=False)


def terminal() -> Console:
    """The terminal, or a pipe of any width. rich itself heeds NO_COLOR and TERM=dumb."""
    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=PIPE_WIDTH, color_system=None)


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, numbers: Sequence[str] = ()) -> Table:
    """A table without borders; the columns in `numbers` are set to the right, the first one is never cut."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=i == 0, overflow="fold" if i == 0 else "ellipsis")
    for row in rows:
        made.add_row(*row)
    return made


def coloured(word: str) -> Text:
    return Text(word, style=COLOURS.get(word, ""))


def facts(pairs: Mapping[str, Cell]) -> Table:
    """Names and values, one pair a line; pairs without a value are left out."""
    made = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        if value:
            made.add_row(Text(name, style="bold"), value)
    return made


def human(seconds: float) -> str:
    """A length of time as people say it: `12 ms`, `1.2 s`, `3 min 4 s`, `2 h 5 min`, `6 d 3 h`."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, less, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {less}"
    return f"{whole} s"


def duration(text: str) -> float:
    """Seconds of `90`, `90s`, `15m`, `1h30m`, `2d`."""
    parts = _DURATION.findall(text)
    if not parts or "".join(f"{n}{u}" for n, u in parts) != re.sub(r"\s", "", text):
        raise click.BadParameter(f"{text!r} is no length of time; write 90s, 15m, 1h30m or 2d")
    return sum(float(n) * _UNITS[u] for n, u in parts)


def json_value(text: str) -> object:
    """A JSON value; a bare word is refused with the way to quote it."""
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as exc:
        raise click.BadParameter(f"{text!r} is not JSON ({exc}); a string needs both quotes: '\"{text}\"'") from exc
    return value
