"""The two agents in a runtime: the report, what a crash repeats and what it does not, and the trail."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from agentkit import testing
from examples.licence_auditor import trail
from examples.licence_auditor.__main__ import exit_status, main
from examples.licence_auditor.agents import SIGNING_S, AuditDistribution, AuditEnvironment, AuditRequest
from examples.licence_auditor.inventory import distributions
from examples.licence_auditor.policy import DEFAULT, load
from examples.licence_auditor.trail import Trail

NAMES = ["alpha", "beta", "gamma"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Three distributions: MIT, AGPL, and one whose licence nobody knows."""
    for name, says in zip(NAMES, ("License-Expression: MIT", "License-Expression: AGPL-3.0-only", "Summary: none"), strict=True):
        directory = tmp_path / "site" / f"{name}-1.0.dist-info"
        directory.mkdir(parents=True)
        (directory / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{says}\n")
    return tmp_path / "site"


@pytest.fixture
def book(tmp_path: Path) -> Trail:
    return Trail(path=tmp_path / "trail.jsonl", worker="tester")


def request_for(site: Path, html: Path | None = None) -> AuditRequest:
    return AuditRequest(environment="test", path=(str(site),), policy=load(DEFAULT), html=str(html) if html else None)


async def test_an_audit_judges_every_distribution_and_writes_the_page(site: Path, book: Trail, tmp_path: Path) -> None:
    async with testing.runtime(agents=[AuditEnvironment, AuditDistribution], resources={Trail: book}) as rt:
        report = await rt.run(AuditEnvironment, request_for(site, tmp_path / "report.html"), run_id="audit")
    assert [(one.finding.distribution.name, one.verdict) for one in report.judgements] == [
        ("alpha", "allow"),
        ("beta", "deny"),
        ("gamma", "review"),
    ]
    assert "AGPL-3.0-only" in (tmp_path / "report.html").read_text()
    assert exit_status(report, strict=False) == 1


async def test_each_child_signs_the_trail_once_under_its_own_run(site: Path, book: Trail) -> None:
    async with testing.runtime(agents=[AuditEnvironment, AuditDistribution], resources={Trail: book}) as rt:
        await rt.run(AuditEnvironment, request_for(site), run_id="audit")
    signed = [line for line in trail.read(book.path) if line.what == "signed"]
    assert sorted(line.distribution for line in signed) == NAMES
    assert len({line.run for line in signed}) == len(NAMES)


@pytest.mark.parametrize("step", ["read metadata", "read licence files", "identify", "sign"])
async def test_a_crash_in_a_step_repeats_that_step_alone_and_never_the_signature(site: Path, book: Trail, step: str) -> None:
    (alpha, *_) = distributions([str(site)])
    async with testing.runtime(agents=[AuditDistribution], resources={Trail: book}) as rt:
        handle = await rt.submit(AuditDistribution, alpha, run_id="alpha")
        await rt.crash(at=step)
        await rt.settle()
        await rt.clock.advance(SIGNING_S + 1)
        assert rt.crashed == 1
        finding = await handle.result()
    assert finding.expression == "MIT"
    lines = trail.read(book.path)
    assert [line.what for line in lines].count("signed") == 1
    again = {name for name, count in Counter(line.step for line in lines if line.what == "began").items() if count > 1}
    assert again == ({step} if step != "sign" else set())


async def test_the_probe_finds_the_signature_in_the_file_and_nowhere_else(book: Trail) -> None:
    assert await book.signed("run", "alpha") is None
    book.path.write_text('{"what":"signed","run":"run","step":"sign","distribution":"alpha","worker":"w"}\n')
    done = await book.signed("run", "alpha")
    assert done is not None
    assert done.value == "w"
    assert await book.signed("other", "alpha") is None


def test_a_trail_with_a_line_that_is_not_ours_proves_nothing(book: Trail) -> None:
    book.path.write_text("{}\n")
    with pytest.raises(trail.TrailUnreadable, match="not a line of an audit trail"):
        trail.read(book.path)


def test_the_command_line_exits_with_1_on_a_conflict_and_2_on_a_wrong_environment(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--python", str(site), "--html", "report.html"]) == 1
    assert "3 distributions under policy default: 1 allowed, 1 for review, 1 conflicts" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()
    assert main(["--python", str(tmp_path / "nowhere")]) == 2
    assert "pass an interpreter or a site-packages directory" in capsys.readouterr().err
