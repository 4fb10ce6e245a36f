"""What a run looks like in a trace."""

from __future__ import annotations

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentkit import telemetry
from agentkit.agents.base import Agent
from agentkit.agents.context import Context
from agentkit.runtime.runtime import Runtime


async def double(n: int) -> int:
    return 2 * n


class Inner(Agent[int, int]):
    async def run(self, ctx: Context, input: int, /) -> int:
        return await ctx.step("double", double, input)


class Outer(Agent[int, int]):
    async def run(self, ctx: Context, input: int, /) -> int:
        first = await ctx.step("double", double, input)
        await ctx.sleep(1.5)
        return first + await ctx.run("inner", Inner, input)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_live", True)
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer(telemetry.SCOPE))
    return exporter


def parent_of(span: ReadableSpan, spans: list[ReadableSpan]) -> ReadableSpan | None:
    return next((s for s in spans if span.parent and s.context and s.context.span_id == span.parent.span_id), None)


def names(spans: list[ReadableSpan], name: telemetry.SpanName) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name.name]


async def test_one_trace_holds_a_submit_all_activations_their_steps_and_the_children(exporter: InMemorySpanExporter) -> None:
    async with Runtime(agents=[Outer, Inner], worker=True) as runtime:
        handle = await runtime.submit(Outer, 4, run_id="r1")
        with anyio.fail_after(30):
            assert await handle.result() == 16
    spans = list(exporter.get_finished_spans())
    (submit,) = names(spans, telemetry.SUBMIT)
    assert submit.context is not None
    ours = [s for s in spans if s.context and s.context.trace_id == submit.context.trace_id]
    activations = names(ours, telemetry.RUN)
    outer = [s for s in activations if (s.attributes or {})[telemetry.RUN_ID] == "r1"]
    left = [(s.attributes or {})[telemetry.STATUS] for s in outer]
    assert left[-1] == "ended"
    assert set(left[:-1]) == {"parked"}  # on the timer for sure, and on the child unless that was quicker than a park
    assert all(parent_of(s, spans) is submit for s in outer)
    (inner,) = [s for s in activations if s not in outer]
    created = parent_of(inner, spans)
    assert created is not None
    assert created.name == telemetry.CHILD.name
    assert [parent_of(s, spans) in activations for s in names(ours, telemetry.STEP)] == [True, True]
