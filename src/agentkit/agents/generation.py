"""Asking models durably: each call is one step, so an answer that was journalled is never paid for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

import anyio
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from agentkit.agents.step_context import StepContext
from agentkit.errors import StepError, ToolArguments, nearest
from agentkit.inference.models import Reply
from agentkit.inference.schema import NotClosed, closed, filled
from agentkit.ports.messages import Answer, Assembly, Message, Prompt, Request, Text, ToolCall, Usage, conversation
from agentkit.ports.records import EntryKind
from agentkit.resilience.beside import Beside
from agentkit.resilience.policy import Policy

if TYPE_CHECKING:
    from agentkit.agents.context import Context
    from agentkit.agents.tool import Tool

TOLD_EVERY_S = 0.05  # one entry for what comes meanwhile: nobody reads faster, and an entry costs more than its text
TOLD_BYTES = 500  # a fast model's text within that time
MOST_CHARS = 100_000  # of one entry, whatever an engine sends in one piece: stores have a limit for them
MAX_ROUNDS = 16  # of tool calls, as many as a ChatAgent takes turns: a model that goes round in circles ends somewhere
OWN_POLICY = Policy()
"""A model is asked under its own policy, which `Models` applies; the agent's is for its other steps."""

Phase = Literal["called", "returned", "failed"]


async def ask(ctx: Context, request: Request, /, *, name: str = "model", key: str | None = None, stream: bool = False) -> Answer:
    """Ask a model, as one durable step `model#n`.

    Args:
        request: its `model` is a name that `Runtime(models=…)` knows; the run's tenant may have another one stand for it.
        stream: tell the text as it comes: pieces of it become durable events (`TextDelta`).

    Raises:
        StepError: the call failed; its `kind` is the type of the error, for instance `BudgetExceeded` or `RateLimited`.
    """
    body = _streamed if stream else _whole
    identity = [request.model, list(request.messages)]
    answer: Answer = await ctx.step(name, body, request, key=key, policy=OWN_POLICY, fingerprint=identity)
    return answer


async def generate(
    ctx: Context, prompt: Prompt, /, *, output: Any, model: str, tools: Sequence[Tool[..., Any]], key: str | None
) -> Reply[Any]:
    """The model's answer as the type `output`. Tools are called until it gives one; an answer that does not fit is asked for once more."""
    form = None if output is str else form_of(output)
    messages = conversation(prompt)
    asked = Request(model=model, messages=(), tools=[tool.spec for tool in tools], output=None if form is None else form.schema)
    usage, mended = Usage(), False
    for n in range(MAX_ROUNDS):
        answer = await ask(ctx, replace(asked, messages=messages), key=_nth(key, n))
        usage = added(usage, answer.usage)
        messages = [*messages, answer.message]
        if answer.tool_calls:
            messages += await call_tools(ctx, answer.tool_calls, tools)
            continue
        if form is None:
            return Reply(answer.text, usage, answer.finish)
        try:
            return Reply(form.parse(answer.text), usage, answer.finish)
        except ValueError as exc:
            if mended:
                raise StepError("OutputInvalid", f"model {model!r}: {exc}", "model", ctx.run_id) from exc
            messages, mended = [*messages, Message(role="user", content=f"{exc}\nAnswer again, with nothing but the JSON.")], True
    raise StepError("TooManyRounds", f"model {model!r} still calls tools after {MAX_ROUNDS} answers", "model", ctx.run_id)


def _nth(key: str | None, n: int) -> str | None:
    return key if key is None or not n else f"{key}~{n + 1}"


def added(one: Usage, other: Usage) -> Usage:
    """What two calls took together."""
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        usd=one.usd + other.usd,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
    )


# Tools that a model calls


async def call_tools(ctx: Context, calls: Sequence[ToolCall], tools: Sequence[Tool[..., Any]]) -> list[Message]:
    """Call the tools that an answer asks for, side by side, and give their answers in order. What fails is told to the model."""
    known = {tool.name: tool for tool in tools}
    if len(calls) == 1:
        return [await _answered(ctx, calls[0], known)]

    async def one(call: ToolCall, branch: Context) -> Message:
        return await _answered(branch, call, known)

    return await ctx.gather(*(partial(one, call) for call in calls))


