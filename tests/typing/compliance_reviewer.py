"""Compliance reviewer: a model reads each clause, a human answers after days, tenants have budgets and models of their own."""

from pathlib import Path

from pydantic import BaseModel

from agentkit import (
    Agent,
    Budget,
    Context,
    Done,
    Need,
    Outcomes,
    Policy,
    Retry,
    Runtime,
    Signal,
    SignalTimeout,
    StepContext,
    Tenant,
)

DAY = 86_400.0


class Document(BaseModel):
    id: str
    path: Path


class Clause(BaseModel):
    id: str
    text: str


class Verdict(BaseModel):
    clause: str
    risk: str


class Report(BaseModel):
    verdicts: list[Verdict]
    approved_by: str | None


class Approval(BaseModel):
    by: str
    ok: bool


def read_pdf(path: Path) -> list[Clause]:  # sync: runs on a thread
    return [Clause(id="1", text=path.name)]


async def judge(step: StepContext, clause: Clause) -> Verdict:
    await step.progress({"clause": clause.id})
    return Verdict(clause=clause.id, risk="low")


class Archive:
    async def store(self, doc: str, verdicts: list[Verdict]) -> str:
        return f"{doc}:{len(verdicts)}"

    async def find(self, doc: str, verdicts: list[Verdict]) -> Done[str] | None:
        return None


class ReviewClause(Agent[Clause, Verdict]):
    async def run(self, ctx: Context, clause: Clause) -> Verdict:
        reply = await ctx.generate(f"Is this risky? {clause.text}", output=Verdict, model="legal")
        return reply.output


class Review(Agent[Document, Report]):
    version = "3"
    keep_s = 365 * DAY
    approval = Signal(Approval)

    async def run(self, ctx: Context, doc: Document) -> Report:
        clauses = await ctx.step("read", read_pdf, doc.path)
        verdicts = await ctx.map("review", ReviewClause, clauses, key=lambda c: c.id, max_parallel=8)
        by: str | None = None
        if any(v.risk == "high" for v in verdicts):
            try:
                approval = await ctx.wait_for(self.approval, timeout_s=7 * DAY)
            except SignalTimeout:
                approval = Approval(by="policy", ok=False)
            by = approval.by
        archive = ctx.get(Archive)
        policy = Policy("archive", retry=Retry(attempts=5))
        await ctx.step("file", archive.store, doc.id, verdicts, effect="ask", probe=archive.find, policy=policy)
        return Report(verdicts=verdicts, approved_by=by)


class Panel(Agent[Clause, int]):
    async def run(self, ctx: Context, clause: Clause) -> int:
        outcomes: Outcomes[Verdict] = await ctx.join(
            {"a": ReviewClause.of(clause), "b": ReviewClause.of(clause)}, need=Need.at_least(1, within_s=60)
        )
        both: dict[str, Verdict] = await ctx.join({"a": ReviewClause.of(clause)})
        return len(outcomes.good) + len(both)


async def tenant(id: str) -> Tenant:
    return Tenant(id=id, weight=3, max_running=40, max_queued=20_000, budget_per_day=Budget(usd=50), models={"legal": "legal-eu"})


async def nightly(runtime: Runtime, folder: Path) -> None:
    docs = {f"acme/{name}": Document(id=name, path=folder / name) for name in ("a.pdf", "b.pdf")}
    handles = await runtime.submit_many(Review, docs, tenant="acme", priority="low", budget=Budget(usd=0.50))
    print(len(handles))


async def approve(runtime: Runtime, doc: str, who: str) -> None:
    await runtime.handle(f"acme/{doc}", Review).signal(Review.approval, Approval(by=who, ok=True), id=f"{doc}:{who}")


async def follow(runtime: Runtime, run_id: str) -> Report:
    handle = runtime.handle(run_id, Review)
    async with handle.events(after=3) as events:
        async for event in events:
            match event.type:
                case "status":
                    print(event.status)
                case "step":
                    print(event.step, event.phase)
                case "progress":
                    print(event.data)
                case _:
                    pass
    return await handle.result(timeout_s=10)


def django_view(runtime: Runtime, doc: Document) -> str:
    handle = runtime.sync(runtime.submit, Review, doc, tenant="acme")
    return handle.run_id
