"""The two agents: one audits an environment, and maps the other over its distributions as durable children."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from anyio import to_thread
from pydantic import PositiveInt

from agentkit import Agent, Context, Lifespan, Need, StepContext
from examples.licence_auditor import identify, inventory, page
from examples.licence_auditor.models import Distribution, Finding, LicenceFile, Metadata, Model, Report
from examples.licence_auditor.policy import LicencePolicy, judge, plain, stale_exceptions
from examples.licence_auditor.trail import Trail

# After a crash in the middle of `sign` nobody looks into the trail before this time has passed: a writer that was only cut off
# from the store would otherwise come after the look.
SIGNING_S = 5.0


class AuditRequest(Model):
    """What to audit: a search path, held against a policy. The policy travels along, so a run does not change its mind."""

    environment: str
    path: tuple[str, ...]
    policy: LicencePolicy
    html: str | None = None
    max_parallel: PositiveInt = 8  # an audit reads files: more at once only wait for the disk


class AuditDistribution(Agent[Distribution, Finding]):
    """Finds the licence of one distribution and the lines that prove it, and signs the audit trail once."""

    async def run(self, ctx: Context, distribution: Distribution) -> Finding:
        metadata = await ctx.step("read metadata", read_metadata, distribution)
        named = [header.value for header in metadata.values("License-File")]
        files = await ctx.step("read licence files", read_licence_files, distribution, named)
        finding = await ctx.step("identify", identify_licence, distribution, metadata, files)
        trail = ctx.get(Trail)
        await ctx.step("sign", trail.sign, ctx.run_id, distribution.name, effect="ask", probe=trail.signed, timeout_s=SIGNING_S)
        return finding


class AuditEnvironment(Agent[AuditRequest, Report]):
    """Audits every distribution of an environment, each in a run of its own, and joins what they found to a report."""

    async def run(self, ctx: Context, request: AuditRequest) -> Report:
        found = await ctx.step("list", inventory.distributions, list(request.path))
        outcomes = await ctx.map(
            "audit", AuditDistribution, found, key=lambda one: plain(one.name), max_parallel=request.max_parallel, need=Need.best_effort()
        )
        failures = [f"{name}: {error}" for name, error in sorted(outcomes.bad.items())]
        report = await ctx.step("join", join, request, list(outcomes.good.values()), failures, await ctx.now())
        if request.html is not None:
            await ctx.step("write html", page.write, report, Path(request.html), effect="rerun")
        return report


async def read_metadata(step: StepContext, distribution: Distribution) -> Metadata:
    """The licence fields of the distribution's core metadata."""
    async with step.get(Trail).step(step, "read metadata", distribution.name):
        return await to_thread.run_sync(inventory.read_metadata, distribution.metadata_dir)


async def read_licence_files(step: StepContext, distribution: Distribution, named: list[str]) -> list[LicenceFile]:
    """The distribution's licence files, with what is recognised in each."""
    async with step.get(Trail).step(step, "read licence files", distribution.name):
        return await to_thread.run_sync(inventory.read_licence_files, distribution.metadata_dir, named)


async def identify_licence(step: StepContext, distribution: Distribution, metadata: Metadata, files: list[LicenceFile]) -> Finding:
    """What follows from the two."""
    async with step.get(Trail).step(step, "identify", distribution.name):
        return identify.identify(distribution, metadata, files)


def join(request: AuditRequest, findings: Sequence[Finding], failures: Sequence[str], at: datetime) -> Report:
    """Hold every finding against the policy."""
    judgements = [judge(finding, request.policy) for finding in sorted(findings, key=lambda one: plain(one.distribution.name))]
    return Report(
        environment=request.environment,
        policy=request.policy.name,
        at=at,
        judgements=tuple(judgements),
        failures=tuple(failures),
        notes=tuple(stale_exceptions(request.policy, (finding.distribution.name for finding in findings))),
    )


def resources(trail: Trail) -> Lifespan:
    """The lifespan of a runtime whose audits write to this trail."""

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Mapping[type[object], object]]:
        await to_thread.run_sync(lambda: trail.path.parent.mkdir(parents=True, exist_ok=True))
        yield {Trail: trail}

    return lifespan
