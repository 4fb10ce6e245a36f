"""The laws of the `Inference` port as tests. An adapter's test file is a subclass with one fixture:

class TestMyInference(InferenceContract):
    @pytest.fixture
    async def engine(self, clock):
        async with MyFakeServer() as server:
            yield MyEngine(server)

where `MyEngine` has what `Engine` asks for: the adapter, opened, and the test's hands on the server behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol

import anyio
import pytest

from agentkit.errors import (
    AuthFailed,
    ConnectionCut,
    ContentFiltered,
    ContextTooLong,
    EngineBusy,
    EngineFailed,
    InferenceError,
    InferenceTimeout,
    ModelNotFound,
    RateLimited,
    RequestRefused,
    StreamBroken,
    Unreachable,
    Unsupported,
)
from agentkit.inmemory.inference import Delay, Part
from agentkit.ports.inference import Array, Inference, collect
from agentkit.ports.messages import (
    Attachment,
    CallArguments,
    CallComplete,
    CallStarted,
    Event,
    Finished,
    FinishReason,
    Message,
    Request,
    Text,
    ToolCall,
    ToolSpec,
    Usage,
    Used,
    assemble,
    conversation,
)
from agentkit.testing import contract
from agentkit.testing.contract import Contract, needs

SILENCE = Delay(3600.0)  # the engine says nothing more until its caller has gone

USED = Used(Usage(input_tokens=3, output_tokens=2))
WHOLE: list[Part] = [Text("It is "), Text("sunny."), USED, Finished("stop")]
CUT: list[Part] = [Text("It is "), Text("sun"), ConnectionCut("engine", "reset by peer")]
UNFINISHED: list[Part] = [Text("It is "), Text("sun")]
TWO_CALLS: list[Event] = [
    CallStarted(0, "call_a", "weather"),
    CallArguments(0, '{"city": '),
    CallStarted(1, "call_b", "time"),
    CallArguments(1, '{"zone": "'),
    CallArguments(0, '"Zürich"}'),
    CallArguments(1, 'CET"}'),
    CallComplete(0),
    CallComplete(1),
    USED,
    Finished("tool_calls"),
]
ANSWERS: dict[str, list[Event]] = {
    "text": [Text("One\n"), Text("two é"), Text(" 😀 \u2028"), Text(' "3"'), USED, Finished("stop")],
    "nothing": [USED, Finished("stop")],
    "two calls": TWO_CALLS,
    "text and a call": [Text("Let me see."), *TWO_CALLS[:2], CallArguments(0, '"Rome"}'), CallComplete(0), USED, Finished("tool_calls")],
    "a call that is no JSON": [CallStarted(0, "c", "f"), CallArguments(0, '{"a": tru'), CallComplete(0), USED, Finished("length")],
}
FAILURES: list[InferenceError] = [
    RateLimited("engine", "slow down"),
    EngineBusy("engine", "the queue is full"),
    EngineFailed("engine", "internal error"),
    InferenceTimeout("engine", "took too long"),
    ConnectionCut("engine", "reset by peer"),
    AuthFailed("engine", "no such key"),
    ContentFiltered("engine", "against the rules"),
    RequestRefused("engine", "temperature out of range"),
    ContextTooLong("engine", "9000 tokens, the limit is 8192"),
]


CONVERSATION = [
    Message(role="system", content="Answer briefly."),
    Message(role="user", content="Where is parcel 17?"),
    Message(role="assistant", content="It left Rome."),
    Message(role="user", content="And now?"),
]
A_TOOL_WAS_CALLED = [
    Message(role="assistant", content="", tool_calls=[ToolCall(id="call_9", name="find", arguments="{}")]),
    Message(role="tool", content="gone to Oslo", tool_call_id="call_9"),
]
FIND = ToolSpec("find", "Finds a parcel.", {"type": "object", "properties": {"parcel_id": {"type": "string"}}})
PICTURE = Attachment(media_type="image/png", url="data:,")


class Engine(Protocol):
    """The adapter under test, and what stands behind it, in the test's hands."""

    @property
    def inference(self) -> Inference:
        """The adapter, open. It serves `model`, and embeds; if it takes tensors, it gives them back under the same names."""
        ...

    @property
    def plain(self) -> Inference:
        """The same, made to say in its capabilities that it offers nothing but text."""
        ...

    def script(self, *answers: Sequence[Part]) -> None:
        """Answer the next calls so, in the order in which they come. `SILENCE` lasts until the caller has gone."""
        ...

    @property
    def asked(self) -> int:
        """How many calls of `generate` and `stream` reached it so far."""
        ...

    @property
    def heard(self) -> str:
        """The last of them as it came, as text."""
        ...

    async def listeners(self) -> int:
        """How many callers it still has a connection to, in the midst of their calls."""
        ...

    async def stop(self) -> None:
        """From now on nobody answers."""
        ...


