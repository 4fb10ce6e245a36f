"""The report on the terminal: a table with colour where rich is installed and somebody looks, plain lines elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TextIO

from examples.licence_auditor import spdx
from examples.licence_auditor.models import Judgement, Report
from examples.licence_auditor.page import WORDS, order

COLUMNS = ("distribution", "version", "licence", "confidence", "verdict", "proof", "why")
COLOURS = {"allow": "green", "review": "yellow", "deny": "bold red"}
_WIDEST = 60  # of a column of plain text; the page has the rest


def show(report: Report, to: TextIO) -> None:
    """Print the table and the summary."""
    judgements = sorted(report.judgements, key=order)
    if to.isatty() and find_spec("rich"):
        _show_rich(report, judgements, to)
    else:
        print(plain(judgements), file=to)
    print(summary(report), file=to)


def summary(report: Report) -> str:
    """What came of it, in a line, and the notes."""
    counts = f"{len(report.having('allow'))} allowed, {len(report.having('review'))} for review, {len(report.having('deny'))} conflicts"
    return "\n".join([f"{len(report.judgements)} distributions under policy {report.policy}: {counts}", *report.notes])


def cells(judgement: Judgement) -> tuple[str, ...]:
    """One row of the table."""
    finding = judgement.finding
    return (
        finding.distribution.name,
        finding.distribution.version,
        finding.expression or "unknown",
        finding.confidence,
        WORDS[judgement.verdict],
        best_proof(judgement),
        "; ".join(filter(None, (judgement.exception, *(() if judgement.exception else judgement.reasons)))),
    )


def best_proof(judgement: Judgement) -> str:
    """The one passage to look at first: a text in a file of its own, else the declaration."""
    finding = judgement.finding
    named = [licence.id for licence in spdx.licences(spdx.parse(finding.expression))] if finding.expression else []
    own = [match for file in finding.files if not file.bundled for match in file.matches]
    fitting = [match.proof[0].place for match in own if any(spdx.same_text(name, match.spdx) for name in named)]
    return next(iter([*fitting, *(quote.place for quote in finding.declared.proof)]), "none")


def plain(judgements: list[Judgement]) -> str:
    """The table as text, columns aligned."""
    rows = [COLUMNS, *(tuple(_cut(cell) for cell in cells(judgement)) for judgement in judgements)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _cut(cell: str) -> str:
    return cell if len(cell) <= _WIDEST else cell[: _WIDEST - 1] + "…"


def _show_rich(report: Report, judgements: list[Judgement], to: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Licences of {report.environment}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for judgement in judgements:
        name, version, licence, confidence, verdict, proof, why = cells(judgement)
        table.add_row(name, version, licence, confidence, Text(verdict, COLOURS[judgement.verdict]), proof, Text(why))
    Console(file=to).print(table)
