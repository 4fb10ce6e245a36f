"""Runs as people and machines want to see them. Pure: data in, tables and plain dictionaries out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from agentkit.cli.style import Cell, coloured, facts, human, table
from agentkit.cli.timeline import ASCII, UNICODE, Activation, Bar, Timeline, axis, line
from agentkit.runtime.events import PUBLIC

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from agentkit.ports.messages import Usage
    from agentkit.ports.records import Run
    from agentkit.runtime.events import RunEvent
    from agentkit.runtime.handle import RunInfo

OUTCOME_COLOURS = {"ok": "green", "error": "red", "open": "yellow", "unknown": "bold red", "void": "dim"}
EVENT_COLOURS = {"failed": "red", "retrying": "yellow", "buried": "bold red", "done": "green"}


def run_data(info: RunInfo) -> dict[str, object]:
    """One run for machines. Keys are only ever added."""
    return info.model_dump(mode="json")


def runs_table(infos: Iterable[RunInfo], now: datetime) -> Table:
    rows: list[Sequence[Cell]] = [
        (
            info.run_id,
            f"{info.agent}@{info.version}",
            coloured(info.status),
            info.waiting_for or "",
            info.tenant,
            str(info.attempts),
            human((now - info.created_at).total_seconds()),
            human((now - info.updated_at).total_seconds()),
            info.error or "",
        )
        for info in infos
    ]
    return table(
        ("RUN", "AGENT", "STATUS", "WAITING FOR", "TENANT", "CLAIMS", "AGE", "IDLE", "ERROR"), rows, numbers=("CLAIMS", "AGE", "IDLE")
    )


def children_data(children: Iterable[Run]) -> dict[str, int]:
    """How many children are in which state, `total` first."""
    counted = Counter(PUBLIC[child.status] for child in children)
    return {"total": counted.total(), **dict(sorted(counted.items()))}


def show_data(info: RunInfo, found: Timeline, children: dict[str, int], usage: Usage) -> dict[str, object]:
    """All that is shown. `usage`: with everything below the run; its own stands in `run`."""
    return {
        "run": run_data(info),
        "steps": [step_data(bar) for bar in found.bars],
        "activations": [activation._asdict() for activation in found.activations],
        "children": children,
        "usage": usage.model_dump(mode="json"),
        "progress_events": found.progress,
    }


def step_data(bar: Bar) -> dict[str, object]:
    return {
        "key": bar.key, "kind": bar.kind, "outcome": bar.outcome, "attempts": bar.attempts, "claims": bar.fences,
        "start_ms": bar.start_ms, "end_ms": bar.end_ms, "took_us": bar.took_us, "note": bar.note,
    }  # fmt: skip


def show_parts(
    info: RunInfo, found: Timeline, children: dict[str, int], usage: Usage, *, width: int, unicode: bool
) -> list[RenderableType]:
    """The run's facts, its steps as bars on one axis, and the story of its claims."""
    parts: list[RenderableType] = [_head(info, children, usage)]
    if found.bars:
        parts += [Text(), _steps(found, width, unicode=unicode)]
    if len(found.activations) > 1:
        parts += [Text(), Group(*claim_lines(found.activations))]
    return parts


def _head(info: RunInfo, children: dict[str, int], usage: Usage) -> Table:
    by_status = ", ".join(f"{count} {status}" for status, count in children.items() if status != "total")
    return facts({
        "run": info.run_id,
        "agent": f"{info.agent}@{info.version}",
        "status": coloured(info.status),
        "waiting for": info.waiting_for or "",
        "tenant": info.tenant,
        "parent": info.parent_id or "",
        "crashes": str(info.crashes or ""),
        "children": f"{children['total']}: {by_status}" if children.get("total") else "",
        "spent": spent(info.usage),
        "with children": spent(usage) if usage != info.usage else "",
        "created": info.created_at.isoformat(sep=" ", timespec="seconds"),
        "updated": info.updated_at.isoformat(sep=" ", timespec="seconds"),
        "error": Text(info.error or "", style="red"),
    })  # fmt: skip


