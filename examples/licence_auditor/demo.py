"""Two workers audit an environment, one of them is killed with -9 in the middle, and nothing is lost or done twice.

``python -m examples.licence_auditor.demo`` (or ``make demo``). Exit status 0 only if the proof holds.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import anyio
from anyio.abc import Process, TaskGroup

from agentkit import Progress, RunHandle, Runtime, StatusChanged
from examples.licence_auditor import inventory, proof, report, trail
from examples.licence_auditor.agents import AuditDistribution, AuditEnvironment, AuditRequest
from examples.licence_auditor.board import Board, on_screen
from examples.licence_auditor.models import Doing, Finding, Line, Report
from examples.licence_auditor.policy import DEFAULT, load

RUN_ID = "audit"
LOOK_S = 0.2  # how often the demo looks for news; a person does not see faster
CONCURRENCY = 4  # of each worker, so that a kill finds several audits in the middle
JOURNAL_RESULT = 1  # journal.kind of a step's result


class Options(argparse.Namespace):
    """What the command line said."""

    python: str | None
    directory: Path
    pause_s: float
    limit_s: float


class Files:
    """Where the demo keeps everything it makes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.state = self.directory / "audit.db"
        self.trail = self.directory / "trail.jsonl"
        self.html = self.directory / "report.html"

    def prepare(self) -> None:
        """Start from nothing."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"sqlite:///{self.state}"


def options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="demo", description="Audit with two workers, kill one, show that nothing was lost or done twice.")
    parser.add_argument("--python", metavar="PATH", help="an interpreter or a site-packages directory (default: the environment running)")
    parser.add_argument("--directory", type=Path, default=Path(".demo"), help="where to keep database, trail, logs and page; emptied first")
    parser.add_argument("--pause-s", type=float, default=0.15, help="how long each step is made to take, to be watched (default 0.15)")
    parser.add_argument("--limit-s", type=float, default=120.0, help="give up after so long (default 120)")
    return parser.parse_args(arguments, Options())


@asynccontextmanager
async def crew(names: Sequence[str], files: Files, pause_s: float) -> AsyncGenerator[dict[str, Process]]:
    """Worker processes by name, each started as one would by hand, its output in a log file. Whoever is left over is killed."""
    program = str(Path(sys.executable).with_name("agentkit"))
    command = [program, "worker", "examples.licence_auditor.app:runtime", "--concurrency", str(CONCURRENCY)]
    started: dict[str, Process] = {}
    try:
        for name in names:
            settings = {
                "AGENTKIT_STATE": files.url,
                "LICENCE_AUDIT_TRAIL": str(files.trail),
                "LICENCE_AUDIT_WORKER": name,
                "LICENCE_AUDIT_PAUSE_S": str(pause_s),
                "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))),
            }
            with (files.directory / f"{name.replace(' ', '-')}.log").open("wb") as log:
                process = await anyio.open_process(
                    command, env={**os.environ, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            started[name] = process
        yield started
    finally:
        for process in started.values():
            if process.returncode is None:
                process.kill()


async def watch(runtime: Runtime, board: Board) -> None:
    """Follow every audit from the moment it is seen, until cancelled."""
    followed: set[str] = set()
    async with anyio.create_task_group() as group:
        while True:
            async for info in runtime.runs(agent=AuditDistribution):
                if info.run_id not in followed and info.status != "queued":
                    followed.add(info.run_id)
                    group.start_soon(follow, runtime.handle(info.run_id, AuditDistribution), board)
            await anyio.sleep(LOOK_S)


async def follow(handle: RunHandle[Finding], board: Board) -> None:
    """Put one audit on the board, from its durable events, until it ends; who works on it may change on the way."""
    distribution = handle.run_id
    async for event in handle.events():
        if isinstance(event, Progress):
            doing = Doing.model_validate(event.data)
            distribution = doing.distribution
            board.doing(doing)
        elif isinstance(event, StatusChanged) and event.status == "running":
            board.moved(distribution)
        elif isinstance(event, StatusChanged) and event.status != "waiting":
            board.finished(distribution)


async def kill_one(workers: dict[str, Process], files: Files, board: Board) -> proof.Killed:
    """Wait until a third is audited, kill -9 the worker that is in the middle of most, and note what is durable at that moment."""
    while True:
        lines = trail.read(files.trail)
        victim = max(workers, key=lambda name: len(proof.half_done(lines, name)))
        if 3 * sum(line.what == "signed" for line in lines) >= board.total and proof.half_done(lines, victim):
            break
        await anyio.sleep(LOOK_S / 4)
    workers[victim].send_signal(signal.SIGKILL)
    await workers[victim].wait()
    # First the journal, then the trail: a step that the trail knows only later began after its result was seen durable.
    durable = durable_steps(files.state)
    lines = trail.read(files.trail)
    hands = len(proof.in_hand(lines, victim))
    board.worker(victim, f"killed with -9, {hands} audits in hand; they are taken over after one lease without a sign of life")
    return proof.Killed(worker=victim, durable=durable, lines=len(lines))


def durable_steps(database: Path) -> frozenset[proof.Step]:
    """The steps whose result is in the journal, read from outside with plain sqlite3, so that nobody vouches for himself."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT run_id, journal.key FROM journal JOIN runs ON no = run_no WHERE journal.kind = ?", (JOURNAL_RESULT,)
        ).fetchall()
    finally:
        connection.close()
    return frozenset(proof.Step(run, key.partition("#")[0]) for run, key in rows)


