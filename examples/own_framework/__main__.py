"""Ask a LangGraph graph and a Pydantic AI agent, each inside a durable run: ``python -m examples.own_framework "Why is the sky blue?"``."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

from agentkit import Runtime
from agentkit.ports.messages import Request
from examples.common.offline import offline, question
from examples.common.program import Options, parser, play
from examples.common.screen import Screen
from examples.own_framework import graph, typed
from examples.own_framework.agents import ByGraph, ByTyped, Frameworks, Question


class Chosen(Options):
    """What the command line said."""

    question: str


def options(arguments: Sequence[str]) -> Chosen:
    """Read the command line."""
    made = parser("own_framework", "Ask a LangGraph graph and a Pydantic AI agent, each inside a durable run.")
    made.add_argument("question", nargs="?", default="Why is the sky blue? I ask because my daughter does.")
    return made.parse_args(arguments, Chosen())


def echo(request: Request) -> str:
    """Without a server: a long answer, and its first sentence where it is to be shortened."""
    asked = question(request)
    if asked.startswith("Shorten: "):
        return asked.removeprefix("Shorten: ").partition(". ")[0] + "."
    return f"One asks: {asked.rpartition('Answer: ')[2].partition('?')[0]}. Much could be said of it."


async def main(chosen: Chosen) -> int:
    """One question to both."""
    screen = Screen()

    @asynccontextmanager
    async def resources() -> AsyncGenerator[Mapping[type, object]]:
        yield {Frameworks: Frameworks(graph.build(), typed.build())}

    models = chosen.models or {"chat": offline(echo, pace_s=chosen.pace_s)}
    async with Runtime(
        state=chosen.state_url("frameworks"), agents=[ByGraph, ByTyped], models=models, lifespan=resources, worker=True
    ) as runtime:
        for agent in (ByGraph, ByTyped):
            handle = await runtime.submit(agent, Question(text=chosen.question), run_id=f"{agent.name}-{uuid.uuid4().hex[:8]}")
            answer = await screen.follow(handle)
            screen.line(f"{agent.name}, by {answer.by}: {answer.text}", "bold green")
    return 0


if __name__ == "__main__":
    sys.exit(play(main, options(sys.argv[1:])))
