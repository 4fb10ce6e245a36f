"""Audit an environment from the command line, in one process: ``python -m examples.licence_auditor --python ../venv/bin/python``.

Exit status: 0 when the policy has nothing against it, 1 on a conflict (or, with ``--strict``, on anything for review), 2 when
the audit could not be made, 130 when it was interrupted: the same ``--run-id`` goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio

from agentkit import AgentKitError, Runtime
from examples.licence_auditor import report
from examples.licence_auditor.agents import AuditDistribution, AuditEnvironment, AuditRequest, resources
from examples.licence_auditor.inventory import EnvironmentUnreadable, search_path
from examples.licence_auditor.models import Report
from examples.licence_auditor.policy import DEFAULT, PolicyInvalid, load
from examples.licence_auditor.trail import Trail

DIRECTORY = Path(".licence-audit")


class Options(argparse.Namespace):
    """What the command line said."""

    python: str | None
    policy: Path
    html: Path | None
    run_id: str | None
    strict: bool


def options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="licence_auditor", description="Audit the licences of a Python environment.")
    parser.add_argument("--python", metavar="PATH", help="an interpreter or a site-packages directory (default: the environment running)")
    parser.add_argument(
        "--policy", type=Path, default=DEFAULT, metavar="FILE", help="which licences are welcome (default: the one shipped)"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page with the proof here")
    parser.add_argument("--run-id", metavar="ID", help="go on with an audit that was interrupted")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when anything is for review, too")
    return parser.parse_args(arguments, Options())


def request_of(chosen: Options) -> AuditRequest:
    """The audit that the command line asks for.

    Raises:
        EnvironmentUnreadable: there is no environment there.
        PolicyInvalid: the policy file cannot be used.
    """
    return AuditRequest(
        environment=chosen.python or sys.prefix,
        path=tuple(search_path(chosen.python)),
        policy=load(chosen.policy),
        html=str(chosen.html.absolute()) if chosen.html else None,
    )


async def audit(request: AuditRequest, run_id: str, directory: Path) -> Report:
    """Run the audit here, durably: the same ``run_id`` goes on where an interrupted one stopped."""
    trail = Trail(path=directory / "trail.jsonl", worker="this process")
    runtime = Runtime(state=f"sqlite:///{directory / 'audit.db'}", agents=[AuditEnvironment, AuditDistribution], lifespan=resources(trail))
    async with runtime:
        return await runtime.run(AuditEnvironment, request, run_id=run_id)


def exit_status(result: Report, *, strict: bool) -> int:
    """2: something was not audited; 1: the policy objects; 0: all is well."""
    if result.failures:
        return 2
    return int(bool(result.having("deny") or (strict and result.having("review"))))


def main(arguments: Sequence[str]) -> int:
    """Audit and print; the exit status is the answer."""
    chosen = options(arguments)
    run_id = chosen.run_id or f"audit-{uuid.uuid4().hex[:8]}"
    try:
        request = request_of(chosen)
        DIRECTORY.mkdir(exist_ok=True)
        print(f"run {run_id}", file=sys.stderr)
        result = anyio.run(partial(audit, request, run_id, DIRECTORY))
    except KeyboardInterrupt:
        print(f"interrupted; go on with --run-id {run_id}", file=sys.stderr)
        return 130
    except (EnvironmentUnreadable, PolicyInvalid, AgentKitError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    report.show(result, sys.stdout)
    return exit_status(result, strict=chosen.strict)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
