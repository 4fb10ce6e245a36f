"""The compliance reviewer: a human signs what is risky, in time or not, and a report is filed once."""

from __future__ import annotations

import io
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agentkit import Budget, RunError
from agentkit.testing import LocalRuntime, runtime
from examples.compliance_reviewer import rules
from examples.compliance_reviewer.__main__ import CONTRACTS, TENANTS, main, options
from examples.compliance_reviewer.agents import DAY_S, FILING, Approval, Archive, Document, Report, Review, ReviewClause, document_of
from tests.examples.crashes import crashed

SAFE, RISKY = document_of(CONTRACTS / "cloud-hosting.txt"), document_of(CONTRACTS / "machine-rental.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def reviewing(folder: Path, archive: Archive | None = None) -> AbstractAsyncContextManager[LocalRuntime]:
    given = archive or Archive(folder)
    return runtime(agents=[Review, ReviewClause], models=rules.models(), resources={Archive: given}, tenants=TENANTS)


def filed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


async def test_where_nothing_is_risky_nobody_is_asked(folder: Path) -> None:
    async with reviewing(folder) as rt:
        report = await rt.run(Review, SAFE, run_id="safe", tenant="acme")
        assert [verdict.risk for verdict in report.verdicts] == ["low"] * 3
        assert report.approval is None
        assert report.approved
    assert filed(folder) == [f"{SAFE.id}.json"]


@pytest.mark.parametrize("before", [True, False])
async def test_a_human_answers_after_six_days_and_a_crash_files_the_report_once(folder: Path, before: bool) -> None:
    async with reviewing(folder) as rt:
        handle = await rt.submit(Review, RISKY, run_id="risky", tenant="acme")
        await rt.settle()
        info = await handle.info()
        assert (info.status, info.waiting_for) == ("waiting", "signal:approval")
        assert filed(folder) == []
        await rt.clock.advance(6 * DAY_S)
        await rt.crash(at="file", before=before)
        await handle.signal(Review.approval, Approval(by="ann", ok=True))
        await crashed(rt)
        report = await handle.result()
        assert report.approval == Approval(by="ann", ok=True)
        assert [verdict.risk for verdict in report.verdicts] == ["low", "high", "high", "low"]
    assert filed(folder) == [f"{RISKY.id}.json"]


async def test_who_does_not_answer_within_a_week_has_not_approved(folder: Path) -> None:
    async with reviewing(folder) as rt:
        handle = await rt.submit(Review, RISKY, run_id="risky", tenant="acme")
        await rt.clock.advance(8 * DAY_S)
        assert not (await handle.result()).approved


async def test_an_approval_that_is_sent_twice_counts_once(folder: Path) -> None:
    async with reviewing(folder) as rt:
        handle = await rt.submit(Review, RISKY, run_id="risky", tenant="acme")
        for by in ("ann", "ann"):
            await handle.signal(Review.approval, Approval(by=by, ok=True), id="risky:ann")
        assert (await handle.result()).approval == Approval(by="ann", ok=True)


async def test_a_review_stops_before_it_spends_more_than_its_budget(folder: Path) -> None:
    async with reviewing(folder) as rt:
        with pytest.raises(RunError, match="BudgetExceeded"):
            await rt.run(Review, RISKY, run_id="dear", tenant="acme", budget=Budget(usd=0.000_001))
    assert filed(folder) == []


class Moody(Archive):
    """Refuses a few times."""

    refusals = 3

    async def store(self, report: Report) -> str:
        if self.refusals:
            self.refusals -= 1
            raise OSError("the disk is away")
        return await super().store(report)


async def test_an_archive_that_is_away_for_a_moment_is_tried_again(folder: Path) -> None:
    async with reviewing(folder, Moody(folder)) as rt:
        handle = await rt.submit(Review, SAFE, run_id="safe", tenant="acme")
        await rt.clock.advance(FILING.timeout_s or 0.0)
        await handle.result()
    assert filed(folder) == [f"{SAFE.id}.json"]


def test_a_text_that_changed_is_another_document(tmp_path: Path) -> None:
    contract = tmp_path / "rent.txt"
    contract.write_text("1. All is well.\n")
    first: Document = document_of(contract)
    contract.write_text("1. All is otherwise.\n")
    assert document_of(contract).id != first.id


async def test_the_command_leaves_what_is_risky_parked_and_another_process_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    given = ["--directory", str(tmp_path)]
    assert await main(options(given)) == 0
    assert "machine-rental" in capsys.readouterr().out
    assert len(filed(tmp_path / "archive")) == 1
    assert await main(options([*given, "--reject", "ann"])) == 0
    assert "rejected by ann" in capsys.readouterr().out
    assert len(filed(tmp_path / "archive")) == 3
