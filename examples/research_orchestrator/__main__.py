"""Ask six specialists: ``python -m examples.research_orchestrator "Should the town build a weir?"``."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

from agentkit import Runtime
from agentkit.errors import EngineFailed
from agentkit.ports.messages import Request
from agentkit.testing import ScriptedModel
from examples.common.offline import offline, question
from examples.common.program import Options, parser, play
from examples.common.screen import Screen
from examples.research_orchestrator.agents import Library, Paper, Question, Research

TEXTS = {
    "law": "A weir in a river needs a permit of the water authority; fish must be able to pass it.",
    "economics": "Small turbines earn their price in twelve to eighteen years.",
    "engineering": "A weir of two metres gives some eighty kilowatts at the usual flow.",
    "ecology": "A weir warms the water above it; a ladder for fish helps salmon, not eels.",
    "history": "The mill at the bridge had a weir until the flood of 1926.",
}  # nothing on chemistry: one specialist fails, and the paper says so


class Chosen(Options):
    """What the command line said."""

    question: str
    run_id: str | None
    without: list[str]


def options(arguments: Sequence[str]) -> Chosen:
    """Read the command line."""
    made = parser("research_orchestrator", "Ask six specialists, and make a paper of what four or more of them say.")
    made.add_argument("question", nargs="?", default="Should the town build a weir?")
    made.add_argument(
        "--without", action="append", default=[], metavar="TOPIC", help="let this specialist's model fail, too (for answers by rules)"
    )
    made.add_argument("--run-id", metavar="ID", help="go on with a paper that was interrupted")
    return made.parse_args(arguments, Chosen())


def models(without: Sequence[str] = (), pace_s: float = 0.0) -> dict[str, ScriptedModel]:
    """Answers by rules: a specialist repeats its source, the paper counts them."""

    def specialist(request: Request) -> object:
        asked = question(request)
        if any(f"specialist in {topic}." in asked for topic in without):
            return EngineFailed("rules", "it fails because it was told to")
        return asked.rpartition("\n\n")[2]

    def paper(request: Request) -> str:
        said = question(request).partition("\n\n")[2].splitlines()
        return f"{len(said)} specialists answered. " + " ".join(line.partition(": ")[2] for line in said[:2])

    return {"cheap": offline(specialist, pace_s=pace_s), "heavy": offline(paper, pace_s=pace_s)}


def show(screen: Screen, paper: Paper) -> None:
    """The paper."""
    screen.line(paper.question, "bold")
    screen.table(["topic", "finding"], [[finding.topic, finding.text] for finding in paper.findings])
    for topic, why in paper.missing.items():
        screen.line(f"Nothing from {topic}: {why}", "yellow")
    screen.line(paper.summary, "bold green")


async def main(chosen: Chosen) -> int:
    """One paper."""
    screen, run_id = Screen(), chosen.run_id or f"paper-{uuid.uuid4().hex[:8]}"

    @asynccontextmanager
    async def resources() -> AsyncGenerator[Mapping[type, object]]:
        yield {Library: Library(TEXTS)}

    async with Runtime(
        state=chosen.state_url("research"),
        agents=[Research],
        models=chosen.models or models(chosen.without, chosen.pace_s),
        lifespan=resources,
        worker=True,
    ) as runtime:
        handle = await runtime.submit(Research, Question(text=chosen.question), run_id=run_id, timeout_s=900)
        with screen.board(f"run {run_id}") as board:
            await board.until_ended(runtime, handle)
        paper = await handle.result()
    show(screen, paper)
    return 0


if __name__ == "__main__":
    sys.exit(play(main, options(sys.argv[1:])))
