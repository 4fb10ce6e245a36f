"""What `agentkit doctor` asks the machine. On systems without /proc the answers are empty, never wrong."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Mount(NamedTuple):
    point: str
    kind: str


class Holder(NamedTuple):
    """A process that has a file open. `state` as /proc says: R, S, D, T (stopped), t (traced), Z."""

    pid: int
    command: str
    state: str


def installed(name: str) -> str | None:
    """The version of a distribution, None when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def free_bytes(path: Path) -> int:
    """Free bytes where `path` is, or would be."""
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(there).free


def mounts(table: Path = PROC / "mounts") -> list[Mount]:
    """The mount table; a blank in a mount point is written as octal there."""
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return []
    return [Mount(_unescaped(point), kind) for _, point, kind, *_ in (line.split(" ") for line in lines if line.count(" ") >= 2)]


def _unescaped(name: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), name)


def holders(path: Path, proc: Path = PROC) -> list[Holder]:
    """Processes that have this file (or its -wal or -shm) open, as far as we may look."""
    names = {f"{path.resolve()}{suffix}" for suffix in ("", "-wal", "-shm")}
    return [holder for folder in _processes(proc) if (holder := _holder(folder, names)) is not None]


def _processes(proc: Path) -> Iterator[Path]:
    if proc.is_dir():
        yield from (folder for folder in proc.iterdir() if folder.name.isdigit())


def _holder(folder: Path, names: set[str]) -> Holder | None:
    """None when it has none of them open, has just ended, or is somebody else's."""
    try:
        if not any(str(link.readlink()) in names for link in (folder / "fd").iterdir()):
            return None
        before, _, after = (folder / "stat").read_text().rpartition(")")
    except OSError:
        return None
    return Holder(int(folder.name), before.partition("(")[2], after.split()[0])
