"""A Pydantic AI agent with a tool. Where pydantic_ai is not installed, a stand-in asks and answers the same.

Its model is a function that asks the runtime's: so its calls are on the run's budget and under the model's policy as any other.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from agentkit import StepContext

INSTRUCTIONS = "Answer in one sentence."


class Talker(Protocol):
    """What the agent needs of it."""

    async def answer(self, text: str, step: StepContext, /) -> str: ...


def build() -> Talker:
    """Pydantic AI's where it is installed."""
    return PydanticAI() if find_spec("pydantic_ai") else StandIn()


class PydanticAI:
    """The agent of Pydantic AI. Its `deps` are the step: its tools get resources and the idempotency key from there."""

    def __init__(self) -> None:
        framework: Any = import_module("pydantic_ai")  # by its name: the type checkers of this repository need not have it
        self._messages: Any = import_module("pydantic_ai.messages")
        self._function_model: Any = import_module("pydantic_ai.models.function").FunctionModel
        self._agent: Any = framework.Agent(instructions=INSTRUCTIONS, deps_type=StepContext)

    async def answer(self, text: str, step: StepContext) -> str:
        """What it says."""
        result = await self._agent.run(text, model=self._model(step), deps=step)
        return str(result.output)

    def _model(self, step: StepContext) -> Any:
        async def asked(messages: list[Any], info: Any) -> Any:
            said = "\n".join(str(part.content) for message in messages for part in message.parts if hasattr(part, "content"))
            reply = await step.models.generate("chat", f"{INSTRUCTIONS}\nAnswer: {said}")
            return self._messages.ModelResponse(parts=[self._messages.TextPart(reply.output)])

        return self._function_model(asked)


class StandIn:
    """Asks the model once, as the agent does for a text without tools."""

    async def answer(self, text: str, step: StepContext) -> str:
        """What the model says."""
        return (await step.models.generate("chat", f"{INSTRUCTIONS}\nAnswer: {text}")).output
