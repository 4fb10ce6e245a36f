"""What metrics tell of money, tokens and sessions, and by what: never by what there may be any number of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import repeat
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentkit import Agent, Context, Price, Tenant, telemetry
from agentkit.inference.places import Model
from agentkit.testing import ScriptedModel, ToolCall, runtime
from tests.core.spans import exported
from tests.core.talking import Log, Support, always, echo, said, session

PRICE = Price(input=1.0, output=2.0, as_of=date(2026, 1, 1))
WATCHED = (
    telemetry.MODEL_TOKENS_READ,
    telemetry.MODEL_TOKENS_WRITTEN,
    telemetry.MODEL_USD,
    telemetry.SESSION_LINE,
    telemetry.SESSION_SECONDS,
)


class Ask(Agent[str, str]):
    """Asks its model once."""

    async def run(self, ctx: Context, input: str, /) -> str:
        return (await ctx.generate(input)).output


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    with exported(monkeypatch) as exporter:
        yield exporter


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter) -> Iterator[InMemoryMetricReader]:
    """An SDK for one test. Instruments that an earlier test has made are put aside meanwhile."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(telemetry, "_meter", lambda: provider.get_meter(telemetry.SCOPE))
    for metric in WATCHED:
        vars(metric).pop("_instrument", None)
    yield reader
    for metric in WATCHED:
        vars(metric).pop("_instrument", None)
    provider.shutdown()


def points(reader: InMemoryMetricReader, name: str) -> list[Any]:
    data = reader.get_metrics_data()
    assert data is not None
    return [p for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name for p in m.data.data_points]


async def test_money_and_tokens_are_counted_by_model_and_by_tenants_that_the_app_lists(reader: InMemoryMetricReader) -> None:
    models = {"default": Model(ScriptedModel(repeat("It is well.")), price=PRICE)}
    async with runtime(agents=[Ask], models=models, tenants={name: Tenant(id=name) for name in ("acme", "duff")}) as rt:
        for tenant in ("acme", "acme", "duff", ""):
            await rt.run(Ask, "How is it?", tenant=tenant)
    spent = {point.attributes[telemetry.TENANT]: point for point in points(reader, "agentkit.model.cost")}
    assert {tenant: round(point.value * 1e6) for tenant, point in spent.items()} == {"acme": 20, "duff": 10, "": 10}
    assert {point.attributes[telemetry.MODEL_NAME] for point in spent.values()} == {"default"}
    read, written = (points(reader, f"agentkit.model.tokens.{what}") for what in ("read", "written"))
    assert sorted(p.value for p in read) == [4, 4, 8]
    assert sorted(p.value for p in written) == [3, 3, 6]


async def test_tenants_that_a_function_finds_are_on_no_metric_for_there_may_be_any_number(reader: InMemoryMetricReader) -> None:
    async def find(id: str) -> Tenant:
        return Tenant(id=id)

    async with runtime(agents=[Ask], models={"default": ScriptedModel(repeat("It is well."))}, tenants=find) as rt:
        for n in range(3):
            await rt.run(Ask, "How is it?", tenant=f"customer-{n}")
    assert [(p.attributes[telemetry.TENANT], p.value) for p in points(reader, "agentkit.model.tokens.written")] == [("", 9)]


async def test_a_session_tells_how_long_its_line_is_and_how_long_a_message_waited_for_its_turn(
    reader: InMemoryMetricReader, exporter: InMemorySpanExporter
) -> None:
    def answer(request: Any) -> object:
        first = said(request) == ["refund"] and request.messages[-1].role == "user"
        return ToolCall("refund", cents=5) if first else echo(request)

    async with runtime(agents=[Support], models={"chat": always(answer)}, resources={Log: Log()}) as rt:
        held = await session(rt).send("refund")
        waiting = await session(rt).send("and now?")
        await rt.clock.advance(3_600)
        await held.resolve("refund", "rerun")
        await rt.settle()
        await waiting.result()
    (line,) = points(reader, "agentkit.session.line")
    assert (line.attributes, line.count, line.min, line.max) == ({telemetry.AGENT: "support"}, 2, 1, 2)
    (wait,) = points(reader, "agentkit.session.wait")
    assert (wait.attributes, wait.count) == ({telemetry.AGENT: "support"}, 2)
    assert wait.min < 60
    assert 3_600 <= wait.max < 3_700
    (span,) = [span for span in exporter.get_finished_spans() if span.name == telemetry.TURN.name]
    assert span.attributes is not None
    assert span.attributes[telemetry.RUN_ID] == waiting.run_id
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time >= 3_600 * 1e9
