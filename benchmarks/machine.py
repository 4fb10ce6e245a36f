"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import resource
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


def peak_mb() -> float:
    """The most memory that this process had. Not by `getrusage` on Linux: a child inherits the peak of the one that started it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024)  # there in bytes
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
