"""`agentkit runs`: list, show, follow and steer runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from agentkit.agents.base import Signal
from agentkit.cli.style import Out, WrongUse, duration, example, json_value
from agentkit.cli.target import on_runtime
from agentkit.cli.timeline import timeline
from agentkit.cli.view import children_data, event_line, run_data, runs_table, show_data, show_parts
from agentkit.errors import NotSerialisable, RunNotFound, UnknownAgent, nearest
from agentkit.ports.records import RunQuery
from agentkit.runtime.events import ENDED, PUBLIC

if TYPE_CHECKING:
    from agentkit.ports.records import Run
    from agentkit.runtime.handle import RunHandle, RunInfo
    from agentkit.runtime.runtime import Runtime

CHILDREN_PAGE = 1_000


@click.group("runs", short_help="List, show, follow and steer runs.")
def command() -> None:
    """List, show, follow and steer runs."""


@command.command("ls")
@click.option("--agent", help="Of this agent")
@click.option("--version", help="Of this version of it")
@click.option("--tenant", help="Of this tenant")
@click.option("--status", multiple=True, type=click.Choice(sorted(PUBLIC.values())), help="In this state; may be given again")
@click.option("--idle", "idle_s", type=duration, metavar="TIME", help="Unchanged for so long, e.g. 1h")
@click.option("--parent", metavar="RUN", help="Children of this run")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@on_runtime
@example("agentkit runs ls --status waiting --idle 1h --state sqlite:///agents.db")
async def ls(runtime: Runtime, out: Out, limit: int, status: tuple[Any, ...], **where: Any) -> None:
    """List runs, by id."""
    infos: list[RunInfo] = []
    async for info in runtime.runs(status=list(status) or None, **where):
        infos.append(info)
        if len(infos) > limit:
            break
    more = len(infos) > limit
    infos = infos[:limit]
    out.data([run_data(info) for info in infos])
    out.show(runs_table(infos, datetime.now(UTC)) if infos else "no such runs")
    if more:
        out.show(f"… and more: --limit {limit * 10}")


@command.command("show")
@click.argument("run_id", metavar="RUN")
@on_runtime
@example("agentkit runs show contract-17")
async def show(runtime: Runtime, out: Out, run_id: str) -> None:
    """Show a run: its state, and its steps as bars on one time axis.

    Solid bars ran, shaded ones waited; a vertical line is where another claim went on, after a park or a crash. Long silences are cut.
    """
    handle = runtime.handle(run_id)
    info, usage = await handle.info(), await handle.usage()
    found = timeline(await runtime.store.load(run_id, after=-1))  # from the first entry on, not from the newest snapshot
    children = children_data(await all_children(runtime, run_id))
    out.data(show_data(info, found, children, usage))
    console = out.console
    out.show(*show_parts(info, found, children, usage, width=min(console.width, 160), unicode="utf" in console.encoding.lower()))


async def all_children(runtime: Runtime, run_id: str) -> list[Run]:
    """The child runs, read in pages."""
    found: list[Run] = []
    while True:
        page = await runtime.store.list(RunQuery(parent_id=run_id, after=found[-1].run_id if found else "", limit=CHILDREN_PAGE))
        found += page
        if len(page) < CHILDREN_PAGE:
            return found


@command.command("tail")
@click.argument("run_id", metavar="RUN")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Begin after this offset")
@on_runtime
@example("agentkit runs tail contract-17 --after 120")
async def tail(runtime: Runtime, out: Out, run_id: str, after: int) -> None:
    """Follow the events of a run until it ends. With --json each line is an event."""
    handle = runtime.handle(run_id)
    await handle.info()
    async with handle.events(after=after) as events:
        async for event in events:
            out.data(event.model_dump(mode="json"))
            out.show(event_line(event))


@command.command("cancel")
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--reason", default="", help="What its code and its readers are told")
@on_runtime
@example('agentkit runs cancel contract-17 --reason "withdrawn by the customer"')
async def cancel(runtime: Runtime, out: Out, run_ids: tuple[str, ...], reason: str) -> None:
    """Cancel runs and their children. A run that has not started ends at once, a running one as soon as it asks for its next step."""
    for run_id in run_ids:
        before = (await runtime.handle(run_id).info()).status
        await runtime.handle(run_id).cancel(reason)
        out.data({"run_id": run_id, "accepted": before not in ENDED, "status_before": before})
        out.show(f"{run_id} has ended already: {before}" if before in ENDED else f"cancel of {run_id} accepted")


@command.command("signal")
@click.argument("run_id", metavar="RUN")
@click.argument("name", metavar="NAME")
@click.argument("value", metavar="JSON", type=json_value)
@click.option("--key", default="", help="The key that the run waits under, if any")
@click.option("--id", "message_id", help="Delivered once under this id, however often it is sent")
@on_runtime
@example("""agentkit runs signal contract-17 approval '{"by": "ann", "ok": true}' --app app:runtime""")
async def signal(runtime: Runtime, out: Out, *, run_id: str, name: str, value: object, key: str, message_id: str | None) -> None:
    """Send a signal to a run. With --app the value is checked against the type that the agent declares."""
    handle = runtime.handle(run_id)
    door = await declared_signal(runtime, handle, name)
    if door is not None:
        value = typed(door, value)
    await handle.signal(door or plain_signal(name), value, key=key, id=message_id)
    out.data({"run_id": run_id, "signal": name, "sent": True})
    out.show(f"signal {name} accepted by {run_id}")


def typed(door: Signal[Any], value: object) -> object:
    """The value as the agent's type has it."""
    try:
        return door.codec.decode(json.dumps(value).encode(), door.name)
    except NotSerialisable as exc:
        raise WrongUse(f"signal {door.name!r}: {exc.path or 'the value'}: {exc.problem}") from exc


