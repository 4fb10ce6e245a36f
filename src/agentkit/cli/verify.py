"""`agentkit verify`: replay stored journals against today's code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import click
from rich.text import Text

from agentkit.cli.style import Failed, Out, example
from agentkit.cli.target import runtime_for

if TYPE_CHECKING:
    from agentkit.runtime.runtime import Runtime
    from agentkit.runtime.verify import Verdict


def verdict_line(verdict: Verdict) -> Text:
    """`ok run`, or `mismatch run: what the journal holds and what the code asks for`."""
    if verdict.ok:
        return Text.assemble(("ok        ", "green"), verdict.run_id)
    return Text.assemble(("mismatch  ", "bold red"), f"{verdict.run_id}\n          {verdict.problem}")


@click.command("verify", short_help="Replay stored journals against today's code.")
@click.argument("app", metavar="MODULE:RUNTIME")
@click.option("--agent", help="Runs of this agent alone")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most so many runs")
@click.option("--json", "as_json", is_flag=True, help="JSON lines for machines")
@example("agentkit verify app:runtime --agent review")
def command(app: str, agent: str | None, limit: int, as_json: bool) -> None:
    """Replay the journals in the store against today's code, writing nothing, and again with results in another order.

    The exit code is 1 when a run would not go on: raise the version of its agent, or keep what the journal holds.
    """
    anyio.run(_verify, runtime_for(None, app), agent, limit, Out(as_json=as_json))


async def _verify(runtime: Runtime, agent: str | None, limit: int, out: Out) -> None:
    checked = wrong = 0
    async with runtime:
        async for verdict in runtime.verify(agent=agent, limit=limit):
            checked += 1
            wrong += not verdict.ok
            out.data({"run_id": verdict.run_id, "ok": verdict.ok, "problem": verdict.problem})
            out.show(verdict_line(verdict))
    out.show(f"{checked} replayed, {wrong} would not go on")
    if wrong:
        raise Failed(f"{wrong} of {checked} runs would not go on with today's code")
