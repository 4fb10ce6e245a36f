"""An engine that answers by a script: for tests, for tutorials, and for what runs where no model is."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import repeat
from math import inf, sqrt
from typing import NoReturn, TypeAlias

from anyio import CapacityLimiter
from anyio.lowlevel import checkpoint

from agentkit.clock import SYSTEM, Clock
from agentkit.errors import InferenceError, ModelNotFound, ScriptExhausted, StreamBroken, Unreachable, Unsupported, nearest
from agentkit.inmemory.url import whole_numbers
from agentkit.ports.inference import Array, Capabilities, Embeddings, Endpoint, EngineLoad, Health, collect
from agentkit.ports.messages import Answer, Assembly, Event, Finished, Request, Text, Usage, Used

DIMENSIONS = 64  # of a vector: enough that two texts without a common word are rarely near each other

EVERYTHING = Capabilities(infer=True)

_WORD = re.compile(r"\w+")


class Delay:
    """Time that passes before what comes next. On a test's clock it passes when the test lets it."""

    def __init__(self, seconds: float, /) -> None:
        self.seconds = seconds

    def __repr__(self) -> str:
        return f"Delay({self.seconds:g})"


Part: TypeAlias = Event | Delay | Exception
"""A step of a scripted answer: an event, time that passes, or an error at which it ends."""

Script: TypeAlias = Sequence[Part] | Callable[[Request], Sequence[Part]]
"""One answer, or what makes one for a request."""

Infer: TypeAlias = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]


class Playing:
    """The events of one answer, each when it is due. Ends as the port says: after `Finished`, or with an error.

    Args:
        parts: what happens, in order.
        endpoint: the name in errors.
        clock: the time of delays.
    """

    def __init__(self, parts: Iterable[Part], endpoint: str, clock: Clock) -> None:
        self._parts = iter(parts)
        self._clock = clock
        self._heard = Assembly(endpoint)
        self._endpoint = endpoint
        self._begun = False
        self._first: Event | None = None

    async def begin(self) -> None:
        """Return with the first event at hand. Raises what the answer begins with, if that is an error."""
        self._first = await self._next()
        self._begun = True

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._first is not None:
            event, self._first = self._first, None
            return event
        if not self._heard.unfinished:
            raise StopAsyncIteration
        return await self._next()

    async def _next(self) -> Event:
        for part in self._parts:
            if isinstance(part, Delay):
                await self._clock.sleep(part.seconds)
            elif isinstance(part, Exception):
                self._fail(part)
            else:
                await checkpoint()
                self._heard.add(part)
                return part
        raise StreamBroken(self._endpoint, "the answer ended without saying why", text=self._heard.text)

    def _fail(self, error: Exception) -> NoReturn:
        """Raise it as a caller sees it: once something was heard, no failure of the engine may be answered by asking again."""
        if not self._begun or not isinstance(error, InferenceError):
            raise error.with_traceback(None)  # the same object may be raised for many calls
        raise StreamBroken(error.endpoint, error.problem, text=self._heard.text, retry_after_s=error.retry_after_s) from error


def from_endpoint(endpoint: Endpoint, *, clock: Clock = SYSTEM) -> ScriptedInference:
    """`memory://`: an engine that says what it was told, for trying things out without a server."""
    whole_numbers(endpoint.url, frozenset())
    return ScriptedInference(repeat(_echo), name=endpoint.name, slots=endpoint.max_concurrency, clock=clock)


def _echo(request: Request) -> Sequence[Part]:
    said = request.messages[-1].content
    words = sum(len(message.content.split()) for message in request.messages)
    return [Text(said), Used(Usage(input_tokens=words, output_tokens=len(said.split()))), Finished("stop")]


