"""What is said to a model and what it answers: messages, requests, the events of an answer, and how they make a whole one.

Messages and answers are pydantic models, for they are kept in journals and sessions. Requests and events are plain records: an event is
made for each token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agentkit.errors import ProtocolBroken, StreamBroken

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why an answer ended: it was complete or met a stop word, `max_tokens` was reached, tools are to be called, the rest is withheld."""


class Said(BaseModel):
    """The base of what is kept of a conversation: never changed once it was said."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Attachment(Said):
    """Something that is not text, by its address: a `data:` URL carries it inside."""

    media_type: str
    url: str


class ToolCall(Said):
    """A call of a tool that a model asks for. `arguments` is what it wrote: meant as a JSON object, checked by nobody yet."""

    id: str
    name: str
    arguments: str


class UserMessage(Said):
    """What a user says, with what was attached."""

    text: str
    attachments: list[Attachment] = Field(default_factory=list[Attachment])


class Message(Said):
    """One message of a conversation.

    `tool_calls` belong to an assistant's message. A tool's message answers one of them and names it in `tool_call_id`; every call has its
    answer before anybody else speaks.
    """

    role: Role
    content: str
    attachments: list[Attachment] = Field(default_factory=list[Attachment])
    tool_calls: list[ToolCall] = Field(default_factory=list[ToolCall])
    tool_call_id: str = ""

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls in a message of role {self.role!r}: only an assistant calls tools")
        if bool(self.tool_call_id) != (self.role == "tool"):
            raise ValueError(
                f"tool_call_id={self.tool_call_id!r} in a message of role {self.role!r}: a tool's message, and no other, has one"
            )
        return self


Prompt: TypeAlias = str | Sequence[Message]
"""What a model is asked: a text, which stands for one message of a user, or a conversation."""


def conversation(prompt: Prompt | UserMessage) -> list[Message]:
    """A prompt as messages."""
    if isinstance(prompt, str):
        return [Message(role="user", content=prompt)]
    if isinstance(prompt, UserMessage):
        return [Message(role="user", content=prompt.text, attachments=prompt.attachments)]
    return list(prompt)


class ToolSpec(NamedTuple):
    """A tool as a model is shown it. `parameters` is the JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a model is to answer. None leaves a choice to the server."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the tool that must be called."""
    output: Mapping[str, object] | None = None
    """The JSON schema that the text of the answer must satisfy."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    extra: Mapping[str, object] = field(default_factory=dict[str, object])
    """Parameters of one dialect alone. An adapter sends them as they are, or refuses them."""

    # How the call is to be treated. It is not part of what is asked: the same question has the same answer whatever stands here.
    priority: Literal["low", "normal", "high"] = "normal"
    affinity: str = ""
    """Requests of one affinity share a prefix: whoever has answered one of them answers the next cheaper."""
    request_id: str = ""
    """For logs on both sides."""
    timeout_s: float | None = None
    """Told to a server that can drop what nobody waits for any more. The caller bounds its own waiting itself."""


class Usage(Said):
    """What a call took."""

    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    cached_input_tokens: int = 0
    """Of `input_tokens`, those whose work the engine had kept from an earlier call."""


UNUSED = Usage.model_construct()
"""Of a call that took nothing. Made without a validator, which takes longer to make than the rest of this module."""


@dataclass(frozen=True, slots=True)
class Text:
    """The next piece of the text."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The next piece of what the model thinks aloud. It is no part of the text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A tool call begins. `index` tells it from the others of this answer, whose pieces may come between its own."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next piece of the arguments of the call `index`."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallComplete:
    """The call `index` is whole: it may be made before the rest of the answer is there."""

    index: int


@dataclass(frozen=True, slots=True)
class Used:
    """What the answer took so far. The last one counts."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a whole answer."""

    reason: FinishReason


Event: TypeAlias = Text | Reasoning | CallStarted | CallArguments | CallComplete | Used | Finished


class Answer(Said):
    """A whole answer."""

    text: str = ""
    tool_calls: list[ToolCall] = Field(default_factory=list[ToolCall])
    finish: FinishReason = "stop"
    usage: Usage = UNUSED
    reasoning: str = ""

    @property
    def message(self) -> Message:
        """The answer as the next message of the conversation."""
        return Message(role="assistant", content=self.text, tool_calls=self.tool_calls)


class Assembly:
    """An answer that is being put together, event by event.

    Args:
        endpoint: who sends the events, for errors.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, tuple[CallStarted, list[str]]] = {}
        self._usage = Usage()
        self._finish: FinishReason | None = None

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._text)

    @property
    def unfinished(self) -> bool:
        """No `Finished` came yet."""
        return self._finish is None

    def add(self, event: Event) -> None:
        """Take in the next event. Raises `ProtocolBroken` when it belongs to no call that was started, or comes after the end."""
        if self._finish is not None:
            raise ProtocolBroken(self._endpoint, f"{event!r} after the answer had finished")
        match event:
            case Text():
                self._text.append(event.text)
            case Reasoning():
                self._reasoning.append(event.text)
            case Used():
                self._usage = event.usage
            case Finished():
                self._finish = event.reason
            case _:
                self._add_to_a_call(event)

    def answer(self) -> Answer:
        """The whole answer; tool calls in the order in which they were started. Raises `StreamBroken` when the end did not come."""
        if self._finish is None:
            raise StreamBroken(self._endpoint, "the answer ended without saying why", text=self.text)
        calls = [ToolCall(id=call.id, name=call.name, arguments="".join(pieces)) for call, pieces in self._calls.values()]
        return Answer(text=self.text, tool_calls=calls, finish=self._finish, usage=self._usage, reasoning="".join(self._reasoning))

    def _add_to_a_call(self, event: CallStarted | CallArguments | CallComplete) -> None:
        started = event.index in self._calls
        if started is isinstance(event, CallStarted):
            raise ProtocolBroken(self._endpoint, f"tool call {event.index} was " + ("started twice" if started else "never started"))
        if isinstance(event, CallStarted):
            self._calls[event.index] = event, []
        elif isinstance(event, CallArguments):
            self._calls[event.index][1].append(event.text)


def assemble(events: Iterable[Event], *, endpoint: str = "model") -> Answer:
    """The answer that these events make. Raises `StreamBroken` and `ProtocolBroken` when they make none."""
    assembly = Assembly(endpoint)
    for event in events:
        assembly.add(event)
    return assembly.answer()
