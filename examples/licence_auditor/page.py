"""The report as one HTML file that needs nothing else: tiles, a chart, a table to search, the proof to unfold."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

from examples.licence_auditor.models import Judgement, Quote, Report, Verdict
from examples.licence_auditor.policy import severity

TEMPLATE = Path(__file__).with_name("page.html")
WORDS: dict[Verdict, str] = {"allow": "allowed", "review": "for review", "deny": "conflict"}
_ROW_HEIGHT = 24  # of the chart, in its own units; the drawing scales with the page
_LABEL_WIDTH = 270
_BAR_WIDTH = 620


def render(report: Report) -> str:
    """The whole page."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        environment=escape(report.environment),
        policy=escape(report.policy),
        at=f"{report.at:%Y-%m-%d %H:%M} UTC",
        tiles=_tiles(report),
        chart=_chart(report.judgements),
        rows="\n".join(_row(judgement) for judgement in sorted(report.judgements, key=order)),
        notes=f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "",
    )


def write(report: Report, path: Path) -> None:
    """Put the page at ``path``, whole or not at all, so that writing it twice is as good as once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.write_text(render(report), "utf-8")
    draft.replace(path)


def order(judgement: Judgement) -> tuple[int, str]:
    """Conflicts first, then what a person has to look at, then by name."""
    return ("deny", "review", "allow").index(judgement.verdict), judgement.finding.distribution.name.lower()


def proofs(judgement: Judgement) -> list[Quote]:
    """Every quoted line that speaks for the finding: the declaration, then the files."""
    finding = judgement.finding
    return [*finding.declared.proof, *(quote for file in finding.files for match in file.matches for quote in match.proof)]


def _tiles(report: Report) -> str:
    agreed = sum(judgement.finding.confidence == "agreed" for judgement in report.judgements)
    tiles = [
        (len(report.judgements), "distributions", ""),
        (len(report.having("allow")), "allowed", "allow"),
        (len(report.having("review")), "for review", "review"),
        (len(report.having("deny")), "conflicts", "deny"),
        (agreed, "declared and proven by a text", ""),
    ]
    return "".join(f'<div class="tile"><b class="{style}">{count}</b>{label}</div>' for count, label, style in tiles)


def _chart(judgements: Iterable[Judgement]) -> str:
    counts: dict[str, Counter[Verdict]] = {}
    for judgement in judgements:
        counts.setdefault(judgement.finding.expression or "unknown", Counter())[judgement.verdict] += 1
    if not counts:
        return "No distribution was found."
    ranked = sorted(counts.items(), key=lambda one: (-one[1].total(), one[0]))
    unit = _BAR_WIDTH / ranked[0][1].total()
    bars = [_bar(at * _ROW_HEIGHT, name, verdicts, unit) for at, (name, verdicts) in enumerate(ranked)]
    size = f"0 0 {_LABEL_WIDTH + _BAR_WIDTH + 50} {len(bars) * _ROW_HEIGHT}"
    return f'<svg viewBox="{size}" role="img" aria-label="Distributions per licence">{"".join(bars)}</svg>'


def _bar(top: int, name: str, verdicts: Counter[Verdict], unit: float) -> str:
    """One licence: a part for each verdict, the gravest first."""
    label = name if len(name) <= 38 else name[:37] + "…"
    parts, left = "", float(_LABEL_WIDTH)
    for verdict in sorted(verdicts, key=severity, reverse=True):
        width = max(2.0, unit * verdicts[verdict])
        parts += (
            f'<rect class="{verdict}" x="{left:.1f}" y="{top + 4}" width="{width:.1f}" height="{_ROW_HEIGHT - 8}" rx="2">'
            f"<title>{escape(name)}: {verdicts[verdict]} {WORDS[verdict]}</title></rect>"
        )
        left += width
    return (
        f'<text x="{_LABEL_WIDTH - 10}" y="{top + 16}" text-anchor="end">{escape(label)}</text>{parts}'
        f'<text x="{left + 8:.1f}" y="{top + 16}">{verdicts.total()}</text>'
    )


def _row(judgement: Judgement) -> str:
    finding = judgement.finding
    cells = (
        f"<td><b>{escape(finding.distribution.name)}</b></td>",
        f"<td>{escape(finding.distribution.version)}</td>",
        f"<td><code>{escape(finding.expression or 'unknown')}</code></td>",
        f"<td>{finding.confidence}</td>",
        f'<td class="verdict {judgement.verdict}">{WORDS[judgement.verdict]}</td>',
        f"<td>{_why(judgement)}{_proof(judgement)}</td>",
    )
    return f'<tr data-verdict="{judgement.verdict}">{"".join(cells)}</tr>'


def _why(judgement: Judgement) -> str:
    exception = [f"exception: {judgement.exception}"] if judgement.exception else []
    lines = [*exception, *judgement.reasons, *judgement.finding.notes]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _proof(judgement: Judgement) -> str:
    quotes = proofs(judgement)
    if not quotes:
        return '<span class="soft">no line found</span>'
    shown = "".join(f"<code>{escape(quote.place)}</code><pre>{escape(quote.text)}</pre>" for quote in quotes)
    count = f"{len(quotes)} passage{'' if len(quotes) == 1 else 's'} of proof"
    return f"<details><summary>{count}</summary>{shown}</details>"