def spent(usage: Usage) -> str:
    """`1,204 tokens read, 96 written, $0.0021`; nothing where no model was called."""
    if not (usage.input_tokens or usage.output_tokens or usage.usd):
        return ""
    cost = f", ${usage.usd:.6f}".rstrip("0").rstrip(".") if usage.usd else ""
    return f"{usage.input_tokens:,} tokens read, {usage.output_tokens:,} written{cost}"


def _steps(found: Timeline, width: int, *, unicode: bool) -> Table:
    labels = labelled([bar.key for bar in found.bars])
    cells = max(20, min(100, width - min(max(map(len, labels)), 50) - 40))
    scale, glyphs = axis(found, cells), UNICODE if unicode else ASCII
    rows: list[Sequence[Cell]] = [
        (
            label,
            Text(line(bar, scale, found.activations, glyphs), style=OUTCOME_COLOURS[bar.outcome]),
            human((bar.end_ms - bar.start_ms) / 1000 if bar.waits or not bar.took_us else bar.took_us / 1e6),
            str(bar.attempts) if bar.attempts > 1 and not bar.waits else "",
            _remark(bar),
        )
        for label, bar in zip(labels, found.bars, strict=True)
    ]
    return table(("STEP", "", "TOOK", "TRIES", ""), rows, numbers=("TOOK", "TRIES"))


def labelled(keys: Sequence[str]) -> list[str]:
    """`a#1`, `a#1/b#1` as `a#1`, `  b#1`: a step inside another stands below it; a branch, which is no step, stays in the name."""
    labels: dict[str, str] = {}
    for key in keys:
        parts = key.split("/")
        around = ["/".join(parts[:i]) for i in range(1, len(parts)) if "/".join(parts[:i]) in labels]
        labels[key] = "  " * len(around) + (key.removeprefix(around[-1] + "/") if around else key)
    return [labels[key] for key in keys]


def _remark(bar: Bar) -> Text:
    said = bar.note or {"open": "waiting" if bar.waits else "", "ok": ""}.get(bar.outcome, bar.outcome)
    return Text(said, style=OUTCOME_COLOURS[bar.outcome] if bar.outcome != "ok" else "")


def claim_lines(activations: Sequence[Activation]) -> list[Text]:
    """`claim 2  taken over 3.1 s after the last entry of claim 1, worked 40 ms, then waiting for timer:sleep#1`."""
    first = activations[0]
    lines = [Text(f"claim {first.fence}  {_worked(first)}", style="dim")]
    return lines + [_went_on(before, after) for before, after in pairwise(activations)]


def _worked(activation: Activation) -> str:
    left = f", then {activation.left}" if activation.left else ""
    return f"worked {human((activation.end_ms - activation.start_ms) / 1000)}{left}" + f" for {activation.waited_for}" * bool(
        activation.waited_for
    )


def _went_on(before: Activation, after: Activation) -> Text:
    silent = human(max(0.0, after.start_ms - before.end_ms) / 1000)
    if before.left:
        return Text(f"claim {after.fence}  after {silent}, {_worked(after)}", style="dim")
    by = f" by worker {after.worker[:12]}" if after.worker else ""
    return Text(
        f"claim {after.fence}  taken over{by} {silent} after the last entry of claim {before.fence}, {_worked(after)}", style="yellow"
    )


def _in_one_line(value: object) -> str:
    said = str(value)
    return said if said.isprintable() else repr(said)


def event_line(event: RunEvent) -> Text:
    """An event for people: when, what, and its offset to resume from."""
    data = event.model_dump(mode="json", exclude={"offset", "at", "run_id", "type", "position"})
    if "attempt" in data:
        data["attempt"] = f"attempt {data['attempt']}" if data["attempt"] > 1 else None
    said = "  ".join(_in_one_line(value) for value in data.values() if value not in ("", None))
    shade = EVENT_COLOURS.get(str(data.get("phase") or data.get("status")), "")
    when = f"{event.at:%H:%M:%S}.{event.at.microsecond // 1000:03d} {event.offset:>6}  "
    return Text.assemble((when, "dim"), (f"{event.type:<9}", "bold"), (said, shade))
