"""`ChatAgent`: a model, its instructions and its tools, talking with somebody. Every call of the model and of a tool is a step.

In a session the run first waits for its turn, and then knows what was said before; without one it knows nothing. What it says comes from
its journal, and nobody adds to the history meanwhile: a run that goes on elsewhere says the same again.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import BaseModel, Field
from pydantic_core import from_json, to_json
from typing_extensions import TypeVar

from agentkit.agents.base import Agent, AnyAgent, encode_input
from agentkit.agents.generation import Form, ask, call_tools, form_of
from agentkit.agents.guardrail import Guardrail, guard, watched
from agentkit.agents.history import blocks, trim
from agentkit.agents.step_context import StepContext
from agentkit.agents.turn import Turn, turn_of
from agentkit.agents.turns import SessionSettings
from agentkit.durable.steps import NOT_JOURNALLED
from agentkit.errors import (
    AnswerCut,
    AnswerWithheld,
    GuardrailTripped,
    InvalidInput,
    RunCancelled,
    RunError,
    StepError,
    TooManyTurns,
)
from agentkit.inference.tokens import message_tokens
from agentkit.ports.messages import Answer, Message, Request, ToolCall, ToolSpec, UserMessage
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    from agentkit.agents.context import Context
    from agentkit.agents.state import State
    from agentkit.agents.tool import AnyTool

ChatO_co = TypeVar("ChatO_co", covariant=True, default=str)

SAVE_EVERY = 24  # calls of the model: a replay of more takes longer than to write down what was said
HISTORY_SHARE = 2  # the history takes half of an entry at most; the rest is for what is said in the turn
MENDS = 2  # of an answer that has not the form asked for; a model that has not understood by then will not
MAX_TOOL_NAME = 64  # of what servers take


class Handover(UserMessage, defer_build=True):
    """What an agent is given that takes a conversation over: the user's message, what was said before it, and what since."""

    conversation: list[Message]
    said: list[Message]
    by: str
    note: str = ""


class Known(BaseModel, defer_build=True):
    """What a run of a conversation knows. Kept by `ctx.state`: when its turn begins, and now and then in a long one."""

    begun: bool = False
    to: str = ""
    """The agent that an earlier turn left the conversation to."""
    history: list[Message] = Field(default_factory=list[Message])
    said: list[Message]
    """In this turn: the user's message, then whole blocks."""
    mending: list[Message] = Field(default_factory=list[Message])
    """Answers without the form asked for, and what the model was told of it. Nobody needs them afterwards."""
    system: str | None = None
    rounds: int = 0


