"""`Models`: what the names that agents use for models stand for, and the one way in which every call of a model goes.

A name leads to one or several engines. A call goes, from the outside in: the budget's reservation, the model's own policy (time, retries,
rates), the choice of an engine, that endpoint's policy (circuit, permits), the engine. Where an engine fails by an error that says another
may do better, the next one is asked within the same attempt; where all of them have failed for good, the models named as `fallback`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from math import isfinite
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar, cast

from agentkit import telemetry
from agentkit.clock import SYSTEM
from agentkit.errors import InvalidSetting, UnknownModel
from agentkit.inference.choice import choose
from agentkit.inference.file import read
from agentkit.inference.places import Model, Place
from agentkit.inference.pricing import PriceTable
from agentkit.inference.tokens import request_tokens
from agentkit.ports.messages import Answer, Event, Finished, FinishReason, Prompt, Request, Text, Usage, Used, conversation
from agentkit.resilience.deadline import remaining_s
from agentkit.resilience.fallback import fallback
from agentkit.resilience.rate_limit import expecting, used
from agentkit.resilience.state import PolicyState, using

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.trace import Span

    from agentkit.clock import Clock
    from agentkit.ports.inference import Array, Inference

R = TypeVar("R")
T = TypeVar("T")

ANSWER_TOKENS = 500  # what a rate reserves for an answer whose length nobody limited; the truth is settled after it


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What a model answered: `output` as the type that was asked for, and what it took, questions that were asked again included."""

    output: T
    usage: Usage
    finish: FinishReason = "stop"


class Metering(Protocol):
    """Accounts for a call: entered before it is sent, told what it took, and left when it is over."""

    def __call__(self, model: str, request: Request, /) -> AbstractAsyncContextManager[Callable[[Usage], None]]: ...


Ask: TypeAlias = Callable[["Inference", str], Awaitable[R]]
"""One call of an engine under its own name for the model."""


