"""The audit trail: a file beside the database, to which every worker appends a line for each step begun and each audit signed.

It is the outside world of this example. A journal knows what was committed; a trail that is written step by step, and
never rewritten, knows what really ran, so the two can be held against each other (``proof.py``).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import sleep, to_thread
from pydantic import NonNegativeFloat, ValidationError

from agentkit import Done, StepContext
from examples.licence_auditor.models import Doing, Line, Model


class Trail(Model):
    """Where this process writes, under which name, and how long each step is made to take at least.

    ``pause_s`` is for watching only: a real audit of one distribution takes milliseconds.
    """

    path: Path
    worker: str
    pause_s: NonNegativeFloat = 0.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Trail:
        """Read ``LICENCE_AUDIT_TRAIL``, ``LICENCE_AUDIT_WORKER`` and ``LICENCE_AUDIT_PAUSE_S``."""
        return cls(
            path=Path(environ.get("LICENCE_AUDIT_TRAIL", ".licence-audit/trail.jsonl")),
            worker=environ.get("LICENCE_AUDIT_WORKER", f"process {os.getpid()}"),
            pause_s=float(environ.get("LICENCE_AUDIT_PAUSE_S", "0")),
        )

    @asynccontextmanager
    async def step(self, step: StepContext, name: str, distribution: str) -> AsyncGenerator[None]:
        """Around the body of a step: leave a line before it, tell who is at it, take a moment if asked to."""
        await self._append(Line(what="began", run=step.run_id, step=name, distribution=distribution, worker=self.worker))
        await step.progress(Doing(distribution=distribution, step=name, worker=self.worker))
        yield
        await sleep(self.pause_s)

    async def sign(self, step: StepContext, run: str, distribution: str) -> str:
        """Write that the audit of a distribution is complete; an effect that must happen once. Returns who signed."""
        async with self.step(step, "sign", distribution):
            await self._append(Line(what="signed", run=run, step="sign", distribution=distribution, worker=self.worker))
        return self.worker

    async def signed(self, run: str, distribution: str) -> Done[str] | None:
        """The probe of `sign`: after a crash in the middle of it, the file says whether it happened."""
        lines = await to_thread.run_sync(read, self.path)
        worker = next(
            (line.worker for line in lines if line.what == "signed" and (line.run, line.distribution) == (run, distribution)), None
        )
        return None if worker is None else Done(worker)

    async def _append(self, line: Line) -> None:
        await to_thread.run_sync(_append, self.path, line.model_dump_json() + "\n")


def _append(path: Path, text: str) -> None:
    # One write of a few hundred bytes under O_APPEND: lines of several processes never mix, and a kill leaves all or nothing.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def read(path: Path) -> list[Line]:
    """Every line of the trail, in the order written; no file is an empty trail."""
    if not path.exists():
        return []
    lines: list[Line] = []
    for text in path.read_text("utf-8").splitlines():
        try:
            lines.append(Line.model_validate_json(text))
        except ValidationError as exc:
            raise TrailUnreadable(path, text) from exc
    return lines


class TrailUnreadable(Exception):
    """A line of the trail is none of ours, so the trail proves nothing. Names the file and the line."""

    def __init__(self, path: Path, line: str) -> None:
        self.path, self.line = path, line
        super().__init__(f"{path}: not a line of an audit trail: {line[:80]!r}")
