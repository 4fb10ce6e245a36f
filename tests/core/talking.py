"""What the tests of sessions share: agents that talk, and models that answer whatever they are asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio.lowlevel

from agentkit import ChatAgent, Session, SessionSettings, StepContext
from agentkit.agents.tool import tool
from agentkit.ports.messages import Request
from agentkit.ports.records import RunStatus
from agentkit.testing import LocalRuntime, ScriptedModel, ToolCall


class Log:
    """What tools did, outside of the runtime."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.before_note: Callable[[], Awaitable[object]] = anyio.lowlevel.checkpoint


@tool
async def note(step: StepContext, text: str) -> str:
    """Write something down."""
    await step.get(Log).before_note()
    step.get(Log).lines.append(text)
    return "noted"


@tool(approve=True)
async def refund(step: StepContext, cents: int) -> str:
    """Give money back."""
    step.get(Log).lines.append(f"refund {cents}")
    return "done"


class Support(ChatAgent):
    """Answers."""

    model = "chat"
    tools = (note, refund)
    session = SessionSettings(max_waiting=60)


def said(request: Request) -> list[str]:
    return [m.content for m in request.messages if m.role == "user"]


def echo(request: Request) -> str:
    return f"re {said(request)[-1]}"


def noting(request: Request) -> object:
    """Calls the tool first, then answers."""
    return echo(request) if request.messages[-1].role == "tool" else ToolCall("note", text=said(request)[-1])


def always(reply: Callable[[Request], object]) -> ScriptedModel:
    return ScriptedModel(reply for _ in range(10_000))


def session(rt: LocalRuntime, agent: type[ChatAgent[str]] = Support, name: str = "ann") -> Session[str]:
    return rt.session(agent, name)


async def turns(session: Session[str]) -> list[tuple[str, str]]:
    """What was asked and answered, in order; tools left out."""
    found = [m for m in await session.history() if m.role == "user" or (m.role == "assistant" and not m.tool_calls)]
    return [(a.content, b.content) for a, b in zip(found[::2], found[1::2], strict=True)]


async def status(rt: LocalRuntime, run_id: str) -> RunStatus | None:
    (row,) = await rt.store.get([run_id])
    return None if row is None else row.status