class Models:
    """Models by the names that agents use.

    Args:
        models: an engine (then it serves the model under that name), or a `Model`.
    """

    def __init__(self, models: Mapping[str, object] | None = None) -> None:
        self._table = {name: _model(name, given) for name, given in (models or {}).items()}
        self.prices = PriceTable({name: model.price for name, model in self._table.items() if model.price is not None})
        self._aliases: Mapping[str, str] = {}
        self._state: PolicyState | None = None
        self._meter: Metering | None = None
        self._tenant = ""
        for name, model in self._table.items():
            for other in model.fallback:
                if other not in self._table:
                    raise UnknownModel(other, self._table, f"fallback of {name!r}")

    @classmethod
    def from_file(cls, path: str | PathLike[str], /, *, clock: Clock = SYSTEM) -> Self:
        """The models of a TOML file, see `docs/how-to/models.md`. Raises `InvalidSetting` with all its faults at once."""
        return cls(read(path, clock))

    def seen_by(
        self,
        *,
        aliases: Mapping[str, str] | None = None,
        state: PolicyState | None = None,
        meter: Metering | None = None,
        tenant: str = "",
    ) -> Self:
        """The same models as one run sees them: under its tenant's names, with its runtime's limits, and accounted for.

        Args:
            tenant: whose calls the metrics say they are.
        """
        seen = object.__new__(type(self))
        seen.__dict__.update(self.__dict__)
        seen._aliases = self._aliases if aliases is None else aliases
        seen._state, seen._meter, seen._tenant = state or self._state, meter or self._meter, tenant or self._tenant
        return seen

    @property
    def names(self) -> list[str]:
        """The names that are known."""
        return sorted(self._table)

    def engines(self) -> list[Inference]:
        """Every engine once."""
        return list({id(place.engine): place.engine for model in self._table.values() for place in model.places}.values())

    async def open(self) -> None:
        """Open the engines. May be called more than once; each call needs its `aclose`."""
        async with AsyncExitStack() as opened:
            for engine in self.engines():
                await engine.open()
                opened.push_async_callback(engine.aclose)
            opened.pop_all()

    async def aclose(self) -> None:
        """Close the engines."""
        async with AsyncExitStack() as closing:
            for engine in self.engines():
                closing.push_async_callback(engine.aclose)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /) -> None:
        await self.aclose()

    # Calls

    async def generate(self, model: str, prompt: Prompt, /) -> Reply[str]:
        """The answer to a prompt, as text.

        Raises:
            UnknownModel: nobody knows that name. Nothing was sent.
            InferenceError, Overloaded, CircuitOpen, DeadlineExceeded: as the policies and the engine say.
        """
        answer = await self.answer(Request(model=model, messages=conversation(prompt)))
        return Reply(answer.text, answer.usage, answer.finish)

    @asynccontextmanager
    async def stream(self, model: str, prompt: Prompt, /) -> AsyncGenerator[TextStream]:
        """The answer as it is made. Leaving the block closes it upstream. Raises as `generate`, and `StreamBroken` on the way."""
        async with self.events(Request(model=model, messages=conversation(prompt))) as events:
            yield TextStream(events)

    async def answer(self, request: Request) -> Answer:
        """The whole answer to a request whose `model` is one of our names. Its usage has its price. Raises as `generate`."""
        name = self._name(request.model)

        async def ask(engine: Inference, model: str) -> Answer:
            answer = await engine.generate(_sent(request, model))
            used(answer.usage.input_tokens + answer.usage.output_tokens)
            return answer

        async with self._metered(name, request) as spent:
            with self._limits(), expecting(request_tokens(request) + (request.max_tokens or ANSWER_TOKENS)):
                served, answer = await fallback([partial(self._asked, one, ask) for one in self._line(name)])
            answer = answer.model_copy(update={"usage": self._priced(served, answer.usage)})
            spent(answer.usage)
        return answer

    @asynccontextmanager
    async def events(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        """The events of an answer as they come; what the last `Used` says has its price. Raises as `stream`."""
        name = self._name(request.model)
        async with self._metered(name, request) as spent, AsyncExitStack() as stack:
            with self._limits(), expecting(request_tokens(request) + (request.max_tokens or ANSWER_TOKENS)):
                line = [partial(self._opened, stack, one, request) for one in self._line(name)]
                served, events = await fallback(line)
            heard = _Heard(events, partial(self._priced, served))
            try:
                yield heard
            finally:
                spent(heard.usage)

    async def embed(self, model: str, texts: Sequence[str], /) -> list[list[float]]:
        """A vector for each text. Raises as `generate`."""
        name = self._name(model)

        async def ask(engine: Inference, model: str) -> tuple[list[list[float]], Usage]:
            vectors, usage = await engine.embed(model, texts)
            used(usage.input_tokens)
            return vectors, usage

        async with self._metered(name, Request(model=model, messages=conversation("\n".join(texts)), max_tokens=0)) as spent:
            with self._limits():
                served, (vectors, usage) = await fallback([partial(self._asked, one, ask) for one in self._line(name)])
            spent(self._priced(served, usage))
        return vectors

    async def infer(self, model: str, inputs: Mapping[str, Array], /) -> Mapping[str, Array]:
        """Tensors in, tensors out, by name. Raises as `generate`."""

        async def ask(engine: Inference, model: str) -> Mapping[str, Array]:
            return await engine.infer(model, inputs)

        with self._limits():
            return (await fallback([partial(self._asked, one, ask) for one in self._line(self._name(model))]))[1]

    # The way of a call

    def _name(self, asked: str) -> str:
        """The name in the table. Raises `UnknownModel`."""
        name = self._aliases.get(asked, asked)
        self.find(name)
        return name

    def find(self, name: str) -> Model:
        """What a name stands for. Raises `UnknownModel`."""
        found = self._table.get(name)
        if found is None:
            raise UnknownModel(name, self._table)
        return found

    def _line(self, name: str) -> Sequence[str]:
        return (name, *self.find(name).fallback)

    async def _asked(self, name: str, ask: Ask[R]) -> tuple[str, R]:
        """One model under its policy, and its name."""
        model = self.find(name)
        once = partial(self._anywhere, name, model, ask)
        return name, await (once() if model.policy is None else model.policy.call(once))

    async def _anywhere(self, name: str, model: Model, ask: Ask[R]) -> R:
        return await fallback([partial(_at, place, name, ask) for place in choose(model.places, random.random())])

    async def _opened(self, stack: AsyncExitStack, name: str, request: Request) -> tuple[str, AsyncIterator[Event]]:
        model = self.find(name)
        open_once = partial(_open_anywhere, name, model, request)
        return name, await stack.enter_async_context(open_once() if model.policy is None else model.policy.stream(open_once))

    def _limits(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._state is None else using(self._state)

    @asynccontextmanager
    async def _metered(self, name: str, request: Request) -> AsyncGenerator[Callable[[Usage], None]]:
        """The span of a call, in the account's block; it is told what the call took."""
        account = _unmetered() if self._meter is None else self._meter(name, request)
        with telemetry.span(telemetry.MODEL, {telemetry.MODEL_NAME: name}) as span:
            async with account as spent:

                def book(usage: Usage) -> None:
                    spent(usage)
                    _tell(span, name, self._tenant, usage)

                yield book

    def _priced(self, name: str, usage: Usage) -> Usage:
        return self.prices.priced(name, usage, self._today())

    def _today(self) -> date:
        clock = SYSTEM if self._state is None else self._state.clock
        return datetime.fromtimestamp(clock.time(), UTC).date()


class TextStream:
    """The text of an answer, piece by piece. Iterate it once."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self.usage = Usage()
        """What it took, once it has ended."""

    async def __aiter__(self) -> AsyncGenerator[str]:
        async for event in self._events:
            if isinstance(event, Text):
                yield event.text
            elif isinstance(event, Used):
                self.usage = event.usage


class _Heard:
    """The events of an answer with their price; at the end the rate is told what was used."""

    def __init__(self, events: AsyncIterator[Event], priced: Callable[[Usage], Usage]) -> None:
        self._events, self._priced = events, priced
        self.usage = Usage()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await anext(self._events)
        if isinstance(event, Used):
            self.usage = self._priced(event.usage)
            return Used(self.usage)
        if isinstance(event, Finished):
            used(self.usage.input_tokens + self.usage.output_tokens)
        return event


async def _at(place: Place, name: str, ask: Ask[R]) -> R:
    """One engine under its endpoint's policy."""
    model = place.model or name
    return await (ask(place.engine, model) if place.policy is None else place.policy.call(ask, place.engine, model))


@asynccontextmanager
async def _open_anywhere(name: str, model: Model, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
    """The stream of the first engine that opens one."""
    async with AsyncExitStack() as stack:
        line = [partial(_open_at, stack, place, name, request) for place in choose(model.places, random.random())]
        yield await fallback(line)


async def _open_at(stack: AsyncExitStack, place: Place, name: str, request: Request) -> AsyncIterator[Event]:
    sent = _sent(request, place.model or name)
    stream = place.engine.stream(sent) if place.policy is None else place.policy.stream(place.engine.stream, sent)
    return await stack.enter_async_context(stream)


def _sent(request: Request, model: str) -> Request:
    """As the engine is asked: under its own name for the model, and told how long anybody waits."""
    left_s = remaining_s()
    return replace(request, model=model, timeout_s=left_s if isfinite(left_s) else request.timeout_s)


def _tell(span: Span, name: str, tenant: str, usage: Usage) -> None:
    span.set_attributes(
        {telemetry.INPUT_TOKENS: usage.input_tokens, telemetry.OUTPUT_TOKENS: usage.output_tokens, telemetry.USD: usage.usd}
    )
    attributes = {telemetry.MODEL_NAME: name, telemetry.TENANT: tenant}
    telemetry.MODEL_TOKENS_READ.add(usage.input_tokens, attributes)
    telemetry.MODEL_TOKENS_WRITTEN.add(usage.output_tokens, attributes)
    telemetry.MODEL_USD.add(usage.usd, attributes)


@asynccontextmanager
async def _unmetered() -> AsyncGenerator[Callable[[Usage], None]]:
    yield lambda _: None


def _model(name: str, given: object) -> Model:
    if isinstance(given, Model):
        return given
    if not all(hasattr(given, verb) for verb in ("generate", "stream", "open")):
        raise InvalidSetting(f"models[{name!r}]", given, "give an engine (an `Inference`) or a `Model(engine, …)`")
    return Model(cast("Inference", given))
