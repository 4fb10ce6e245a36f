"""Record what a real model answers, once, and have tests answered from the file ever after."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import MISSING, fields
from difflib import SequenceMatcher, unified_diff
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from anyio import CancelScope, Lock, to_thread
from anyio.lowlevel import checkpoint
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from agentkit import errors
from agentkit.clock import SYSTEM, Clock
from agentkit.errors import InferenceError, Misuse, NotRecorded, StreamBroken, Unsupported
from agentkit.inmemory.inference import Delay, Part, Playing
from agentkit.ports.inference import Array, Capabilities, Embeddings, EngineLoad, Health, Inference
from agentkit.ports.messages import Answer, Event, Finished, Request

SHOWN_LINES = 40  # of the difference to the nearest recorded call: enough to see what changed, or that it is another call altogether
MANNER = {"priority", "affinity", "request_id", "timeout_s"}  # how a call is treated is not part of what is asked

_EVENTS: dict[str, TypeAdapter[Event]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(Event)}

Call = Literal["generate", "stream", "embed"]


class Fault(BaseModel):
    """A recorded error."""

    kind: str
    endpoint: str
    problem: str
    retry_after_s: float | None = None
    text: str = ""

    @classmethod
    def of(cls, error: InferenceError) -> Fault:
        kind = next(base.__name__ for base in type(error).__mro__ if getattr(errors, base.__name__, None) is base)
        text = error.text if isinstance(error, StreamBroken) else ""
        return cls(kind=kind, endpoint=error.endpoint, problem=error.problem, retry_after_s=error.retry_after_s, text=text)

    def error(self) -> InferenceError:
        if self.kind == StreamBroken.__name__:
            return StreamBroken(self.endpoint, self.problem, text=self.text, retry_after_s=self.retry_after_s)
        kind: type[InferenceError] = getattr(errors, self.kind)
        return kind(self.endpoint, self.problem, retry_after_s=self.retry_after_s)


class Line(BaseModel):
    """A recorded call: what was asked and what came of it. `events` are (milliseconds since the call began, kind, fields)."""

    digest: str
    call: Call
    asked: dict[str, Any]
    answer: Answer | None = None
    events: list[tuple[int, str, dict[str, Any]]] = Field(default_factory=list[tuple[int, str, dict[str, Any]]])
    embeddings: Embeddings | None = None
    error: Fault | None = None
    left: bool = False
    """Whoever listened went before the end."""

    @property
    def something_came(self) -> bool:
        """False for a call that was cancelled before anything was known of it."""
        return bool(self.answer or self.events or self.embeddings or self.error)


class Head(BaseModel):
    """The first line of a file."""

    agentkit_recording: Literal[1] = 1
    capabilities: Capabilities


class Recording:
    """An `Inference` that records the calls of another one in a file, and answers from the file once it is there.

    The file is JSON lines, fit for version control: a line for each call, with what was asked, what was answered, and when. An endpoint's
    keys and headers are not in it, for they are no part of a request; values of pydantic's secret types are masked. A call that is made
    several times is answered in the order in which it was recorded. Tensors (`infer`) are not recorded.

    Args:
        path: the file. Delete it to record anew. It is written, whole, when the recording is closed.
        inner: what is recorded, opened and closed with the recording; it is not touched when the file is there. Without it nothing can be
            recorded, which is what continuous integration wants.
        paced: let as much time pass between events as the real model took.
        clock: the time that is recorded and waited for. May be set later, before it is opened.
    """

    def __init__(self, path: str | os.PathLike[str], inner: Inference | None = None, *, paced: bool = False, clock: Clock = SYSTEM) -> None:
        self.path = Path(path)
        self.clock = clock
        self._inner = inner
        self._paced = paced
        self._openings = 0
        self._turn = Lock()
        self._tape: _Recorder | _Player | None = None

    async def open(self) -> None:
        """Read the file, or open what is recorded. Raises `NotRecorded` when there is neither, or the file is not a recording."""
        async with self._turn:
            if self._tape is None:
                self._tape = await self._begin()
            self._openings += 1

    async def aclose(self) -> None:
        """Write the file if calls were recorded."""
        self._openings -= 1
        if self._openings:
            return
        tape, self._tape = self._tape, None
        if isinstance(tape, _Recorder):
            with CancelScope(shield=True):  # what a cancelled test has recorded was paid for all the same
                try:
                    await self._save(tape)
                finally:
                    await tape.inner.aclose()

    async def generate(self, request: Request) -> Answer:
        """The recorded answer, or the real one. Raises `NotRecorded`, or the recorded error."""
        return await self._opened.generate(request)

    def stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """The recorded events, or the real ones. Raises `NotRecorded`, or the recorded error."""
        return self._opened.stream(request)

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """The recorded vectors, or the real ones. Raises `NotRecorded`, or the recorded error."""
        return await self._opened.embed(model, texts)

    async def infer(self, model: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Raises `Unsupported`."""
        await checkpoint()
        raise Unsupported(str(self.path), "tensors are not recorded; give the test a ScriptedModel(infer=…)")

    async def health(self) -> Health:
        """Of what is recorded; a file is always ready."""
        return await self._opened.health()

    async def load(self) -> EngineLoad:
        """Of what is recorded; a file has none."""
        return await self._opened.load()

    async def capabilities(self) -> Capabilities:
        """Of what is recorded, or was."""
        return await self._opened.capabilities()

    @property
    def _opened(self) -> _Recorder | _Player:
        if self._tape is None:
            raise Misuse(f"the recording {str(self.path)!r} is not open: call open() before, and aclose() after")
        return self._tape

    async def _begin(self) -> _Recorder | _Player:
        text = await to_thread.run_sync(_read, self.path)
        if text is not None:
            return _Player(self.path, text, self._paced, self.clock)
        if self._inner is None:
            raise NotRecorded(str(self.path), "there is no such file, and no inner=… to record")
        await self._inner.open()
        return _Recorder(self._inner, self.clock)

    async def _save(self, tape: _Recorder) -> None:
        lines: list[BaseModel] = [line for line in tape.lines if line.something_came]
        if lines:
            head = Head(capabilities=await tape.capabilities())
            text = "".join(f"{line.model_dump_json(exclude_defaults=True)}\n" for line in lines)
            await to_thread.run_sync(_replace, self.path, f"{head.model_dump_json()}\n{text}")