def plain_signal(name: str) -> Signal[Any]:
    """A door for plain JSON: the store knows a signal by its name alone."""
    door: Signal[Any] = Signal(object)
    door.name = name
    return door


async def declared_signal(runtime: Runtime, handle: RunHandle[Any], name: str) -> Signal[Any] | None:
    """The signal as the run's agent declares it; None when this process does not know the agent."""
    info = await handle.info()
    try:
        agent = runtime.registry.find(info.agent, info.version)
    except UnknownAgent:
        return None
    doors = {door.name: door for door in declared_by(agent)}
    if name not in doors:
        known = ", ".join(sorted(doors)) or "none"
        raise WrongUse(f"agent {info.agent!r} has no signal {name!r} (it has: {known}){nearest(name, doors)}")
    return doors[name]


def declared_by(agent: type[Any]) -> list[Signal[Any]]:
    """The signals of an agent, those it inherits before its own."""
    attributes: list[Any] = [found for cls in reversed(agent.__mro__) for found in vars(cls).values()]
    return [found for found in attributes if isinstance(found, Signal)]


@command.command("resolve")
@click.argument("run_id", metavar="RUN")
@click.argument("step", metavar="STEP")
@click.argument("answer", type=click.Choice(["done", "rerun", "fail"]))
@click.option("--result", type=json_value, help="With done: the step's result, with fail: why; as JSON")
@on_runtime
@example("""agentkit runs resolve contract-17 file done --result '"archive/17"'""")
async def resolve(runtime: Runtime, out: Out, *, run_id: str, step: str, answer: Any, result: Any) -> None:
    """Say what became of an effect that a crash left unknown, or whether a tool may start that waits for approval.

    done: it happened (--result is its value); rerun: it did not, run it again, or it may start; fail: it failed, or may not start.
    """
    if result is not None and answer == "rerun":
        raise WrongUse("--result goes with done and fail, not with rerun")
    await runtime.handle(run_id).resolve(step, answer, result=result)
    out.data({"run_id": run_id, "step": step, "answer": answer})
    out.show(f"{run_id}: step {step} resolved as {answer}")


@command.command("fork")
@click.argument("run_id", metavar="RUN")
@click.option("--at", "step", metavar="STEP", required=True, help="The new run goes on from here; what was before is copied")
@click.option("--id", "new_run_id", metavar="RUN", help="Id of the new run (default: made from the old one)")
@on_runtime
@example("agentkit runs fork contract-17 --at review")
async def fork(runtime: Runtime, out: Out, run_id: str, step: str, new_run_id: str | None) -> None:
    """Start a new run from a copy of this one's journal up to a step."""
    if await runtime.store.get([run_id]) == [None]:
        raise RunNotFound(run_id)
    forked = await runtime.fork(run_id, at=step, new_run_id=new_run_id)
    out.data({"run_id": forked.run_id, "forked_from": run_id, "at": step})
    out.show(f"{forked.run_id} goes on from {step} of {run_id}")
