"""`agentkit queue`: what waits, what died, and putting it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.text import Text

from agentkit.cli.style import Failed, Out, WrongUse, example, human, table
from agentkit.cli.target import on_runtime
from agentkit.errors import RunNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from agentkit.ports.queue import Depth
    from agentkit.runtime.queues import DeadTicket
    from agentkit.runtime.runtime import Runtime


@click.group("queue", short_help="What waits, what died, and putting it back.")
def command() -> None:
    """What waits in the queue, what died in it, and putting it back."""


def depth_table(depths: Mapping[str, Depth]) -> Table:
    """One line for each name@version."""
    rows = [(kind, str(d.ready), str(d.delayed), str(d.leased), _dead(d.dead), human(d.oldest_s)) for kind, d in sorted(depths.items())]
    numbers = ("READY", "DELAYED", "LEASED", "DEAD", "OLDEST")
    return table(("AGENT", *numbers), rows, numbers=numbers)


def _dead(count: int) -> Text:
    return Text(str(count), style="bold red" if count else "")


def dead_table(letters: Sequence[DeadTicket]) -> Table:
    rows = [(d.run_id, f"{d.agent}@{d.version}", d.tenant, str(d.attempts), d.reason) for d in letters]
    return table(("RUN", "AGENT", "TENANT", "DELIVERIES", "REASON"), rows, numbers=("DELIVERIES",))


@command.command("depth")
@on_runtime
@example("agentkit queue depth --state sqlite:///agents.db")
async def depth(runtime: Runtime, out: Out) -> None:
    """Count the tickets by agent: ready, delayed, leased, dead, and the age of the oldest."""
    depths = await runtime.queue.depth()
    out.data({kind: found._asdict() for kind, found in sorted(depths.items())})
    out.show(depth_table(depths) if depths else "the queue is empty")


@command.command("dead")
@click.option("--agent", help="Of this agent alone")
@click.option("--tenant", help="Of this tenant alone")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@on_runtime
@example("agentkit queue dead --agent review")
async def dead(runtime: Runtime, out: Out, agent: str | None, tenant: str | None, limit: int) -> None:
    """List the dead letters with the reason of each."""
    letters = [letter async for letter in runtime.queue.dead(agent=agent, limit=limit) if tenant in {None, letter.tenant}]
    out.data([letter.model_dump(mode="json") for letter in letters])
    out.show(dead_table(letters) if letters else "no dead letters")


@command.command("redrive")
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@click.option("--agent", help="All of this agent")
@click.option("--all", "everything", is_flag=True, help="All there are")
@on_runtime
@example("agentkit queue redrive contract-17 contract-18", "agentkit queue redrive --agent review")
async def redrive(runtime: Runtime, out: Out, run_ids: tuple[str, ...], agent: str | None, everything: bool) -> None:
    """Put dead letters back as new and revive their runs."""
    if sum((bool(run_ids), agent is not None, everything)) != 1:
        raise WrongUse("say which dead letters: run ids, --agent NAME, or --all")
    for run_id, row in zip(run_ids, await runtime.store.get(run_ids), strict=True):
        if row is None:
            raise RunNotFound(run_id)
    count = await runtime.queue.redrive(run_ids or None, agent=agent)
    out.data({"redriven": count})
    out.show(f"{count} put back")
    if run_ids and count < len(run_ids):
        raise Failed(f"{len(run_ids) - count} of {len(run_ids)} were not among the dead letters")