class _Recorder:
    """Asks the real model and notes what comes."""

    def __init__(self, inner: Inference, clock: Clock) -> None:
        self.inner = inner
        self._clock = clock
        self.lines: list[Line] = []
        self.health, self.load, self.capabilities = inner.health, inner.load, inner.capabilities

    async def generate(self, request: Request) -> Answer:
        line = self._begin("generate", what_is_asked(request))
        with _noting_failure(line):
            line.answer = await self.inner.generate(request)
        return line.answer

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        line = self._begin("embed", {"model": model, "texts": list(texts)})
        with _noting_failure(line):
            line.embeddings = await self.inner.embed(model, texts)
        return line.embeddings

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        line = self._begin("stream", what_is_asked(request))
        began = self._clock.monotonic()
        async with AsyncExitStack() as stack:
            with _noting_failure(line):
                events = await stack.enter_async_context(self.inner.stream(request))
            line.left = True
            yield _Noted(events, line, began, self._clock)

    def _begin(self, call: Call, asked: dict[str, Any]) -> Line:
        self.lines.append(line := Line(digest=digest(call, asked), call=call, asked=asked))
        return line


class _Noted:
    """Events on their way to whoever listens, each noted."""

    def __init__(self, events: AsyncIterator[Event], line: Line, began: float, clock: Clock) -> None:
        self._events, self._line, self._began, self._clock = events, line, began, clock

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        with _noting_failure(self._line):
            event = await anext(self._events)
        at_ms = round(1000 * (self._clock.monotonic() - self._began))
        self._line.events.append((at_ms, type(event).__name__, to_jsonable_python(event)))
        self._line.left = not isinstance(event, Finished)
        return event


