"""`python -m benchmarks [--quick] [--json FILE] [--only NAME] [--profile]`."""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import pstats
import shutil
import sys
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.status import Status

from benchmarks import machine, table
from benchmarks.figures import Bench, Figure, Row
from benchmarks.rows.checkpoint import JitterRow, LockStepRow, OneAtATimeRow
from benchmarks.rows.cpu import CpuRow
from benchmarks.rows.history import GrowingRow
from benchmarks.rows.latency import LatencyRow
from benchmarks.rows.process import ImportRow, MemoryRow
from benchmarks.rows.queue import QueueRow, RunsRow
from benchmarks.rows.redis_queue import RedisQueueRow
from benchmarks.rows.resilience import ResilienceRow
from benchmarks.rows.servers import SERVER_ROWS
from benchmarks.rows.sql_queue import SQL_QUEUE_ROWS

ROWS: tuple[Row, ...] = (
    LockStepRow(), JitterRow(), OneAtATimeRow(), GrowingRow(), CpuRow(), ResilienceRow(), QueueRow(), RunsRow(), LatencyRow(),
    ImportRow(), MemoryRow(), *SERVER_ROWS, RedisQueueRow(), *SQL_QUEUE_ROWS,
)  # fmt: skip
FOLDER = Path(".bench")  # on the disk of the checkout: a folder for temporary files may be in memory, where a sync costs nothing


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Our figures beside their raw limits, in one run.")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works, not how fast it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    parser.add_argument("--only", action="append", metavar="NAME", choices=[row.name for row in ROWS], help="this row (may be repeated)")
    parser.add_argument("--profile", action="store_true", help="print where the event loop's thread spends its time, row by row")
    return parser.parse_args(argv)


def measure(row: Row, bench: Bench, *, profile: bool) -> list[Figure]:
    if not profile:
        return row.measure(bench)
    profiler = cProfile.Profile()
    figures = profiler.runcall(row.measure, bench)
    print(f"\n{row.name}")
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
    return figures


def say(status: Status, row: Row, text: str) -> None:
    status.update(f"{row.name}: {text}")


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 when a figure is no number. A missed bar is printed, not punished: machines that are busy miss bars."""
    options = arguments(argv)
    console = Console(width=None if sys.stdout.isatty() else 190)
    chosen = [row for row in ROWS if not options.only or row.name in options.only]
    folder = FOLDER / "files"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    measured: dict[str, list[Figure]] = {}
    try:
        with console.status("") as status:
            for row in chosen:
                here = folder / row.name
                here.mkdir()
                bench = Bench(here, quick=options.quick, say=partial(say, status, row))
                measured[row.name] = measure(row, bench, profile=options.profile)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    about = machine.describe()
    table.show(console, about, measured)
    if options.json is not None:
        options.json.write_text(json.dumps(table.as_json(about, measured), indent=2) + "\n")
    return 0 if all(math.isfinite(figure.value) for figures in measured.values() for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