class Tensor:
    """As little as an `Array` may be."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __array__(self) -> Any:
        raise TypeError("give the suite tensors that the adapter can read: override the fixture `tensors`")


class InferenceContract(Contract):
    """Every law of an inference adapter. Needs the fixture `engine`: an `Engine`, with the time of `clock` where that matters.

    Override `tensors` where the adapter offers `infer`, and `failures` where the engine cannot say one of them.
    """

    model: str = "m"
    failures: Sequence[InferenceError] = FAILURES

    @pytest.fixture
    def tensors(self) -> Mapping[str, Array]:
        """What is sent to `infer`."""
        return {"ids": Tensor(2, 3), "mask": Tensor(2, 3)}

    def request(self, **more: Any) -> Request:
        return replace(Request(model=self.model, messages=conversation("How is the weather?")), **more)

    async def events(self, engine: Engine) -> list[Event]:
        async with engine.inference.stream(self.request()) as stream:
            return [event async for event in stream]

    async def test_it_may_be_opened_again_and_each_opening_is_closed_by_itself(self, engine: Engine) -> None:
        await engine.inference.open()
        await engine.inference.aclose()
        engine.script(WHOLE)
        assert (await engine.inference.generate(self.request())).text == "It is sunny."

    @pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
    async def test_an_answer_is_what_the_events_of_its_stream_make(self, engine: Engine, answer: list[Event]) -> None:
        engine.script(answer, answer)
        assert await collect(engine.inference.stream(self.request()), "engine") == assemble(answer)
        assert await engine.inference.generate(self.request()) == assemble(answer)

    async def test_what_is_asked_reaches_the_engine_whole(self, engine: Engine) -> None:
        asked = self.request(messages=CONVERSATION, stop=["END OF IT"], max_tokens=5417, temperature=0.375)
        said = ["Answer briefly.", "Where is parcel 17?", "It left Rome.", "END OF IT", "5417", "0.375"]
        if (await engine.inference.capabilities()).tools:
            asked = replace(asked, messages=[*CONVERSATION[:2], *A_TOOL_WAS_CALLED, *CONVERSATION[2:]], tools=[FIND])
            said += ["call_9", "find", "parcel_id", "gone to Oslo", "Finds a parcel."]
        engine.script(WHOLE)
        await engine.inference.generate(asked)
        assert [words for words in said if words not in engine.heard] == []

    async def test_an_event_is_handed_on_before_the_next_one_is_made(self, engine: Engine) -> None:
        engine.script([Text("It is "), SILENCE, *WHOLE])
        with soon("the first event"):
            async with engine.inference.stream(self.request()) as events:
                assert await anext(events) == Text("It is ")

    async def test_each_tool_call_is_completed_once_after_its_last_piece(self, engine: Engine) -> None:
        engine.script(TWO_CALLS)
        events = await self.events(engine)
        for index in (0, 1):
            of_this = [event for event in events if isinstance(event, CallStarted | CallArguments | CallComplete) and event.index == index]
            assert isinstance(of_this[0], CallStarted)
            assert [isinstance(event, CallComplete) for event in of_this] == [False] * (len(of_this) - 1) + [True]

    async def test_the_last_event_says_why_it_finished_and_one_before_it_what_it_used(self, engine: Engine) -> None:
        engine.script(WHOLE)
        events = await self.events(engine)
        assert [event for event in events if isinstance(event, Finished)] == [events[-1]] == [Finished("stop")]
        assert [event for event in events if isinstance(event, Used)][-1:] == [USED]

    @pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
    async def test_why_an_answer_finished_is_told(self, engine: Engine, reason: FinishReason) -> None:
        engine.script([Text("It is "), USED, Finished(reason)])
        assert (await engine.inference.generate(self.request())).finish == reason

    async def test_what_fails_before_the_first_event_is_raised_on_entering_the_stream(self, engine: Engine) -> None:
        engine.script([EngineBusy("engine", "the queue is full")])
        entered = False
        with pytest.raises(EngineBusy):
            async with engine.inference.stream(self.request()):
                entered = True
        assert not entered

    async def test_every_failure_has_its_type(self, engine: Engine) -> None:
        for failure in self.failures:
            engine.script([failure], [failure])
            with pytest.raises(InferenceError) as generated:
                await engine.inference.generate(self.request())
            with pytest.raises(InferenceError) as streamed:
                await self.events(engine)
            assert (type(generated.value), type(streamed.value)) == (type(failure), type(failure))

    @pytest.mark.parametrize("kind", [RateLimited, EngineBusy])
    async def test_who_is_turned_away_is_told_when_to_try_again(self, engine: Engine, kind: type[InferenceError]) -> None:
        engine.script([kind("engine", "later", retry_after_s=7.0)])
        with pytest.raises(kind) as refused:
            await engine.inference.generate(self.request())
        assert refused.value.retry_after_s == 7.0

    @pytest.mark.parametrize("answer", [CUT, UNFINISHED], ids=["cut", "unfinished"])
    async def test_a_stream_that_breaks_says_so_and_keeps_what_came(self, engine: Engine, answer: list[Part]) -> None:
        engine.script(answer)
        heard: list[Event] = []

        async def listen() -> None:
            async with engine.inference.stream(self.request()) as events:
                async for event in events:
                    heard.append(event)  # noqa: PERF401  a comprehension would lose what came

        with pytest.raises(StreamBroken) as broken:
            await listen()
        assert "".join(event.text for event in heard if isinstance(event, Text)) == "It is sun"
        assert broken.value.text == "It is sun"

    @pytest.mark.parametrize("answer", [CUT, UNFINISHED], ids=["cut", "unfinished"])
    async def test_an_answer_that_was_cut_is_no_answer(self, engine: Engine, answer: list[Part]) -> None:
        engine.script(answer)
        with pytest.raises((StreamBroken, ConnectionCut)):
            await engine.inference.generate(self.request())

    @pytest.mark.parametrize("how", ["leaving it", "an error", "a cancellation"])
    async def test_leaving_a_stream_closes_it_upstream(self, engine: Engine, how: str) -> None:
        engine.script([Text("It is "), SILENCE, *WHOLE])
        with anyio.CancelScope() as scope, expected(RuntimeError if how == "an error" else None):
            async with engine.inference.stream(self.request()) as events:
                await anext(events)
                await until(engine, lambda listeners: listeners == 1)
                if how == "an error":
                    raise RuntimeError("of the listener's own")
                if how == "a cancellation":
                    scope.cancel()
                    await anext(events)
        assert scope.cancelled_caught is (how == "a cancellation")
        await until(engine, lambda listeners: listeners == 0)

    @pytest.mark.parametrize("how", ["generate", "stream"])
    async def test_a_cancelled_call_is_closed_upstream_and_stays_a_cancellation(self, engine: Engine, how: str) -> None:
        engine.script([SILENCE, *WHOLE])
        ended: list[BaseException] = []

        async def call() -> None:
            try:
                await (engine.inference.generate(self.request()) if how == "generate" else self.events(engine))
            except Exception as exc:  # noqa: BLE001  the law is about what comes here
                ended.append(exc)
            except BaseException as exc:
                ended.append(exc)
                raise

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await until(engine, lambda listeners: listeners == 1)
            group.cancel_scope.cancel()
        assert [isinstance(exc, anyio.get_cancelled_exc_class()) for exc in ended] == [True]
        await until(engine, lambda listeners: listeners == 0)

    @pytest.mark.parametrize("answer", [[EngineBusy("engine", "full")], [ConnectionCut("engine", "reset")], CUT, WHOLE])
    async def test_a_call_reaches_the_engine_once_however_it_ends(self, engine: Engine, answer: list[Part]) -> None:
        calls: list[Callable[[], Awaitable[object]]] = [lambda: engine.inference.generate(self.request()), lambda: self.events(engine)]
        for call in calls:
            before = engine.asked
            engine.script(answer)
            with suppress(InferenceError):
                await call()
            assert engine.asked == before + 1

    async def test_calls_run_beside_each_other_and_one_that_fails_leaves_the_others_alone(self, engine: Engine) -> None:
        engine.script([Text("It is "), SILENCE, *WHOLE], [EngineFailed("engine", "internal error")], CUT, WHOLE)
        async with engine.inference.stream(self.request()) as events:
            await anext(events)
            for _ in range(2):
                with soon("a call beside a stream"), pytest.raises(InferenceError):
                    await engine.inference.generate(self.request())
            with soon("a call beside a stream"):
                assert (await engine.inference.generate(self.request())).text == "It is sunny."
            await until(engine, lambda listeners: listeners == 1)

    async def test_embed_gives_each_text_its_vector_in_their_order(self, engine: Engine) -> None:
        vectors = (await engine.inference.embed(self.model, ["a cat", "the sea", "a cat"])).vectors
        assert len(vectors) == 3
        assert len({len(vector) for vector in vectors}) == 1
        assert vectors[0] == pytest.approx(vectors[2])
        assert vectors[0] != pytest.approx(vectors[1])

    async def test_embedding_no_texts_asks_nobody(self, engine: Engine) -> None:
        await engine.stop()
        assert (await engine.inference.embed(self.model, [])).vectors == []

    async def test_infer_takes_and_gives_tensors_by_name(self, engine: Engine, tensors: Mapping[str, Array]) -> None:
        needs((await engine.inference.capabilities()).infer, "infer")
        given = await engine.inference.infer(self.model, tensors)
        assert {name: tuple(tensor.shape) for name, tensor in given.items()} == {name: tensor.shape for name, tensor in tensors.items()}

    async def test_a_model_that_nobody_serves_is_refused(self, engine: Engine) -> None:
        with pytest.raises(ModelNotFound):
            await engine.inference.generate(self.request(model="nobody-serves-this"))

    @pytest.mark.parametrize(
        ("ability", "more"),
        [
            ("tools", {"tools": [FIND]}),
            ("output", {"output": {"type": "object"}}),
            ("attachments", {"messages": [Message(role="user", content="See:", attachments=[PICTURE])]}),
            ("seed", {"seed": 7}),
        ],
    )
    async def test_what_the_engine_does_not_offer_is_refused_before_it_is_sent(
        self, engine: Engine, ability: str, more: dict[str, Any]
    ) -> None:
        engine.script(WHOLE, WHOLE)
        with pytest.raises(Unsupported, match=ability):
            await engine.plain.generate(self.request(**more))
        with pytest.raises(Unsupported, match=ability):
            await collect(engine.plain.stream(self.request(**more)), "engine")
        assert engine.asked == 0

    async def test_health_says_that_an_engine_is_ready(self, engine: Engine) -> None:
        health = await engine.inference.health()
        assert health.ready
        assert self.model in health.models

    async def test_health_of_an_engine_that_nobody_reaches_says_why_and_is_no_error(self, engine: Engine) -> None:
        await engine.stop()
        health = await engine.inference.health()
        assert not health.ready
        assert health.says

    async def test_an_engine_that_nobody_reaches_is_unreachable(self, engine: Engine) -> None:
        await engine.stop()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: engine.inference.generate(self.request()),
            lambda: self.events(engine),
            lambda: engine.inference.embed(self.model, ["a cat"]),
            engine.inference.load,
        ]
        for call in calls:
            with pytest.raises(Unreachable):
                await call()
        assert engine.asked == 0

    async def test_load_counts_the_calls_that_run(self, engine: Engine) -> None:
        async def running(wanted: int) -> bool:
            load = await engine.inference.load()
            return load.running == wanted and load.queued == 0 and load.age_s >= 0.0

        engine.script([Text("It is "), SILENCE, *WHOLE], [Text("It is "), SILENCE, *WHOLE])
        async with engine.inference.stream(self.request()), engine.inference.stream(self.request()):
            await eventually(lambda: running(2), "load to count two calls")
        await eventually(lambda: running(0), "load to count none")


@contextmanager
def soon(what: str) -> Generator[None]:
    """Fail if it takes long: on a test's clock, or a silent engine, it would take for ever."""
    with anyio.move_on_after(contract.GRACE_S) as scope:
        yield
    assert not scope.cancelled_caught, f"{what} did not come"


async def eventually(true: Callable[[], Awaitable[bool]], what: str) -> None:
    """Gauges and closed connections are seen a little later on the other side."""
    with soon(what):
        while not await true():  # noqa: ASYNC110  the other side sends no event
            await anyio.sleep(contract.SETTLE_S)


async def until(engine: Engine, true: Callable[[int], bool]) -> None:
    async def met() -> bool:
        return true(await engine.listeners())

    await eventually(met, f"the right number of listeners (now {await engine.listeners()})")


@contextmanager
def expected(kind: type[Exception] | None) -> Generator[None]:
    """The error comes out as it was raised; None: no error does."""
    if kind is None:
        yield
    else:
        with pytest.raises(kind):
            yield
