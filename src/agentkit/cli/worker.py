"""`agentkit worker`: execute submitted runs until told to stop."""

from __future__ import annotations

import logging
import os
from functools import partial

import anyio
import click

from agentkit import logs
from agentkit.cli.style import duration, example
from agentkit.cli.target import load_runtime

log = logging.getLogger("agentkit.worker")


@click.command("worker", short_help="Execute submitted runs until told to stop.")
@click.argument("app", metavar="MODULE:RUNTIME")
@click.option("--only", metavar="KINDS", help="Serve these agents alone: review@4,embed (default: all that are registered)")
@click.option("--concurrency", type=click.IntRange(min=1), help="Runs at a time  [env: AGENTKIT_CONCURRENCY]")
@click.option("--grace", "grace_s", type=duration, help="How long a drain may take, e.g. 30s  [env: AGENTKIT_GRACE_S]")
@example("agentkit worker app:runtime --only review@4,embed --concurrency 32 --grace 30s")
def command(app: str, only: str | None, concurrency: int | None, grace_s: float | None) -> None:
    """Execute the runs submitted to the store of MODULE:RUNTIME.

    SIGTERM or SIGINT drains: nothing new is leased, what runs is unwound and given back, the exit code is 0. A second one cuts the grace
    short. AGENTKIT_LOG says how to log: json or text, and a level, as in json,debug.
    """
    logs.configure_from(os.environ.get("AGENTKIT_LOG", ""))
    kinds = [kind.strip() for kind in (only or "").split(",") if kind.strip()]
    runtime = load_runtime(app)
    serves = sorted(f"{name}@{version}" for name, versions in runtime.registry.serves(kinds).items() for version in versions)
    log.info("worker %d of %s serves %s", os.getpid(), app, ", ".join(serves) or "nothing: list agents in Runtime(agents=[…])")
    anyio.run(partial(runtime.work, only=kinds, concurrency=concurrency, grace_s=grace_s))
    log.info("worker %d has drained", os.getpid())