class ScriptedInference:
    """An `Inference` that answers by a script, each call with the next of it, in the order in which the calls come.

    Args:
        script: the answers. An endless one is taken as far as it is needed.
        name: the endpoint's name in errors.
        serves: the models that it knows; any, if empty.
        slots: how many calls run at a time; the others wait.
        capabilities: what it says that it can do, and refuses otherwise.
        infer: what answers `infer`; without it there is none.
        clock: the time of delays. May be set later, before the first call.
    """

    def __init__(
        self,
        script: Iterable[Script] = (),
        *,
        name: str = "scripted",
        serves: Collection[str] = (),
        slots: float = inf,
        capabilities: Capabilities = EVERYTHING,
        infer: Infer | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.clock = clock
        self.name = name
        self.requests: list[Request] = []
        """What it was asked so far."""
        self.down = ""
        """Set to a reason: from then on nobody reaches it, until it is empty again."""
        self._script = iter(script)
        self._serves = frozenset(serves)
        self.slots = CapacityLimiter(slots)
        self._infer = infer
        self._capabilities = capabilities._replace(infer=capabilities.infer and infer is not None)

    async def open(self) -> None:
        """Nothing to prepare."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def generate(self, request: Request) -> Answer:
        """The next answer of the script, whole. Raises `ScriptExhausted` after the last."""
        return await collect(self.stream(request), self.name)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        """The next answer of the script, as it comes due. Raises `ScriptExhausted` after the last."""
        self._capabilities.check(request, self.name)
        self._reach(request.model)
        parts = self._take(request)
        async with self._slot():
            playing = Playing(parts, self.name, self.clock)
            await playing.begin()
            yield playing

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Vectors made of the words of the texts: the same ones everywhere, and near each other for texts that share words."""
        if not self._capabilities.embed:
            raise Unsupported(self.name, "it makes no embeddings")
        if not texts:
            return Embeddings([])
        self._reach(model)
        async with self._slot():
            return Embeddings([_vector(text) for text in texts], Usage(input_tokens=sum(len(text.split()) for text in texts)))

    async def infer(self, model: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """What the function `infer` returns."""
        if self._infer is None:
            raise Unsupported(self.name, "it takes no tensors; give ScriptedInference(infer=…) a function that does")
        self._reach(model)
        async with self._slot():
            return self._infer(model, inputs)

    async def health(self) -> Health:
        """Ready, unless `down` is set."""
        await checkpoint()
        return Health(ready=not self.down, models=tuple(sorted(self._serves)), says=self.down)

    async def load(self) -> EngineLoad:
        """How many calls run in this object, and how many wait for a slot."""
        await checkpoint()
        self._reach()
        seen = self.slots.statistics()
        return EngineLoad(queued=seen.tasks_waiting, running=seen.borrowed_tokens)

    async def capabilities(self) -> Capabilities:
        """As it was told."""
        await checkpoint()
        return self._capabilities

    def _reach(self, model: str | None = None) -> None:
        if self.down:
            raise Unreachable(self.name, self.down)
        if model is not None and self._serves and model not in self._serves:
            raise ModelNotFound(self.name, f"it serves no model {model!r}{nearest(model, self._serves)}")

    def _take(self, request: Request) -> Sequence[Part]:
        self.requests.append(request)
        script = next(self._script, None)
        if script is None:
            raise ScriptExhausted(self.name, f"there is no reply left for call {len(self.requests)}")
        return script(request) if callable(script) else script

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None]:
        call = object()  # not the task: one may listen to several streams
        await self.slots.acquire_on_behalf_of(call)
        try:
            yield
        finally:
            self.slots.release_on_behalf_of(call)


def _vector(text: str) -> list[float]:
    """Each word adds 1 or takes 1 at a place that its digest says; the whole has length 1, unless there is no word in it."""
    vector = [0.0] * DIMENSIONS
    for word in _WORD.findall(text.casefold()):
        digest = sha256(word.encode()).digest()
        vector[digest[0] % DIMENSIONS] += 1.0 if digest[1] % 2 else -1.0
    length = sqrt(sum(x * x for x in vector)) or 1.0
    return [x / length for x in vector]
