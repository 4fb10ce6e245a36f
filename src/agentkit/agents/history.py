"""How much of a conversation a model is shown: whole exchanges, the newest first, and never half of a tool call.

An *exchange* is a user's message and all that follows it up to the next one. A *block* is one message, or an assistant's message together
with the answers to the tools that it calls. Older exchanges are left out whole, oldest first; when the newest alone is too much, blocks
of it go too, oldest first. What always stays: the system's messages, the newest message of the user, and the last block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from agentkit.inference.tokens import message_tokens
from agentkit.ports.messages import Message

Counter: TypeAlias = Callable[[Message], int]
"""How many tokens a message costs."""


def trim(messages: Sequence[Message], max_tokens: int | None, count: Counter = message_tokens) -> list[Message]:
    """As much of a conversation as fits, in its order. None: all of it. What must stay does so even where it does not fit."""
    if max_tokens is None:
        return list(messages)
    system = [m for m in messages if m.role == "system"]
    exchanges = _exchanges([m for m in messages if m.role != "system"])
    if not exchanges:
        return system
    room = max_tokens - _cost(system, count)
    newest = exchanges.pop()
    kept = newest if _cost(newest, count) <= room else _newest_blocks(newest, room, count)
    room -= _cost(kept, count)
    while exchanges and (cost := _cost(exchanges[-1], count)) <= room:
        kept, room = [*exchanges.pop(), *kept], room - cost
    return [*system, *kept]


def last(messages: Sequence[Message], n: int) -> list[Message]:
    """The last `n` messages at most; it does not begin with the answer of a tool whose call is left out."""
    found = list(messages[max(0, len(messages) - n) :])
    while found and found[0].role == "tool":
        del found[0]
    return found


def blocks(messages: Sequence[Message]) -> list[list[Message]]:
    """The parts that make sense only whole."""
    found: list[list[Message]] = []
    for message in messages:
        if message.role == "tool" and found:
            found[-1].append(message)
        else:
            found.append([message])
    return found


def _exchanges(messages: Sequence[Message]) -> list[list[Message]]:
    found: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or not found:
            found.append([])
        found[-1].append(message)
    return found


def _newest_blocks(exchange: Sequence[Message], room: int, count: Counter) -> list[Message]:
    """Of an exchange that does not fit its first message, if a user's, its last block, and the newest of the others."""
    parts = blocks(exchange)
    opening = [parts.pop(0)] if parts[0][0].role == "user" else []
    kept = parts[-1:]
    room -= sum(_cost(block, count) for block in (*opening, *kept))
    for block in reversed(parts[:-1]):
        room -= _cost(block, count)
        if room < 0:
            break
        kept.insert(0, block)
    return [message for block in (*opening, *kept) for message in block]


def _cost(messages: Sequence[Message], count: Counter) -> int:
    return sum(map(count, messages))
