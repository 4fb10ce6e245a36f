"""What the tests of sessions run: an agent whose model calls a tool and then says how many messages of the user it knows."""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import Any

import anyio

from agentkit import ChatAgent, Runtime, StepContext
from agentkit.agents.tool import tool
from agentkit.agents.turns import SessionSettings
from agentkit.ports.messages import Request
from agentkit.ports.values import ValueStore
from agentkit.testing import ScriptedModel, ToolCall
from agentkit.testing.crash_child import hand, reach
from tests.system.app import effects_here, stand_still_between_transactions


@tool
async def note(step: StepContext, text: str) -> str:
    """Notes that this message is being worked at."""
    effects_here().happen(step, text)
    reach("inside tool note")
    await anyio.sleep(0.01)
    return "noted"


def reply(request: Request) -> object:
    """Knows what it was shown, and nothing else."""
    asked = [message.content for message in request.messages if message.role == "user"]
    return f"{len(asked)}: {asked[-1]}" if request.messages[-1].role == "tool" else ToolCall("note", text=asked[-1])


class Talks(ChatAgent):
    """Answers with the number of messages so far."""

    model = "chat"
    tools = (note,)
    session = SessionSettings(max_waiting=200)


AGENTS = (Talks,)


def models() -> dict[str, object]:
    """A model that never runs out of replies."""
    return {"chat": ScriptedModel(repeat(reply))}


class WatchedValues:
    """The values of sessions; their writes are points at which a process may be halted."""

    def __init__(self, values: ValueStore) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return getattr(self._values, name)

    async def put(self, key: str, value: bytes, **given: Any) -> int:
        what = "turn" if "/turn/" in key else "head"
        reach(f"before {what}")
        version = await self._values.put(key, value, **given)
        reach(f"after {what}")
        return version


def runtime() -> Runtime:
    """The runtime of a worker, by its environment."""
    made = Runtime.from_env(agents=AGENTS, models=models())
    values: Any = WatchedValues(made.sessions.values)
    made.sessions.values = values
    if made.settings.state.startswith("sqlite"):
        hand.stand_still = partial(stand_still_between_transactions, made.store)
    return made


async def send_one(runtime: Runtime) -> None:
    """Send a message, as an app does."""
    await runtime.session(Talks, "ann").send("one", message_id="one")