class _Player:
    """Answers from a file."""

    def __init__(self, path: Path, text: str, paced: bool, clock: Clock) -> None:
        self._path, self._paced, self._clock = path, paced, clock
        self._head, self._lines = _parse(path, text)
        self._played = Counter[str]()

    async def generate(self, request: Request) -> Answer:
        line = await self._next("generate", what_is_asked(request))
        assert line.answer is not None
        return line.answer

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        line = await self._next("embed", {"model": model, "texts": list(texts)})
        assert line.embeddings is not None
        return line.embeddings

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        line = await self._next("stream", what_is_asked(request))
        playing = Playing(self._parts(line), str(self._path), self._clock)
        await playing.begin()
        yield playing

    async def health(self) -> Health:
        await checkpoint()
        return Health(ready=True, says=f"recorded in {self._path}")

    async def load(self) -> EngineLoad:
        await checkpoint()
        return EngineLoad(queued=0, running=0)

    async def capabilities(self) -> Capabilities:
        await checkpoint()
        return self._head.capabilities

    async def _next(self, call: Call, asked: dict[str, Any]) -> Line:
        """The next recorded line of this call. Raises its error, unless events came before it."""
        await checkpoint()
        key = digest(call, asked)
        same = [line for line in self._lines if line.digest == key]
        if self._played[key] == len(same):
            raise NotRecorded(str(self._path), _missing(call, asked, len(same), self._lines))
        line = same[self._played[key]]
        self._played[key] += 1
        if line.error is not None and not line.events:
            raise line.error.error()
        return line

    def _parts(self, line: Line) -> list[Part]:
        parts: list[Part] = []
        before_ms = 0
        for at_ms, kind, values in line.events:
            if self._paced:
                parts.append(Delay((at_ms - before_ms) / 1000))
            parts.append(_EVENTS[kind].validate_python(values))
            before_ms = at_ms
        if line.error is not None:
            parts.append(line.error.error())
        elif line.left:
            parts.append(NotRecorded(str(self._path), "whoever listened when this was recorded went away here"))
        return parts


def what_is_asked(request: Request) -> dict[str, Any]:
    """A request as plain JSON, without how it is to be treated, secrets masked. What has its default is left out, so that a
    recording outlives a new field.
    """
    asked = {field.name: getattr(request, field.name) for field in fields(request) if field.name not in MANNER}
    given = {field.name for field in fields(request) if field.default is MISSING or asked.get(field.name) != field.default}
    plain: dict[str, Any] = {
        **{name: value for name, value in asked.items() if name in given and value != {}},
        "messages": [message.model_dump(exclude_defaults=True) for message in request.messages],
        "tools": [tool._asdict() for tool in request.tools],
    }
    written: dict[str, Any] = to_jsonable_python({name: value for name, value in plain.items() if value != []}, fallback=_by_type)
    return written


def digest(call: str, asked: Mapping[str, Any]) -> str:
    """What two calls that ask the same have in common."""
    return sha256(_text(call, asked).encode()).hexdigest()[:32]


def _text(call: str, asked: Mapping[str, Any]) -> str:
    return json.dumps({"call": call, **asked}, sort_keys=True, ensure_ascii=False, indent=1)


def _by_type(value: object) -> str:
    return f"<{type(value).__qualname__}>"


def _missing(call: str, asked: Mapping[str, Any], times: int, lines: Sequence[Line]) -> str:
    """Why a call has no answer, with what tells it from the nearest recorded one."""
    if times:
        return f"this call was recorded {times} times and is now made once more:\n{_text(call, asked)}"
    wanted = _text(call, asked).split("\n")
    recorded = [_text(line.call, line.asked).split("\n") for line in lines] or [[""]]
    nearest = max(recorded, key=lambda text: SequenceMatcher(None, wanted, text, autojunk=False).ratio())
    difference = list(unified_diff(nearest, wanted, "the nearest recorded call", "this call", lineterm=""))
    more = [f"… and {len(difference) - SHOWN_LINES} lines more"] if len(difference) > SHOWN_LINES else []
    return "\n".join(["this call was not recorded", *difference[:SHOWN_LINES], *more])


@contextmanager
def _noting_failure(line: Line) -> Generator[None]:
    try:
        yield
    except InferenceError as exc:
        line.error, line.left = Fault.of(exc), False
        raise


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _replace(path: Path, text: str) -> None:
    """Nobody ever reads half a file, however many write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _parse(path: Path, text: str) -> tuple[Head, list[Line]]:
    first, *rest = text.removesuffix("\n").split("\n")  # not splitlines: a text may hold other separators
    number = 1
    try:
        head = Head.model_validate_json(first)
        lines: list[Line] = []
        for number, line in enumerate(rest, 2):  # noqa: B007  the number is for the error
            lines.append(Line.model_validate_json(line))
    except ValidationError as exc:
        raise NotRecorded(str(path), f"line {number} is no line of a recording: {exc.errors()[0]['msg']}") from exc
    return head, lines