class ChatAgent(Agent[str | UserMessage, ChatO_co]):
    """Answers somebody, with tools. `ChatAgent[Answer]` answers with an `Answer`; without a type, with text.

    A call of a tool that fails, is not permitted, is blocked, or makes no sense is told to the model, which may do better. A run ends with
    an error when a call of the model fails (`StepError`), and with `TooManyTurns`, `AnswerCut`, `AnswerWithheld` or `GuardrailTripped`.
    """

    model: ClassVar[str] = "default"
    instructions: ClassVar[str] = ""
    tools: ClassVar[Sequence[AnyTool]] = ()
    handoffs: ClassVar[Sequence[AnyAgent]] = ()
    """Agents that may take over. In a session they keep the conversation until they hand it on."""
    guardrails: ClassVar[Sequence[Guardrail]] = ()
    max_turns: ClassVar[int] = 16
    """Calls of the model for one message."""
    max_history_tokens: ClassVar[int | None] = None
    """Of what the model is shown, instructions included; `agents.history` says what is left out. None: all that is kept."""
    max_tokens: ClassVar[int | None] = None
    """Of each answer of the model."""
    temperature: ClassVar[float | None] = None
    session: ClassVar[SessionSettings] = SessionSettings.model_construct()

    async def prepare(self, ctx: Context, message: UserMessage, /) -> str:
        """The instructions for this message: who asks, what the session knows of them. What it asks `ctx` for is durable."""
        return self.instructions

    def count_tokens(self, message: Message, /) -> int:
        """What a message takes of `max_history_tokens`. An estimate; override it where the model's own counter is at hand."""
        return message_tokens(message)

    async def run(self, ctx: Context, input: str | UserMessage, /) -> ChatO_co:
        """Answer one message."""
        message = UserMessage(text=input) if isinstance(input, str) else input
        talk = Talk(self, ctx, await ctx.state(_opening(message)), message)
        turn = turn_of(ctx, handed_over=isinstance(message, Handover))
        return cast("ChatO_co", await (talk.answer() if turn is None else _take(turn, talk)))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.output_type in cast("Any", ChatAgent).__parameters__:
            cls.output_type = str  # as type checkers see it, by the default of the type variable
        if cls.input_type == str | UserMessage:
            cls.input_type = Handover | UserMessage | str
        names = [tool.name for tool in cls.tools] + [handoff_name(agent) for agent in cls.handoffs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise TypeError(f"{cls.__qualname__}: two tools or handoffs are called {', '.join(twice)}: a model could not tell them apart")


def _opening(message: UserMessage) -> Known:
    if isinstance(message, Handover):
        return Known(history=message.conversation, said=message.said)
    return Known(said=[Message(role="user", content=message.text, attachments=message.attachments)])


async def _take(turn: Turn, talk: Talk) -> Any:
    """Answer when the turn has come, and let the next one go on, however this one ends."""
    try:
        if turn.mine and (before := await _begin(turn, talk)) is not None:
            return talk.recorded(before)
        value = await talk.answer()
    except RunCancelled:
        await turn.end(talk.unanswered("it was cancelled"), answered=False)
        raise
    except NOT_JOURNALLED:
        raise  # it says nothing about the turn, which goes on in the next activation
    except Exception as exc:
        await turn.end(talk.unanswered(exc.kind if isinstance(exc, RunError) else type(exc).__name__, exc), answered=False)
        raise
    await turn.end(talk.answered(value), in_charge=None if talk.handed_over else talk.agent.name)
    return value


async def _begin(turn: Turn, talk: Talk) -> str | None:
    """Wait, and learn what was said before. Returns the answer if an earlier run of this very turn has given it."""
    standing, state = await turn.begin(), talk.state
    if standing is None or state.value.begun:
        return None
    if standing.ended is not None:
        return await turn.answer(standing.ended)
    history = trim(await turn.history(standing.head), talk.agent.max_history_tokens, talk.agent.count_tokens)
    most = talk.ctx.execution.host.limits.max_entry_bytes // HISTORY_SHARE
    state.value.history = trim(history, most, lambda message: len(message.model_dump_json()))
    state.value.begun, state.value.to = True, standing.head.in_charge
    await state.save()
    turn.begun()
    return None


class Talk:
    """One message and its answer."""

    def __init__(self, agent: ChatAgent[Any], ctx: Context, state: State[Known], message: UserMessage) -> None:
        self.agent, self.ctx, self.state, self._message = agent, ctx, state, message
        self.handed_over = False
        self._form: Form | None = None if agent.output_type is str else form_of(agent.output_type)
        self._handoffs = {handoff_name(to): to for to in agent.handoffs}

    @property
    def known(self) -> Known:
        return self.state.value

    async def answer(self) -> Any:
        """The answer as the agent's type. Raises as `ChatAgent` says."""
        known = self.known
        if (to := self._in_charge()) is not None:
            return await self._hand_over(to, "")
        if known.system is None:
            known.system = await self._prepared()
        while known.rounds < self.agent.max_turns:
            answer = await self._ask()
            known.rounds += 1
            if call := next((call for call in answer.tool_calls if call.name in self._handoffs), None):
                return await self._hand_over(self._handoffs[call.name], _note(call))
            if answer.tool_calls:
                known.said += [answer.message, *await self._call(answer.tool_calls)]
            elif found := await self._found(answer):
                return found[0]
            if known.rounds % SAVE_EVERY == 0:
                await self.state.save()
        raise TooManyTurns(self.agent.max_turns, self.ctx.run_id)

    async def _prepared(self) -> str:
        """The instructions, and before them the guardrails' look at what the user says."""
        message = await guard(self.ctx, self.agent.guardrails, "input", self._message)
        if message.text != self._message.text:
            self.known.said[0] = self.known.said[0].model_copy(update={"content": message.text})
        system = await self.agent.prepare(self.ctx, message)
        if isinstance(self._message, Handover):
            note = f": {self._message.note}" if self._message.note else "."
            system = f"{system}\n\nThe conversation was handed over to you by {self._message.by}{note}".strip()
        return system

    async def _ask(self) -> Answer:
        agent, known = self.agent, self.known
        system = [Message(role="system", content=known.system)] if known.system else []
        left = agent.max_history_tokens
        if left is not None:
            left = max(0, left - sum(map(agent.count_tokens, known.mending)))
        messages = trim([*system, *known.history, *known.said], left, agent.count_tokens)
        request = Request(
            model=agent.model,
            messages=[*messages, *known.mending],  # never trimmed: what is to be mended, and the question, which is no newer one's past
            tools=[*(tool.spec for tool in agent.tools), *(_handoff(name, to) for name, to in self._handoffs.items())],
            output=None if self._form is None else self._form.schema,
            max_tokens=agent.max_tokens,
            temperature=agent.temperature,
            affinity=self.ctx.run_id,
        )
        answer = await ask(self.ctx, request, stream=self._form is None and not self._checked)
        if answer.finish == "length":
            raise AnswerCut(agent.model, answer.usage.output_tokens, self.ctx.run_id)
        if answer.finish == "content_filter":
            raise AnswerWithheld(agent.model, self.ctx.run_id)
        return answer

    @property
    def _checked(self) -> bool:
        """Whether somebody looks at an answer before it is shown."""
        return watched(self.agent.guardrails, "output")

    async def _call(self, calls: Sequence[ToolCall]) -> list[Message]:
        """The answers of the tools, in order; several are called side by side, each in a scope of its own."""
        if len(calls) == 1:
            return [await self._call_one(calls[0], self.ctx)]
        return await self.ctx.gather(*(partial(self._call_one, call) for call in calls))

    async def _call_one(self, call: ToolCall, ctx: Context) -> Message:
        try:
            call = await guard(ctx, self.agent.guardrails, "tool", call)
        except GuardrailTripped as tripped:
            return Message(role="tool", content=f"{call.name} was not called: {tripped.message}", tool_call_id=call.id)
        return (await call_tools(ctx, [call], self.agent.tools))[0]

    async def _found(self, answer: Answer) -> tuple[Any] | None:
        """The answer as the agent's type, checked; None when it has not the form, and the model has been told."""
        text = await guard(self.ctx, self.agent.guardrails, "output", answer.text)
        if self._form is None:
            if self._checked:
                await self.ctx.step("say", _say, text)
            return (text,)
        try:
            return (self._form.parse(text),)
        except ValueError as exc:
            if len(self.known.mending) >= 2 * MENDS:
                raise StepError("OutputInvalid", f"model {self.agent.model!r}: {exc}", "model", self.ctx.run_id) from exc
            self.known.mending += [answer.message, Message(role="user", content=f"{exc}\nAnswer again, with nothing but the JSON.")]
            return None

    # Handing over

    def _in_charge(self) -> AnyAgent | None:
        """The agent that has the conversation since an earlier turn, if it still can be reached from here."""
        seen: dict[str, AnyAgent] = {}
        queue = deque[AnyAgent](self.agent.handoffs)
        while queue:
            agent = queue.popleft()
            if agent.name not in seen:
                seen[agent.name] = agent
                queue.extend(getattr(agent, "handoffs", ()))
        return None if self.known.to == self.agent.name else seen.get(self.known.to)

    async def _hand_over(self, to: AnyAgent, note: str) -> Any:
        """Another agent answers, as a child run. Its answer is this run's."""
        self.handed_over = True
        value = await self.ctx.run(to.name, to, self._input_for(to, note))
        if self.agent.output_type is str:
            value = _text(value)
            await self.ctx.step("say", _say, value)
        return value

    def _input_for(self, to: AnyAgent, note: str) -> object:
        """What the other agent takes: the conversation if it is one for it, else the message."""
        known, message = self.known, self._message
        user = UserMessage(text=message.text, attachments=message.attachments)
        if issubclass(to, ChatAgent):
            return Handover(
                text=user.text,
                attachments=user.attachments,
                conversation=known.history,
                said=known.said,
                by=self.agent.name,
                note=note,
            )
        try:
            encode_input(to, user)
        except InvalidInput:
            return user.text
        return user

    # What is kept of it

    def answered(self, value: Any) -> list[Message]:
        """What was said, with the answer."""
        return [*self.known.said, Message(role="assistant", content=_text(value))]

    def unanswered(self, why: str, exc: Exception | None = None) -> list[Message]:
        """What was said in vain: nothing, unless tools were called. They may have done something that the next turn must know of.

        What a filter withheld is not kept at all: it would be withheld again whenever it is shown to the model.
        """
        poisoned = isinstance(exc, AnswerWithheld) or (isinstance(exc, StepError) and exc.kind == "ContentFiltered")
        if poisoned or len(blocks(self.known.said)) < 2:
            return []
        return [*self.known.said, Message(role="assistant", content=f"(There was no answer: {why}.)")]

    def recorded(self, text: str) -> Any:
        """The answer of a turn whose run is not kept any more."""
        return text if self._form is None else self._form.parse(text)


def handoff_name(to: AnyAgent) -> str:
    """The tool by which a model hands over to an agent."""
    return re.sub(r"[^A-Za-z0-9_]", "_", f"hand_over_to_{to.name}")[:MAX_TOOL_NAME]


def _handoff(name: str, to: AnyAgent) -> ToolSpec:
    about = (to.__doc__ or "").strip() or f"The agent {to.name}."
    note = {"type": "string", "description": "what your colleague should know beyond what was said; may be empty"}
    parameters: dict[str, object] = {"type": "object", "properties": {"note": note}, "required": ["note"], "additionalProperties": False}
    return ToolSpec(name, f"Hand the conversation over to a colleague, who answers from here on. {about}", parameters)


def _note(call: ToolCall) -> str:
    """What the model told its colleague; nothing where it made no sense."""
    try:
        given: Any = from_json(call.arguments or "{}")
    except ValueError:
        return ""
    return str(cast("dict[str, Any]", given).get("note", "")) if isinstance(given, dict) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value).decode()


async def _say(step: StepContext, text: str) -> None:
    """Tell a text that could not be told as it was made."""
    if text:
        step.tell(EntryKind.TEXT, {"position": 0, "text": text})
