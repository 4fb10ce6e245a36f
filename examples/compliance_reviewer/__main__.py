"""Review contracts: ``python -m examples.compliance_reviewer [FILE ...]``, and answer for the risky ones: ``--approve ann``.

On a terminal you are asked at once. Elsewhere the risky ones stay parked, and ``--approve NAME`` or ``--reject NAME`` answers for them,
from any process, a week long.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread

from agentkit import Lifespan, RunError, RunHandle, Runtime, Tenant
from examples.common.program import Options, parser, play
from examples.common.screen import ENDED, LOOK_S, Screen
from examples.compliance_reviewer import rules
from examples.compliance_reviewer.agents import PER_REVIEW, Approval, Archive, Report, Review, ReviewClause, document_of

CONTRACTS = Path(__file__).with_name("contracts")
TENANTS = {"acme": Tenant(id="acme", max_running=40, max_queued=20_000, budget_per_day=PER_REVIEW.model_copy(update={"usd": 50.0}))}
WAITS = f"signal:{Review.approval.name}"


class Chosen(Options):
    """What the command line said."""

    contracts: list[Path]
    approve: str | None
    reject: str | None


def options(arguments: Sequence[str]) -> Chosen:
    """Read the command line."""
    made = parser("compliance_reviewer", "Review contracts; a human answers for the risky ones.")
    made.add_argument("contracts", nargs="*", type=Path, metavar="FILE", help="numbered clauses, one a line (default: three samples)")
    made.add_argument("--approve", metavar="NAME", help="approve all that wait, as this person")
    made.add_argument("--reject", metavar="NAME", help="reject all that wait, as this person")
    return made.parse_args(arguments, Chosen())


def resources(archive: Archive) -> Lifespan:
    """What agents ask for by type."""

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Mapping[type, object]]:
        yield {Archive: archive}

    return lifespan


async def settled(runtime: Runtime, screen: Screen, handles: Sequence[RunHandle[Report]]) -> list[str]:
    """Wait until each review has ended or asks for a human. Returns those that ask."""
    ids = [handle.run_id for handle in handles]
    with screen.board(f"{len(ids)} contracts") as board:
        while True:
            await board.look(runtime, ids)
            infos = [await handle.info() for handle in handles]
            asking = [info.run_id for info in infos if info.status == "waiting" and info.waiting_for == WAITS]
            if len(asking) + sum(info.status in ENDED for info in infos) == len(infos):
                return asking
            await anyio.sleep(LOOK_S)


async def answers(chosen: Chosen, screen: Screen, asking: Sequence[str]) -> AsyncIterator[tuple[str, Approval]]:
    """What a human says to each."""
    for run_id in asking:
        if chosen.approve or chosen.reject:
            yield run_id, Approval(by=chosen.approve or chosen.reject or "", ok=bool(chosen.approve))
        elif sys.stdin.isatty():
            said = await to_thread.run_sync(input, f"{run_id} has risky clauses. Sign it all the same? [y/N] ", abandon_on_cancel=True)
            yield run_id, Approval(by="you", ok=said.strip().lower() == "y")
        else:
            screen.line(f"{run_id} waits for a human: run this again with --approve NAME or --reject NAME", "yellow")


async def show(screen: Screen, handles: Sequence[RunHandle[Report]], parked: Collection[str]) -> int:
    """The reports, and the exit status: 1 when a review failed."""
    rows: list[list[str]] = []
    failed = 0
    for handle in handles:
        if handle.run_id in parked:
            continue
        try:
            report = await handle.result()
        except RunError as error:
            failed += 1
            rows.append([handle.run_id, "", "failed", str(error)])
            continue
        word = "signed" if report.approved else "rejected"
        by = f"{word} by {report.approval.by}" if report.approval else "nothing risky"
        rows += [[report.document, verdict.clause, verdict.risk, f"{verdict.reason}; {by}"] for verdict in report.verdicts]
    screen.table(["contract", "clause", "risk", "why"], rows, style_of=2)
    return int(failed > 0)


async def main(chosen: Chosen) -> int:
    """One round."""
    screen, archive = Screen(), Archive(chosen.directory.absolute() / "archive")
    documents = [document_of(path) for path in chosen.contracts or sorted(CONTRACTS.glob("*.txt"))]
    async with Runtime(
        state=chosen.state_url("reviews"),
        agents=[Review, ReviewClause],
        models=chosen.models or rules.models(chosen.pace_s),
        lifespan=resources(archive),
        tenants=TENANTS,
        worker=True,
    ) as runtime:
        inputs = {f"acme/{document.id}": document for document in documents}
        handles = await runtime.submit_many(Review, inputs, tenant="acme", budget=PER_REVIEW)
        asking = await settled(runtime, screen, handles)
        parked = set(asking)
        async for run_id, approval in answers(chosen, screen, asking):
            await runtime.handle(run_id, Review).signal(Review.approval, approval, id=f"{run_id}:{approval.by}")
            parked.remove(run_id)
        return await show(screen, handles, parked)


if __name__ == "__main__":
    sys.exit(play(main, options(sys.argv[1:])))
