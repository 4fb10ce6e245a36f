"""The two agents: one reviews a contract, and maps the other over its clauses as durable children."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

import anyio
from pydantic import BaseModel

from agentkit import Agent, Budget, Context, Done, Policy, Retry, Signal, SignalTimeout

DAY_S = 86_400.0
DECIDE_S = 7 * DAY_S  # who has not answered after a week has not approved
FILING = Policy("archive", timeout_s=10, retry=Retry(attempts=5, on=(OSError,)))
PER_REVIEW = Budget(usd=0.50)  # some hundred clauses; a contract that needs more is looked at first

CLAUSE = re.compile(r"^(\d+)\.\s+(.+)$", re.MULTILINE)


class Document(BaseModel):
    """A contract to review. Its digest is part of its identity: a text that changed is another document."""

    id: str
    path: Path


class Clause(BaseModel):
    """One clause of it."""

    id: str
    text: str


class Verdict(BaseModel):
    """What is thought of a clause."""

    clause: str
    risk: Literal["low", "high"]
    reason: str


class Approval(BaseModel):
    """What a human says."""

    by: str
    ok: bool


class Report(BaseModel):
    """What came of a review."""

    document: str
    verdicts: list[Verdict]
    approval: Approval | None
    """None: nobody needed to be asked."""

    @property
    def approved(self) -> bool:
        return self.approval is None or self.approval.ok


class Archive:
    """Where reports are filed: one file each, as a records system keeps one entry."""

    def __init__(self, folder: Path) -> None:
        self._folder = anyio.Path(folder)

    async def store(self, report: Report) -> str:
        """File a report; returns where it lies."""
        await self._folder.mkdir(parents=True, exist_ok=True)
        await self._place(report).write_text(report.model_dump_json(indent=2))
        return str(self._place(report))

    async def find(self, report: Report) -> Done[str] | None:
        """Asked after a crash in the middle of `store`: is it there?"""
        return Done(str(self._place(report))) if await self._place(report).exists() else None

    def _place(self, report: Report) -> anyio.Path:
        return self._folder / f"{report.document}.json"


class ReviewClause(Agent[Clause, Verdict]):
    """Judges one clause."""

    async def run(self, ctx: Context, clause: Clause) -> Verdict:
        prompt = f"Is this clause of a contract risky for us? Say why.\n\n{clause.id}. {clause.text}"
        return (await ctx.generate(prompt, output=Verdict, model="legal")).output


class Review(Agent[Document, Report]):
    """Reviews one contract. A risky one waits for a human, for a week: parked, so it costs nothing."""

    version = "3"
    keep_s = 365 * DAY_S
    approval = Signal(Approval)

    async def run(self, ctx: Context, document: Document) -> Report:
        clauses = await ctx.step("read", read_contract, document.path)
        verdicts = await ctx.map("review", ReviewClause, clauses, key=lambda clause: clause.id, max_parallel=8)
        approval = await self.asked(ctx) if any(verdict.risk == "high" for verdict in verdicts) else None
        report = Report(document=document.id, verdicts=verdicts, approval=approval)
        archive = ctx.get(Archive)
        await ctx.step("file", archive.store, report, effect="ask", probe=archive.find, policy=FILING)
        return report

    async def asked(self, ctx: Context) -> Approval:
        """What a human says, or after a week the policy."""
        try:
            return await ctx.wait_for(self.approval, timeout_s=DECIDE_S)
        except SignalTimeout:
            return Approval(by="nobody within a week", ok=False)


def read_contract(path: Path) -> list[Clause]:
    """The numbered clauses of a text. Not async: it runs on a thread."""
    return [Clause(id=number, text=text) for number, text in CLAUSE.findall(path.read_text(encoding="utf-8"))]


def document_of(path: Path) -> Document:
    """A contract as it is now."""
    digest = hashlib.blake2b(path.read_bytes(), digest_size=4).hexdigest()
    return Document(id=f"{path.stem}-{digest}", path=path.absolute())
