"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path


def cpu_name() -> str:
    """The processor as its maker calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe() -> dict[str, str]:
    """Name and value of everything that explains an absolute number."""
    return {
        "cpu": cpu_name(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "load": " ".join(f"{part:.2f}" for part in os.getloadavg()),
    }
