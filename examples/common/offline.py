"""A model that needs no server: a function of the request, in place of a list of replies, because examples run more than once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import cast

from agentkit.ports.messages import Message, Request
from agentkit.testing import Delay, ScriptedModel

Answer = Callable[[Request], object]
"""What to say to a request: a text, a `ToolCall`, an error, or a value that is said as JSON."""


def offline(answer: Answer, *, pace_s: float = 0.0) -> ScriptedModel:
    """A model that answers by a function.

    Args:
        pace_s: how long it thinks before each answer, so that a person can follow.
    """

    def paced(request: Request) -> object:
        reply = answer(request)
        if not pace_s:
            return reply
        parts = cast("Sequence[object]", reply) if isinstance(reply, list | tuple) else [reply]
        return [Delay(pace_s), *parts]

    return ScriptedModel(repeat(paced))


def question(request: Request) -> str:
    """What the user said last."""
    return next((message.content for message in reversed(request.messages) if message.role == "user"), "")


def instructions(request: Request) -> str:
    """What the model is told to be."""
    return "\n".join(message.content for message in request.messages if message.role == "system")


def tool_answers(request: Request) -> list[str]:
    """What tools answered since the user spoke, oldest first."""
    return [message.content for message in _since_the_user(request) if message.role == "tool"]


def _since_the_user(request: Request) -> list[Message]:
    messages = list(request.messages)
    last = max((at for at, message in enumerate(messages) if message.role == "user"), default=-1)
    return messages[last + 1 :]
