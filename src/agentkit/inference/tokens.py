"""How many tokens a text will be, before any model has counted them.

An estimate, on the high side for the languages that models know best: it trims histories and reserves budgets, where too much costs a
little room and too little breaks a limit. The model's own count replaces it as soon as it is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from agentkit.ports.messages import Message, Request

ASCII_PER_TOKEN = 3  # English prose has about four, code and JSON about three
MESSAGE_TOKENS = 4  # its role, and what marks its beginning and end
ATTACHMENT_TOKENS = 1_000  # an image of common size; what a file holds nobody knows before it is read


def estimate_tokens(text: str) -> int:
    """Tokens of a text: one for three ASCII characters, one for each other character."""
    plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return -(-plain // ASCII_PER_TOKEN) + len(text) - plain


def message_tokens(message: Message) -> int:
    """Tokens of one message with its tool calls and attachments."""
    calls = sum(estimate_tokens(call.name) + estimate_tokens(call.arguments) + MESSAGE_TOKENS for call in message.tool_calls)
    return MESSAGE_TOKENS + estimate_tokens(message.content) + calls + ATTACHMENT_TOKENS * len(message.attachments)


def conversation_tokens(messages: Iterable[Message]) -> int:
    """Tokens of a conversation."""
    return sum(map(message_tokens, messages))


def request_tokens(request: Request) -> int:
    """Tokens of everything a model is sent: the conversation, the tools it is shown, the schema of its answer."""
    tools = sum(estimate_tokens(tool.name + tool.description) + _schema_tokens(tool.parameters) for tool in request.tools)
    return conversation_tokens(request.messages) + tools + (0 if request.output is None else _schema_tokens(request.output))


def _schema_tokens(schema: Mapping[str, object]) -> int:
    return estimate_tokens(json.dumps(schema, separators=(",", ":"), default=str))
