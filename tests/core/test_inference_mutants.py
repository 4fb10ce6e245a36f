"""For each law of inference an adapter that drops it, and the test of the suite that fails on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from agentkit.errors import ConnectionCut, EngineFailed, InferenceError, RateLimited, StreamBroken
from agentkit.inmemory.inference import ScriptedInference
from agentkit.ports.inference import Array, Capabilities, Embeddings, EngineLoad, Health
from agentkit.ports.messages import Answer, CallArguments, CallComplete, Event, Finished, Request, Text, Used
from agentkit.testing.clock import FakeClock
from agentkit.testing.inference import ANSWERS, CUT, FIND, UNFINISHED, WHOLE, InferenceContract, Tensor
from tests.core.mutants import Broken, assert_only_the_mutant_breaks, laws_without_a_mutant, named
from tests.core.scripted_engine import ScriptedEngine


class ClosesWithTheFirst(ScriptedInference):
    async def aclose(self) -> None:
        self.down = "closed"


class Hears(ScriptedInference):
    """Those below change what comes over the wire on its way to the caller."""

    def hear(self, event: Event) -> Event | None:
        return event

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        async with super().stream(request) as events:
            yield self._hear(events)

    async def _hear(self, events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
        async for event in events:
            if (heard := self.hear(event)) is not None:
                yield heard


class StripsText(Hears):
    def hear(self, event: Event) -> Event | None:
        return Text(event.text.strip()) if isinstance(event, Text) else event


class MixesUpCalls(Hears):
    def hear(self, event: Event) -> Event | None:
        return CallArguments(0, event.text) if isinstance(event, CallArguments) else event


class NeverCompletesCalls(Hears):
    def hear(self, event: Event) -> Event | None:
        return None if isinstance(event, CallComplete) else event


class ForgetsUsage(Hears):
    def hear(self, event: Event) -> Event | None:
        return None if isinstance(event, Used) else event


class AlwaysStops(Hears):
    def hear(self, event: Event) -> Event | None:
        return Finished("stop") if isinstance(event, Finished) else event


class ForgetsTheSystem(ScriptedInference):
    async def generate(self, request: Request) -> Answer:
        spoken = Request(model=request.model, messages=[message for message in request.messages if message.role != "system"])
        return await super().generate(spoken)


class GathersFirst(ScriptedInference):
    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        async with super().stream(request) as events:
            gathered = [event async for event in events]
            yield _each(gathered)


class EntersBeforeItAsks(ScriptedInference):
    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        async def ask() -> AsyncGenerator[Event]:
            async with super(EntersBeforeItAsks, self).stream(request) as events:
                async for event in events:
                    yield event

        yield ask()


class OneErrorForAll(ScriptedInference):
    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        try:
            async with super().stream(request) as events:
                yield events
        except StreamBroken:
            raise
        except InferenceError as exc:
            raise EngineFailed(exc.endpoint, exc.problem) from exc


class ForgetsWhenToTryAgain(ScriptedInference):
    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        try:
            async with super().stream(request) as events:
                yield events
        except InferenceError as exc:
            exc.retry_after_s = None
            raise


class TakesAnEndForFinished(ScriptedInference):
    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        async with super().stream(request) as events:
            yield self._whole(events)

    async def _whole(self, events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
        with suppress(StreamBroken):
            async for event in events:
                yield event
            return
        yield Finished("stop")


class LosesWhatCame(ScriptedInference):
    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        try:
            async with super().stream(request) as events:
                yield events
        except StreamBroken as exc:
            raise StreamBroken(exc.endpoint, exc.problem) from exc


class LeavesItOpen(ScriptedInference):
    """What most clients do: the connection goes when the garbage collector comes."""

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        try:
            async with super().stream(request) as events:
                yield events
        finally:
            self.slots.acquire_on_behalf_of_nowait(object())


class TakesCancellationForAnError(ScriptedInference):
    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        try:
            async with super().stream(request) as events:
                yield events
        except anyio.get_cancelled_exc_class() as exc:
            raise ConnectionCut(self.name, "the call was cancelled") from exc


class TriesAgain(ScriptedInference):
    async def generate(self, request: Request) -> Answer:
        for _ in range(2):
            with suppress(InferenceError):
                return await super().generate(request)
        return await super().generate(request)


class AsksTwice(ScriptedInference):
    async def generate(self, request: Request) -> Answer:
        self.requests.append(request)
        return await super().generate(request)


class OneAtATime(ScriptedInference):
    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **{**more, "slots": 1})  # type: ignore[arg-type]


class FailsAllTogether(ScriptedInference):
    async def generate(self, request: Request) -> Answer:
        try:
            return await super().generate(request)
        except InferenceError as exc:
            self.down = exc.problem
            raise


class SortsTexts(ScriptedInference):
    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        return await super().embed(model, sorted(texts))


class EmbedsEachTextOnce(ScriptedInference):
    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        return await super().embed(model, list(dict.fromkeys(texts)))


class SendsNothing(ScriptedInference):
    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        await self.load()
        return await super().embed(model, texts)


class NumbersTensors(ScriptedInference):
    async def infer(self, model: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        given = await super().infer(model, inputs)
        return {f"output_{number}": tensor for number, tensor in enumerate(given.values())}


class ServesAnything(ScriptedInference):
    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **{**more, "serves": ()})  # type: ignore[arg-type]


class SendsAnyway(ScriptedInference):
    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **{**more, "capabilities": Capabilities()})  # type: ignore[arg-type]


class AlwaysWell(ScriptedInference):
    async def health(self) -> Health:
        return Health(ready=True, models=("m",))


class KnowsNoModels(ScriptedInference):
    async def health(self) -> Health:
        return (await super().health())._replace(models=())


class RaisesItsHealth(ScriptedInference):
    async def health(self) -> Health:
        await self.load()
        return await super().health()


class TakesSilenceForFailure(ScriptedInference):
    def _reach(self, model: str | None = None) -> None:
        if self.down:
            raise EngineFailed(self.name, self.down)
        super()._reach(model)


class CountsCallsSoFar(ScriptedInference):
    async def load(self) -> EngineLoad:
        return EngineLoad(queued=0, running=len(self.requests))


async def _each(events: Sequence[Event]) -> AsyncGenerator[Event]:
    for event in events:
        yield event


BROKEN: list[Broken[ScriptedInference]] = [
    (ClosesWithTheFirst, "it_may_be_opened_again_and_each_opening_is_closed_by_itself", {}),
    (StripsText, "an_answer_is_what_the_events_of_its_stream_make", {"answer": ANSWERS["text"]}),
    (MixesUpCalls, "an_answer_is_what_the_events_of_its_stream_make", {"answer": ANSWERS["two calls"]}),
    (ForgetsTheSystem, "what_is_asked_reaches_the_engine_whole", {}),
    (GathersFirst, "an_event_is_handed_on_before_the_next_one_is_made", {}),
    (NeverCompletesCalls, "each_tool_call_is_completed_once_after_its_last_piece", {}),
    (ForgetsUsage, "the_last_event_says_why_it_finished_and_one_before_it_what_it_used", {}),
    (AlwaysStops, "why_an_answer_finished_is_told", {"reason": "length"}),
    (EntersBeforeItAsks, "what_fails_before_the_first_event_is_raised_on_entering_the_stream", {}),
    (OneErrorForAll, "every_failure_has_its_type", {}),
    (ForgetsWhenToTryAgain, "who_is_turned_away_is_told_when_to_try_again", {"kind": RateLimited}),
    (TakesAnEndForFinished, "a_stream_that_breaks_says_so_and_keeps_what_came", {"answer": UNFINISHED}),
    (LosesWhatCame, "a_stream_that_breaks_says_so_and_keeps_what_came", {"answer": CUT}),
    (TakesAnEndForFinished, "an_answer_that_was_cut_is_no_answer", {"answer": CUT}),
    (LeavesItOpen, "leaving_a_stream_closes_it_upstream", {"how": "leaving it"}),
    (LeavesItOpen, "leaving_a_stream_closes_it_upstream", {"how": "an error"}),
    (LeavesItOpen, "leaving_a_stream_closes_it_upstream", {"how": "a cancellation"}),
    (TakesCancellationForAnError, "a_cancelled_call_is_closed_upstream_and_stays_a_cancellation", {"how": "generate"}),
    (TakesCancellationForAnError, "a_cancelled_call_is_closed_upstream_and_stays_a_cancellation", {"how": "stream"}),
    (TriesAgain, "a_call_reaches_the_engine_once_however_it_ends", {"answer": CUT}),
    (AsksTwice, "a_call_reaches_the_engine_once_however_it_ends", {"answer": WHOLE}),
    (OneAtATime, "calls_run_beside_each_other_and_one_that_fails_leaves_the_others_alone", {}),
    (FailsAllTogether, "calls_run_beside_each_other_and_one_that_fails_leaves_the_others_alone", {}),
    (SortsTexts, "embed_gives_each_text_its_vector_in_their_order", {}),
    (EmbedsEachTextOnce, "embed_gives_each_text_its_vector_in_their_order", {}),
    (SendsNothing, "embedding_no_texts_asks_nobody", {}),
    (NumbersTensors, "infer_takes_and_gives_tensors_by_name", {"tensors": {"ids": Tensor(2, 3)}}),
    (ServesAnything, "a_model_that_nobody_serves_is_refused", {}),
    (SendsAnyway, "what_the_engine_does_not_offer_is_refused_before_it_is_sent", {"ability": "tools", "more": {"tools": [FIND]}}),
    (KnowsNoModels, "health_says_that_an_engine_is_ready", {}),
    (AlwaysWell, "health_of_an_engine_that_nobody_reaches_says_why_and_is_no_error", {}),
    (RaisesItsHealth, "health_of_an_engine_that_nobody_reaches_says_why_and_is_no_error", {}),
    (TakesSilenceForFailure, "an_engine_that_nobody_reaches_is_unreachable", {}),
    (CountsCallsSoFar, "load_counts_the_calls_that_run", {}),
]


@pytest.mark.parametrize(("mutant", "law", "given"), named(BROKEN))
async def test_the_suite_notices_an_engine_that(mutant: type[ScriptedInference], law: str, given: dict[str, object]) -> None:
    def wrong(clock: FakeClock) -> ScriptedEngine:
        return ScriptedEngine(clock, mutant)

    await assert_only_the_mutant_breaks(InferenceContract, law, ScriptedEngine, wrong, **given)


def test_each_law_of_inference_has_a_mutant_that_breaks_it() -> None:
    assert laws_without_a_mutant(InferenceContract, BROKEN) == []
