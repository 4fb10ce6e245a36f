"""A run's journal as bars on one time axis: what ran when, where it waited, and where another claim went on.

All of it is pure: entries in, data out, then data in, lines of characters out.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import Any, Literal, NamedTuple, cast

from agentkit.ports.records import TOLD, Entry, EntryKind

Kind = Literal["step", "effect", "wait", "children", "signal", "state", "cancel"]
Outcome = Literal["ok", "error", "open", "unknown", "void"]

_OPENING: dict[int, Kind] = {EntryKind.INTENT: "effect", EntryKind.TIMER: "wait", EntryKind.CHILD: "children", EntryKind.APPROVAL: "wait"}
_POINT: dict[int, Kind] = {EntryKind.SNAPSHOT: "state", EntryKind.CANCEL: "cancel"}
GAP_CELLS = 3  # what a long silence is cut to: enough to see that something is left out
LONG_GAP = 0.25  # of the busy time: shorter silences are drawn to scale


@dataclass(slots=True)
class Bar:
    """One key of the journal. Times are milliseconds since 1970 by the clocks of the writers."""

    key: str
    kind: Kind
    start_ms: float
    end_ms: float
    outcome: Outcome = "open"
    attempts: int = 1
    fences: list[int] = field(default_factory=list[int])
    took_us: int = 0
    note: str = ""

    @property
    def waits(self) -> bool:
        return self.kind in {"wait", "children", "signal"}


class Activation(NamedTuple):
    """What one claim did, from its first entry to its last."""

    fence: int
    start_ms: float
    end_ms: float
    worker: str = ""
    left: str = ""
    """How it let go: `waiting`, `queued` (a drain), or the end of the run. Empty: it still runs, or its worker died."""
    waited_for: str = ""


class Timeline(NamedTuple):
    bars: list[Bar]
    activations: list[Activation]
    progress: int
    """How many progress events the steps sent."""


def timeline(entries: Sequence[Entry]) -> Timeline:
    """Bars in the order in which their keys appeared, and the claims that wrote them."""
    bars: dict[str, Bar] = {}
    activations: list[Activation] = []
    for entry in entries:
        began_ms = entry.at_ms - entry.took_us / 1000
        _extend(activations, entry, began_ms)
        if entry.kind == EntryKind.SIGNAL:
            began_ms = _parked_at(activations, entry)
        if entry.kind not in TOLD:
            _note(bars, entry, began_ms)
    return Timeline(_nested(list(bars.values())), activations, sum(entry.kind == EntryKind.PROGRESS for entry in entries))


def _nested(bars: list[Bar]) -> list[Bar]:
    """A step before the steps inside it, although it ends after them."""
    roots: dict[str, int] = {}
    for bar in bars:
        roots.setdefault(bar.key.partition("/")[0], len(roots))
    return sorted(bars, key=lambda bar: (roots[bar.key.partition("/")[0]], bar.start_ms, bar.key.count("/")))


def _extend(activations: list[Activation], entry: Entry, began_ms: float) -> None:
    if not activations or activations[-1].fence != entry.fence:
        activations.append(Activation(entry.fence, began_ms, entry.at_ms))
    last = activations[-1]
    said = fields_of(entry) if entry.kind == EntryKind.STATUS else {}
    if said.get("status") == "running":
        last = last._replace(worker=str(said.get("worker", "")))
    elif said:
        last = last._replace(left=str(said.get("status", "")), waited_for=str(said.get("for", "")))
    activations[-1] = last._replace(end_ms=max(last.end_ms, entry.at_ms))


def _parked_at(activations: Sequence[Activation], entry: Entry) -> float:
    """When the run began to wait for a message: at its last park, if there was one. What a run that did not park waited is not written."""
    parked = [activation.end_ms for activation in activations[:-1] if activation.left == "waiting"]
    return parked[-1] if parked else entry.at_ms


def _note(bars: dict[str, Bar], entry: Entry, began_ms: float) -> None:
    key = f"{entry.key} ({entry.seq})" if entry.kind in _POINT else entry.key
    kind = _POINT.get(entry.kind) or _OPENING.get(entry.kind) or ("signal" if entry.kind == EntryKind.SIGNAL else "step")
    bar = bars.setdefault(key, Bar(key, kind, began_ms, entry.at_ms))
    bar.start_ms, bar.end_ms = min(bar.start_ms, began_ms), max(bar.end_ms, entry.at_ms)
    bar.attempts = max(bar.attempts, entry.attempt)
    bar.took_us += entry.took_us
    if entry.fence not in bar.fences:
        bar.fences.append(entry.fence)
    bar.outcome, bar.note = _outcome(entry)


def _outcome(entry: Entry) -> tuple[Outcome, str]:
    if entry.kind == EntryKind.ERROR:
        said = fields_of(entry)
        return "error", f"{said.get('kind', 'error')}: {said.get('message', '')}"
    if entry.kind == EntryKind.INTENT:
        return "unknown", "an effect without an outcome yet"
    if entry.kind == EntryKind.VOID:
        return "void", "not started after all"
    if entry.kind == EntryKind.CANCEL:
        return "error", str(fields_of(entry).get("reason", ""))
    return ("open" if entry.kind in _OPENING else "ok"), ""


def fields_of(entry: Entry) -> dict[str, Any]:
    """The stored object of an entry that the runtime wrote; empty where it is none."""
    try:
        found: object = json.loads(zlib.decompress(entry.body) if entry.codec == 1 else entry.body)
    except (ValueError, zlib.error):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


class Segment(NamedTuple):
    """A stretch of time and the cells it is drawn in. A cut one is a silence that is not to scale."""

    start_ms: float
    end_ms: float
    cell: float
    cells: float
    cut: bool


class Axis(NamedTuple):
    segments: list[Segment]
    width: int

    def at(self, ms: float) -> float:
        """The place of a moment, in cells from the left."""
        for segment in self.segments:
            if ms <= segment.end_ms:
                length = segment.end_ms - segment.start_ms
                return segment.cell + segment.cells * max(0.0, ms - segment.start_ms) / length if length else segment.cell
        return float(self.width)


def axis(found: Timeline, width: int) -> Axis:
    """A time axis of `width` cells on which long silences (parks, a dead worker's lease) are cut short."""
    clusters = _clusters([(bar.start_ms, bar.end_ms) for bar in found.bars if not bar.waits] + _edges(found))
    busy_ms = max(1.0, sum(end - start for start, end in clusters))
    silences = sorted(((b[0] - a[1], a[1]) for a, b in pairwise(clusters)), reverse=True)
    cut = {start for length, start in silences[: width // (3 * GAP_CELLS)] if length > LONG_GAP * busy_ms}
    spans = _spans(clusters, cut)
    to_scale_ms = max(1e-9, sum(end - start for start, end, is_cut in spans if not is_cut))
    per_ms = (width - GAP_CELLS * len(cut)) / to_scale_ms
    segments: list[Segment] = []
    cell = 0.0
    for start, end, is_cut in spans:
        cells = float(GAP_CELLS) if is_cut else (end - start) * per_ms
        segments.append(Segment(start, end, cell, cells, is_cut))
        cell += cells
    return Axis(segments, width)


def _edges(found: Timeline) -> list[tuple[float, float]]:
    """Both ends of a wait are moments at which something happened."""
    return [(ms, ms) for bar in found.bars if bar.waits for ms in (bar.start_ms, bar.end_ms)]


def _clusters(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _spans(clusters: list[tuple[float, float]], cut: set[float]) -> list[tuple[float, float, bool]]:
    """The whole axis: stretches to scale, and between them the silences to be cut."""
    spans: list[tuple[float, float, bool]] = []
    since = clusters[0][0] if clusters else 0.0
    for (_, end), (begin, _) in pairwise(clusters):
        if end in cut:
            spans += [(since, end, False), (end, begin, True)]
            since = begin
    return [*spans, (since, clusters[-1][1], False)] if clusters else []


class Glyphs(NamedTuple):
    """What bars are drawn with."""

    body: str
    wait: str
    point: str
    claim: str
    cut: str


UNICODE = Glyphs("█", "░", "◆", "│", "┊")
ASCII = Glyphs("#", "-", "*", "|", ":")


def line(bar: Bar, scale: Axis, activations: Sequence[Activation], glyphs: Glyphs) -> str:
    """One bar as `scale.width` characters: the bar over the marks of later claims and of cut silences."""
    cells = [" "] * scale.width
    last = scale.width - 1
    for segment in scale.segments:
        if segment.cut:
            cells[min(last, int(segment.cell + segment.cells / 2))] = glyphs.cut
    for activation in activations[1:]:
        cells[min(last, int(scale.at(activation.start_ms)))] = glyphs.claim
    start = min(last, int(scale.at(bar.start_ms)))
    stop = min(scale.width, max(start + 1, ceil(scale.at(bar.end_ms) - 0.5)))
    glyph = glyphs.point if bar.kind in {"state", "cancel"} else glyphs.wait if bar.waits else glyphs.body
    for i in range(start, stop):
        cells[i] = glyph
    return "".join(cells)
