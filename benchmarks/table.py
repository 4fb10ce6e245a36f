"""The figures as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.figures import Figure


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def verdict(figure: Figure) -> Text:
    if figure.bar is None:
        return Text("-", style="dim")
    if not figure.ok:
        return Text("MISSED", style="bold red")
    aim = figure.bar.aim
    reached = aim is not None and (figure.value >= aim if figure.bar.at_least else figure.value <= aim)
    return Text("ok, aim reached" if reached else "ok", style="green")


def show(console: Console, machine: Mapping[str, str], measured: Mapping[str, Sequence[Figure]]) -> None:
    """Print the table, and what was missed."""
    table = Table(title="agentkit beside its raw limits", title_justify="left", header_style="bold", pad_edge=False)
    for heading in ("row", "what"):
        table.add_column(heading, no_wrap=heading == "row")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("bar", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("from", style="dim")
    for name, figures in measured.items():
        for figure in figures:
            details = ", ".join(f"{label} {number(value)}" for label, value in figure.details.items())
            table.add_row(name, figure.title, f"{number(figure.value)} {figure.unit}", str(figure.bar or ""), verdict(figure), details)
        table.add_section()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), style="dim", highlight=False)
    missed = [figure.title for figures in measured.values() for figure in figures if not figure.ok]
    console.print(f"{len(missed)} bars missed: {'; '.join(missed)}" if missed else "all bars met", style="red" if missed else "green")


def as_json(machine: Mapping[str, str], measured: Mapping[str, Sequence[Figure]]) -> dict[str, object]:
    """The same for machines."""
    rows = [
        {
            "row": name, "what": figure.title, "value": figure.value, "unit": figure.unit, "details": dict(figure.details), "ok": figure.ok,
            "bar": None if figure.bar is None else {"value": figure.bar.value, "at_least": figure.bar.at_least, "aim": figure.bar.aim},
        }
        for name, figures in measured.items()
        for figure in figures
    ]  # fmt: skip
    return {"machine": dict(machine), "figures": rows}
