"""Asking models: answers whole or as they are made, embeddings, tensors, and how the engine behind fares.

Laws (each is a test in `agentkit.testing.inference`):

- `generate` returns what the events of `stream` make, and an answer that was cut is no answer.
- An event is handed on when it comes. The pieces of tool calls may be mixed, told apart by their index; each call is completed;
  `Used` comes before `Finished`, which is the last event of every whole answer, and of no other.
- What fails before the first event is raised on entering the stream, so that another engine may still be asked. What fails later is
  `StreamBroken` with the text that came.
- Leaving a stream, however it is left, closes it upstream at once; so does cancelling a call. A cancellation stays one: it is no error.
- One call reaches the engine once, however it ends: retries are the caller's. Calls run beside each other.
- Every failure has its type in `agentkit.errors`, with the driver's error as its cause.
- What the engine cannot do (see `capabilities`) is refused as `Unsupported` before anything is sent.
- `health` always answers; `load` counts what runs and what waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, NamedTuple, Protocol

from agentkit.errors import Unsupported
from agentkit.ports.messages import UNUSED, Answer, Assembly, Event, Request, Usage


class Array(Protocol):
    """A tensor, of whatever library: what NumPy can read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __array__(self) -> Any: ...


class Endpoint(NamedTuple):
    """A server as a file of models describes it: what an adapter makes an engine from."""

    name: str
    """For errors, spans and metrics."""
    url: str
    dialect: str = ""
    """Where servers of one protocol differ."""
    api_key: str = ""
    max_concurrency: int = 32
    """So many calls at a time: as many connections are enough."""

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, {self.url!r})"  # a key shows up nowhere


class Embeddings(NamedTuple):
    """One vector for each text, in their order."""

    vectors: list[list[float]]
    usage: Usage = UNUSED


class Health(NamedTuple):
    """Whether the engine answers now. `says` is the reason when it does not."""

    ready: bool
    models: tuple[str, ...] = ()
    says: str = ""


class EngineLoad(NamedTuple):
    """How busy an engine is. It steers routing and scaling."""

    queued: int
    running: int
    kv_used: float | None = None
    """Of its cache for attention, 0 to 1; None where nobody knows."""
    age_s: float = 0.0
    """How old these numbers are."""
    source: Literal["gauges", "own count"] = "own count"
    """The engine's own gauges count everybody's calls, an own count only those that went through this adapter."""


class Capabilities(NamedTuple):
    """What an engine can do."""

    tools: bool = True
    output: bool = True
    """Holds its answer to a JSON schema."""
    attachments: bool = True
    seed: bool = True
    embed: bool = True
    infer: bool = False
    closes: bool = True
    """Stops computing when its caller leaves."""

    def check(self, request: Request, endpoint: str) -> None:
        """Raises `Unsupported` for a request that needs more."""
        asked = {
            "tools": bool(request.tools),
            "output": request.output is not None,
            "attachments": any(message.attachments for message in request.messages),
            "seed": request.seed is not None,
        }
        if missing := [ability for ability, needed in asked.items() if needed and not getattr(self, ability)]:
            raise Unsupported(endpoint, f"model {request.model!r} is asked for {', '.join(missing)}, which this engine does not offer")


class Inference(Protocol):
    """An engine that serves models. Each call raises an `InferenceError`, whose kinds say what may have happened."""

    async def open(self) -> None:
        """Prepare; no model is asked. May be called more than once; each call needs its `aclose`."""
        ...

    async def aclose(self) -> None: ...

    async def generate(self, request: Request) -> Answer:
        """The whole answer."""
        ...

    def stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """The answer as it is made. Entering sends the request and returns with the first event at hand; leaving closes it upstream."""
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """A vector for each text. Nothing is sent for no texts."""
        ...

    async def infer(self, model: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Tensors in, tensors out, by name."""
        ...

    async def health(self) -> Health:
        """Whether the engine answers now. Never raises an `InferenceError`."""
        ...

    async def load(self) -> EngineLoad:
        """How busy the engine is now."""
        ...

    async def capabilities(self) -> Capabilities:
        """What the engine can do, as declared or probed. Asked once and kept by who needs it often."""
        ...


async def collect(stream: AbstractAsyncContextManager[AsyncIterator[Event]], endpoint: str) -> Answer:
    """`generate` over `stream`. Raises what the stream raises."""
    assembly = Assembly(endpoint)
    async with stream as events:
        async for event in events:
            assembly.add(event)
    return assembly.answer()