@asynccontextmanager
async def watching(runtime: Runtime, board: Board) -> AsyncGenerator[TaskGroup]:
    """Follow the audits for as long as the block lasts."""
    async with anyio.create_task_group() as group:
        group.start_soon(watch, runtime, board)
        yield group
        group.cancel_scope.cancel()


async def tell_silence(board: Board, killed: proof.Killed) -> None:
    """Count the seconds that the dead worker has been silent, until the first of its runs is taken over."""
    since = monotonic()
    while not board.taken_over:
        await anyio.sleep(1)
        board.silent(killed.worker, round(monotonic() - since))
    board.workers[killed.worker] = "killed, its runs are taken over"


class Played(NamedTuple):
    """How it went: the report, the state at the kill, the runs claimed more than once, and what was not as it should be."""

    result: Report
    killed: proof.Killed
    again: list[str]
    faults: list[str]


async def leave(workers: dict[str, Process], killed: proof.Killed) -> list[str]:
    """Ask the survivors to leave, as a deployment does, and say who did not leave in order."""
    faults: list[str] = []
    for name, process in workers.items():
        if name != killed.worker:
            process.send_signal(signal.SIGTERM)
            status = await process.wait()
            faults += [f"{name} left with status {status} after SIGTERM"] if status else []
    return faults


async def play(chosen: Options, files: Files, request: AuditRequest, total: int) -> Played:
    """Submit, watch, kill, wait for the report, let the survivor leave."""
    board = Board(total)
    async with Runtime(state=files.url, agents=[AuditEnvironment, AuditDistribution]) as runtime:
        handle = await runtime.submit(AuditEnvironment, request, run_id=RUN_ID)
        with on_screen(board):
            async with crew(["worker 1", "worker 2"], files, chosen.pause_s) as workers, watching(runtime, board) as group:
                for name, process in workers.items():
                    board.worker(name, f"process {process.pid}")
                killed = await kill_one(workers, files, board)
                group.start_soon(tell_silence, board, killed)
                result = await handle.result()
                await board.complete()
                faults = await leave(workers, killed)
        # A child is claimed once, unless its worker died: it waits for nobody.
        again = [info.run_id async for info in runtime.runs(agent=AuditDistribution) if info.attempts > 1]
    return Played(result, killed, again, faults)


def show_proof(lines: Sequence[Line], played: Played, faults: Sequence[str]) -> None:
    """What the play shows, in words."""
    killed = played.killed
    print(f"\n{killed.worker} was killed with -9 when {len(killed.durable)} steps were durable. Taken over from it:")
    for one in proof.taken_over(lines, played.again):
        print(f"  {one}")
    print()
    if faults:
        print("The proof FAILS:\n" + "\n".join(f"  {fault}" for fault in faults))
        return
    signed = sum(line.what == "signed" for line in lines)
    print(f"{signed} distributions, {signed} signatures in the trail: each was audited exactly once.")
    print(f"{len(killed.durable)} steps had a durable result when the worker died: none of them was begun again.")


async def main(arguments: Sequence[str]) -> int:
    """The demo; the exit status is the answer."""
    chosen = options(arguments)
    files = Files(chosen.directory)
    files.prepare()
    logging.basicConfig(filename=files.directory / "demo.log")
    path = inventory.search_path(chosen.python)
    names = [one.name for one in inventory.distributions(path)]
    request = AuditRequest(environment=chosen.python or sys.prefix, path=tuple(path), policy=load(DEFAULT), html=str(files.html))
    print(f"Auditing {len(names)} distributions of {request.environment}.")
    print(f"Each step is made to take {chosen.pause_s:g} s, so that one can watch; everything else is real.\n")
    try:
        with anyio.fail_after(chosen.limit_s):
            played = await play(chosen, files, request, len(names))
    except TimeoutError:
        print(f"no report within {chosen.limit_s:g} s; the workers' logs are in {files.directory}", file=sys.stderr)
        return 2
    lines = trail.read(files.trail)
    reported = [one.finding.distribution.name for one in played.result.judgements]
    faults = played.faults + proof.faults(lines, played.killed, names, reported)
    faults += [] if played.again else ["no run was taken over, so nothing was shown"]
    print()
    report.show(played.result, sys.stdout)
    show_proof(lines, played, faults)
    print(f"\nThe page with every proof: {files.html}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(anyio.run(partial(main, sys.argv[1:])))
