"""A model for tests of agents: its replies are written down beforehand, in the words in which one thinks of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import inf
from typing import Any, cast

from pydantic_core import to_json

from agentkit.clock import SYSTEM, Clock
from agentkit.inmemory.inference import Delay, Infer, Part, Script, ScriptedInference
from agentkit.ports.messages import CallArguments, CallComplete, CallStarted, Event, Finished, Message, Request, Text, Usage, Used

_PIECE = re.compile(r"\s*\S+\s*|\s+")  # a word with the space around it, as most tokens are


class ToolCall:
    """A scripted model calls this tool with these arguments."""

    def __init__(self, name: str, /, **args: Any) -> None:
        self.name, self.args = name, args

    def __repr__(self) -> str:
        return f"ToolCall({', '.join([repr(self.name), *(f'{key}={value!r}' for key, value in self.args.items())])})"


class ScriptedModel(ScriptedInference):
    """A model that gives these replies, one for each call, in the order in which the calls come.

    A reply is

    - a text, which streams word by word;
    - a `ToolCall`, or a list of them;
    - an error, which is raised: `RateLimited("eu1", "slow down", retry_after_s=2)`;
    - a list that mixes texts, calls, `Delay`s and at its end an error, at which the stream breaks;
    - any other value, a pydantic model for example, which is said as JSON;
    - a function that takes the `Request` and returns one of these: for calls whose order is open.

    A `Delay` between replies holds back the next one. After the last reply a call raises `ScriptExhausted`; `itertools.repeat` gives one
    that never ends. Tokens are counted in words.

    Args:
        replies: taken one by one, as calls come.
        name: the endpoint's name in errors.
        slots: how many calls run at a time; the others wait.
        infer: what answers `infer`.
        clock: the time of delays; `testing.runtime` sets its own.
    """

    def __init__(
        self,
        replies: Iterable[str | ToolCall | Sequence[ToolCall] | object | Exception] = (),
        /,
        *,
        name: str = "scripted",
        slots: float = inf,
        infer: Infer | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(_scripts(replies), name=name, slots=slots, infer=infer, clock=clock)

    @property
    def prompts(self) -> list[str]:
        """What it was asked so far: for each call the whole conversation as text."""
        return [as_text(request.messages) for request in self.requests]


def as_text(messages: Iterable[Message]) -> str:
    """A conversation for people: a line or more for each message, with its role."""
    lines: list[str] = []
    for message in messages:
        lines.append(f"{message.role}: {message.content}")
        lines += [f"  calls {call.name}({call.arguments})" for call in message.tool_calls]
        lines += [f"  with {attachment.media_type} {attachment.url[:80]}" for attachment in message.attachments]
    return "\n".join(lines)


def _scripts(replies: Iterable[object]) -> Iterator[Script]:
    delays: list[Delay] = []
    for reply in replies:
        if isinstance(reply, Delay):
            delays.append(reply)
        else:
            yield partial(_script, reply, tuple(delays))
            delays.clear()


def _script(reply: object, delays: Sequence[Delay], request: Request) -> list[Part]:
    if callable(reply):
        reply = reply(request)
    said = _pieces(reply)
    parts: list[Part] = [*delays]
    calls = 0
    for piece in said:
        match piece:
            case str():
                parts += [Text(word) for word in _PIECE.findall(piece)]
            case ToolCall():
                parts += _call(piece, calls, f"call_{len(request.messages)}_{calls}")
                calls += 1
            case _:
                parts.append(piece)
    spoken = sum(isinstance(part, Text | CallArguments) for part in parts)
    usage = Usage(input_tokens=len(as_text(request.messages).split()), output_tokens=spoken)
    return [*parts, Used(usage), Finished("tool_calls" if calls else "stop")]


def _pieces(reply: object) -> Sequence[str | ToolCall | Delay | Exception]:
    """What a reply consists of. A list without any call, delay or error in it is a value like any other."""
    items = _items(reply)
    if not any(isinstance(item, ToolCall | Delay | Exception) for item in items):
        items = [reply]
    return [item if isinstance(item, str | ToolCall | Delay | Exception) else _json(item) for item in items]


def _items(reply: object) -> Sequence[object]:
    return cast("Sequence[object]", reply) if isinstance(reply, list | tuple) else ()


def _call(call: ToolCall, index: int, id: str) -> list[Event]:
    """The arguments come in two pieces, so that nobody relies on having them whole."""
    text = _json(call.args)
    half = len(text) // 2
    return [CallStarted(index, id, call.name), CallArguments(index, text[:half]), CallArguments(index, text[half:]), CallComplete(index)]


def _json(value: object) -> str:
    return to_json(value).decode()
