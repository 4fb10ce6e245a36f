"""`agentkit doctor`: look for what is wrong with this machine, these settings, this store."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import click
from rich.text import Text

from agentkit.cli import checks, host
from agentkit.cli.style import Failed, Out, coloured, example, table
from agentkit.cli.target import runtime_for, state_file
from agentkit.errors import AgentKitError
from agentkit.ports.records import Finding, RunQuery, RunStatus
from agentkit.runtime.settings import PREFIX, Settings, from_env

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agentkit.durable.group_commit import Durability
    from agentkit.runtime.runtime import Runtime

PACKAGES = ("agentkit-async", "anyio", "pydantic", "opentelemetry-api", "tenacity", "sqlalchemy")
CLASSES: tuple[Durability, ...] = ("memory", "relaxed", "durable", "strict")
READY_PAGE, READY_PAGES = 1_000, 20  # enough to see which agents nobody serves


@click.command("doctor", short_help="Look for what is wrong with this machine, these settings, this store.")
@click.option("--state", metavar="URL", help="The store, e.g. sqlite:///agents.db  [env: AGENTKIT_STATE]")
@click.option("--app", metavar="MODULE:RUNTIME", help="The app's own Runtime, e.g. app:runtime")
@click.option("--json", "as_json", is_flag=True, help="JSON for machines")
@example("agentkit doctor --state sqlite:///agents.db")
def command(state: str | None, app: str | None, as_json: bool) -> None:
    """Look at Python and packages, settings, the store and its file, its workers, and what waits for nobody.

    Watches the workers for one beat. The exit code is 1 when something is broken.
    """
    findings = here()
    settings: list[checks.Setting] = []
    try:
        runtime = runtime_for(state, app)
        settings = in_force(runtime)
        findings += about_file(state_file(runtime.settings.state))
        findings += anyio.run(about_store, runtime)
    except AgentKitError as exc:
        findings.append(Finding("fail", "store", str(exc)))
    except Failed as exc:
        findings.append(Finding("note" if state is None and app is None else "fail", "store", exc.message))
    report(Out(as_json=as_json), findings, settings)


def report(out: Out, findings: Sequence[Finding], settings: Sequence[checks.Setting]) -> None:
    """Print it all; broken things decide the exit code."""
    out.data({"findings": [finding._asdict() for finding in findings], "settings": [setting._asdict() for setting in settings]})
    if settings:
        out.show(table(("SETTING", "VALUE", "FROM"), settings), Text())
    for finding in findings:
        out.show(Text.assemble(coloured(f"{finding.level:<5}"), (f" {finding.what}: ", "bold"), finding.says))
        if finding.do:
            out.show(Text(f"      {finding.do}", style="italic"))
    broken = sum(finding.level == "fail" for finding in findings)
    if broken:
        raise Failed(f"{broken} of {len(findings)} findings need you")


def here() -> list[Finding]:
    """This interpreter, its packages and variables."""
    versions = ", ".join(f"{name} {host.installed(name) or 'missing'}" for name in PACKAGES)
    findings = [checks.python(sys.version_info[:2]), Finding("ok", "packages", versions), *checks.namesake(host.installed("agentkit"))]
    try:
        from_env()
    except AgentKitError as exc:
        findings.append(Finding("fail", "environment", str(exc)))
    return findings


def in_force(runtime: Runtime) -> list[checks.Setting]:
    """The settings of this runtime, and where each comes from."""
    said = from_env().model_dump()
    variables = {name: value for name, value in said.items() if f"{PREFIX}{name.upper()}" in os.environ}
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    return checks.settings_in_force(runtime.settings.model_dump(), variables, defaults)


def about_file(path: Path | None) -> list[Finding]:
    """The file of a store that is a file."""
    if path is None:
        return []
    whole = path.resolve()
    return [
        checks.file_system(str(whole), host.mounts()),
        checks.disk(host.free_bytes(whole), str(whole.parent)),
        *checks.stopped(host.holders(whole)),
    ]


async def about_store(runtime: Runtime) -> list[Finding]:
    """Open the store, look who works on it and what waits."""
    async with runtime:
        schema = getattr(runtime.store, "schema_version", None)
        tables = "" if schema is None else f", its tables are of version {schema}"
        findings = [Finding("ok", "store", f"{checks.shown(runtime.settings.state)} answers{tables}")]
        sqlite = sys.modules.get("sqlite3")  # the library that the adapter has just loaded: we import no driver
        if sqlite is not None and runtime.settings.state.startswith("sqlite"):
            findings.append(checks.sqlite(str(sqlite.sqlite_version)))
        findings += await advice(runtime)
        depths = await runtime.tickets.depth()
        waiting = await ready_runs(runtime)
        looked_s = runtime.settings.lease_s / 2
        findings += checks.workers(await watched(runtime, looked_s), waiting, looked_s=looked_s)
        return findings + checks.dead_letters({kind: depth.dead for kind, depth in depths.items()})


async def advice(runtime: Runtime) -> list[Finding]:
    """What a store on a server says about that server's settings, for the strictest class among the agents here."""
    look: Any = getattr(runtime.store, "findings", None)
    if look is None:
        return []
    kinds = [kind.rpartition("@") for kind in runtime.registry.kinds()]
    classes = {runtime.registry.find(name, version).durability for name, _, version in kinds}
    findings: list[Finding] = await look(max(classes, key=CLASSES.index, default="durable"))
    return findings


async def ready_runs(runtime: Runtime) -> Counter[str]:
    """READY runs by name@version. They are the truth: a ticket may be stale, or still to be put."""
    found: Counter[str] = Counter()
    after = ""
    for _ in range(READY_PAGES):
        page = await runtime.store.list(RunQuery(status=frozenset({RunStatus.READY}), after=after, limit=READY_PAGE))
        found.update(f"{run.kind}@{run.version}" for run in page)
        if len(page) < READY_PAGE:
            break
        after = page[-1].run_id
    return found


async def watched(runtime: Runtime, looked_s: float) -> list[checks.Worker]:
    """The registered workers; a beat that moved within half a lease (two beats) is a living one's."""
    before = {worker.worker_id: worker.beat for worker in await runtime.store.workers()}
    if before:
        await anyio.sleep(looked_s)
    after = await runtime.store.workers()
    others = [w for w in after if w.kinds and w.worker_id != runtime.engine.worker_id]
    return [checks.Worker(w.worker_id, frozenset(w.kinds.split(",")), w.host, before.get(w.worker_id) != w.beat) for w in others]
