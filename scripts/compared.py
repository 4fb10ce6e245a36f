#!/usr/bin/env python3
"""Draw what `make bench-peers ARGS="--json FILE"` measured: a panel for each piece of work, a bar for each who did it."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

WIDTH, NAMES, BARS = 900, 250, 480
ROW, HEAD, GAP = 22, 30, 16
OURS, THEIRS, LIMIT, TEXT = "#2563eb", "#94a3b8", "#cbd5e1", "#64748b"  # each is seen on white as on black
RAW = "raw"


def rows_of(answers: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, float]]:
    """Who took part, by which name, and the median of the rates; the quickest first."""
    found = [(who, said["title"], [one["rate"] for one in said["figures"]]) for who, said in answers.items()]
    return sorted(((who, name, statistics.median(rates)) for who, name, rates in found if rates), key=lambda row: -row[2])


def panel(title: str, rows: list[tuple[str, str, float]], top: int) -> Iterator[str]:
    """The bars of one piece of work."""
    yield f'<text x="0" y="{top + 16}" fill="{TEXT}" font-weight="bold">{escape(title)}</text>'
    most = max(rate for _, _, rate in rows)
    for number, (who, name, rate) in enumerate(rows):
        y, long = top + HEAD + number * ROW, max(1.0, BARS * rate / most)
        colour = LIMIT if who == RAW else OURS if name.startswith("agentkit") else THEIRS
        yield f'<text x="{NAMES - 8}" y="{y + 13}" fill="{TEXT}" text-anchor="end">{escape(name.partition(" (on")[0])}</text>'
        yield f'<rect x="{NAMES}" y="{y}" width="{long:.1f}" height="{ROW - 5}" rx="2" fill="{colour}"/>'
        yield f'<text x="{NAMES + long + 6:.1f}" y="{y + 13}" fill="{TEXT}">{rate:,.0f} a second</text>'


def picture(kept: Mapping[str, Any]) -> str:
    """The whole picture as SVG."""
    shapes: list[str] = []
    top = 0
    for title, answers in kept["peers"].items():
        rows = rows_of(answers)
        if not rows:  # nobody could be run
            continue
        shapes += panel(title, rows, top)
        top += HEAD + len(rows) * ROW + GAP
    about = ", ".join(f"{name} {value}" for name, value in kept["machine"].items() if name != "load")
    shapes.append(f'<text x="0" y="{top + 10}" fill="{TEXT}" font-size="11">medians by turns in one run; {escape(about)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 20}" font-family="system-ui, sans-serif" font-size="13">'
    return "\n".join([head, *shapes, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw what the other libraries take for the same work.")
    parser.add_argument("figures", type=Path, help='written by make bench-peers ARGS="--json FILE"')
    parser.add_argument("svg", type=Path, help="where the picture goes, e.g. docs/explanation/compared.svg")
    options = parser.parse_args()
    try:
        kept = json.loads(options.figures.read_text())
        drawn = picture(kept)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        parser.error(f'{options.figures} holds no figures ({exc!r}): make them by make bench-peers ARGS="--json {options.figures}"')
    options.svg.write_text(drawn)


if __name__ == "__main__":
    main()
