"""What `agentkit doctor` makes of what it found. Pure: facts in, findings out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from agentkit.ports.records import Finding

if TYPE_CHECKING:
    from agentkit.cli.host import Holder, Mount

# Locks of these do not hold between machines, or only on some servers: two processes then write one file at a time.
NETWORK_FILE_SYSTEMS = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "ncpfs", "fuse.sshfs",
    "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse",
})  # fmt: skip
WAL_RESET_FIXED = (3, 51, 3)
LOW_DISK_BYTES, NO_DISK_BYTES = 1_000_000_000, 50_000_000
NEWEST_TESTED = (3, 13)


class Worker(NamedTuple):
    """A registration in the store, and whether its heart beat while we looked."""

    worker_id: str
    kinds: frozenset[str]
    host: str
    beating: bool


def python(version: tuple[int, int]) -> Finding:
    name = f"{version[0]}.{version[1]}"
    if version > NEWEST_TESTED:
        newest = f"{NEWEST_TESTED[0]}.{NEWEST_TESTED[1]}"
        return Finding("note", "python", f"{name} is newer than what this agentkit is tested with ({newest})")
    return Finding("ok", "python", name)


def namesake(version: str | None) -> list[Finding]:
    """The index has an unrelated distribution whose import package is called like ours."""
    if version is None:
        return []
    says = f"an unrelated distribution named 'agentkit' ({version}) is installed here and writes into the same folder"
    return [Finding("fail", "packages", says, "pip uninstall agentkit, then pip install --force-reinstall agentkit-async")]


def sqlite(version: str) -> Finding:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if numbers < WAL_RESET_FIXED:
        says = f"SQLite {version}: before 3.51.3 two connections that checkpoint at the same moment can lose a write (the WAL-reset bug)"
        return Finding("warn", "sqlite", says, "use a Python built with SQLite 3.51.3 or later, and one process that checkpoints")
    return Finding("ok", "sqlite", f"SQLite {version}")


def file_system(path: str, mounts: Iterable[Mount]) -> Finding:
    """Whether the store's file lies where file locks can be trusted."""
    holding = [mount for mount in mounts if PurePosixPath(path).is_relative_to(mount.point)]
    if not holding:
        return Finding("note", "file system", f"cannot tell what {path} lies on")
    mount = max(holding, key=lambda found: len(found.point))
    if mount.kind in NETWORK_FILE_SYSTEMS:
        says = f"{path} lies on {mount.kind} ({mount.point}): its locks do not keep two machines apart"
        return Finding("fail", "file system", says, "move the file to a local disk, or use a database server")
    return Finding("ok", "file system", f"{mount.kind} at {mount.point}")


def disk(free_bytes: int, path: str) -> Finding:
    free = f"{free_bytes / 1e9:.1f} GB free at {path}"
    if free_bytes < NO_DISK_BYTES:
        return Finding("fail", "disk", free, "make room: without it no step can be written")
    if free_bytes < LOW_DISK_BYTES:
        return Finding("warn", "disk", free, "make room before it is full")
    return Finding("ok", "disk", free)


def stopped(holders: Iterable[Holder]) -> list[Finding]:
    """A stopped process that is inside a transaction keeps all others from writing."""
    return [
        Finding(
            "warn", "stopped process", f"process {h.pid} ({h.command}) is stopped and has the store open: it may hold the lock",
            f"kill -CONT {h.pid} to let it go on, or kill -9 {h.pid}: its runs are taken over",
        )
        for h in holders
        if h.state in {"T", "t"}
    ]  # fmt: skip


def workers(found: Sequence[Worker], waiting: Mapping[str, int], *, looked_s: float) -> list[Finding]:
    """Who is there, and what waits for nobody. `waiting` counts READY runs by `name@version`."""
    living = [worker for worker in found if worker.beating]
    findings: list[Finding] = []
    if living:
        findings.append(
            Finding("ok", "workers", "; ".join(f"{w.worker_id[:12]} on {w.host} serves {', '.join(sorted(w.kinds))}" for w in living))
        )
    silent = len(found) - len(living)
    if silent:
        findings.append(Finding("note", "workers", f"{silent} registered without a beat in {looked_s:g} s: stopped, dead or cut off"))
    served = {kind for worker in living for kind in worker.kinds}
    return findings + unserved(waiting, served, nobody=not living)


def unserved(waiting: Mapping[str, int], served: Collection[str], *, nobody: bool) -> list[Finding]:
    """The commonest hang: work that no live worker serves."""
    lost = {kind: count for kind, count in sorted(waiting.items()) if count and kind not in served}
    if not lost:
        return [Finding("note", "workers", "no live worker, and nothing waits for one")] if nobody else []
    return [
        Finding(
            "fail",
            "workers",
            f"no live worker serves {kind}: {count} wait for one",
            f"start one: agentkit worker app:runtime --only {kind}",
        )
        for kind, count in lost.items()
    ]


def dead_letters(dead: Mapping[str, int]) -> list[Finding]:
    return [
        Finding("warn", "queue", f"{count} dead letters of {kind}", f"agentkit queue dead --agent {kind.partition('@')[0]}")
        for kind, count in sorted(dead.items())
        if count
    ]


_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")


def shown(value: object) -> str:
    """A setting as it may be printed: without the password of a URL."""
    return _PASSWORD.sub(r"\1:***@", str(value))


class Setting(NamedTuple):
    """A setting in force, and where it comes from: `argument`, the name of a variable, or `default`."""

    name: str
    value: str
    source: str


def settings_in_force(values: Mapping[str, object], variables: Mapping[str, object], defaults: Mapping[str, object]) -> list[Setting]:
    """Each setting with its source. `variables` holds what the environment says, by setting; what neither it nor a default explains was an
    argument.
    """
    found: list[Setting] = []
    for name, value in values.items():
        if name in variables and variables[name] == value:
            source = f"AGENTKIT_{name.upper()}"
        else:
            source = "default" if value == defaults.get(name) else "argument"
        found.append(Setting(name, shown(value), source))
    return found