async def _answered(ctx: Context, call: ToolCall, known: Mapping[str, Tool[..., Any]]) -> Message:
    tool = known.get(call.name)
    try:
        said = f"there is no tool {call.name!r}{nearest(call.name, known)}" if tool is None else await _called(ctx, tool, call)
    except ToolArguments as exc:
        said = str(exc)
    except StepError as exc:
        said = f"{call.name} failed: {exc.kind}: {exc.message}"
    return Message(role="tool", content=said, tool_call_id=call.id)


async def _called(ctx: Context, tool: Tool[..., Any], call: ToolCall) -> str:
    value = await tool.perform(ctx, tool.parse(call.arguments))
    return value if isinstance(value, str) else to_json(value).decode()


def tell_tool(step: StepContext, tool: str, phase: Phase) -> None:
    """Tell whoever follows the run what becomes of a tool's call. From inside the step's body: a replay does not tell it again."""
    step.tell(EntryKind.TOOL, {"tool": tool, "phase": phase})


# Bodies of the step


async def _whole(step: StepContext, request: Request) -> Answer:
    return await step.models.answer(replace(request, request_id=step.idempotency_key))


async def _streamed(step: StepContext, request: Request) -> Answer:
    told, assembly = _Told(step), Assembly(request.model)
    async with step.models.events(replace(request, request_id=step.idempotency_key)) as events, Beside() as beside:
        beside.start(told.keep_telling)
        try:
            async for event in events:
                assembly.add(event)
                if isinstance(event, Text):
                    await told.add(event.text)
        except Exception:  # what was said before a stream broke has been paid for: let it be read
            told.flush()
            raise
        told.flush()
    return assembly.answer()


class _Told:
    """Text on its way to whoever follows the run: the first piece at once, then what comes within a moment in one entry."""

    def __init__(self, step: StepContext) -> None:
        self._step = step
        self._pieces: list[str] = []
        self._chars = self._position = 0
        self._told_at = -TOLD_EVERY_S
        self._waiting = anyio.Event()

    async def add(self, text: str) -> None:
        """Take in a piece. Waits while the store is behind."""
        self._pieces.append(text)
        self._chars += len(text)
        if self._chars >= TOLD_BYTES or self._step.clock.monotonic() - self._told_at >= TOLD_EVERY_S:
            self.flush()
            await self._step.room()
        elif not self._waiting.is_set():
            self._waiting.set()

    def flush(self) -> None:
        """Tell what has come."""
        text = "".join(self._pieces)
        self._pieces, self._chars, self._told_at = [], 0, self._step.clock.monotonic()
        for start in range(0, len(text), MOST_CHARS):
            part = text[start : start + MOST_CHARS]
            self._step.tell(EntryKind.TEXT, {"position": self._position, "text": part})
            self._position += len(part)

    async def keep_telling(self) -> None:
        """Tell the pieces after which nothing comes for a while."""
        while True:
            await self._waiting.wait()
            await self._step.clock.sleep(TOLD_EVERY_S)
            self._waiting = anyio.Event()
            self.flush()


# Answers of a type


class Form:
    """The shape of an answer: its schema for the model, and how its text becomes a value."""

    def __init__(self, output: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(output)
        self._given = self._adapter.json_schema()
        try:
            self.schema: Mapping[str, object] = closed(self._given)
        except NotClosed:  # a mapping with any keys: a server that holds answers strictly refuses it, the others do their best
            self.schema = self._given

    def parse(self, text: str) -> Any:
        """The value. Raises ValueError with what is wrong, told so that a model can mend it."""
        try:
            value = filled(from_json(text), self._given)
            return self._adapter.validate_json(to_json(value))
        except ValidationError as exc:
            faults = [f"- {_place(fault['loc'])}: {fault['msg']}" for fault in exc.errors(include_url=False, include_context=False)]
            raise ValueError("\n".join(["your answer does not have the form that was asked for:", *faults])) from exc
        except ValueError as exc:
            raise ValueError(f"your answer is not JSON: {exc}") from exc


@lru_cache(maxsize=256)  # schemas of plans are made anew for each set of tools; the last ones are enough
def form_of(output: Any) -> Form:
    """The form of a type, made once."""
    return Form(output)


def _place(path: tuple[int | str, ...]) -> str:
    return ".".join(map(str, path)) or "the whole"
