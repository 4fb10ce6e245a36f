"""Spans, metrics and trace context, read back from a real SDK."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentkit import telemetry
from tests.core.spans import exported

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "telemetry.md"

SPANS_AND_METRICS = (telemetry.SpanName, telemetry.Counter, telemetry.Histogram, telemetry.Gauge, telemetry.Event)
ATTRIBUTES = [row.name for row in telemetry.TABLE if row.kind == "attribute"]


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    with exported(monkeypatch) as exporter:
        yield exporter


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(telemetry, "_live", True)
    monkeypatch.setattr(telemetry, "_meter", lambda: provider.get_meter(telemetry.SCOPE))
    yield reader
    provider.shutdown()


def metric(reader: InMemoryMetricReader, name: str) -> Any:
    data = reader.get_metrics_data()
    assert data is not None
    found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name]
    assert len(found) == 1
    return found[0]


def named(exporter: InMemorySpanExporter, name: telemetry.SpanName) -> ReadableSpan:
    found = [span for span in exporter.get_finished_spans() if span.name == name.name]
    assert len(found) == 1
    return found[0]


def test_one_trace_spans_processes_through_one_string(exporter: InMemorySpanExporter) -> None:
    with telemetry.span(telemetry.SUBMIT, {telemetry.RUN_ID: "r1"}):
        packed = telemetry.inject()
    with telemetry.span(telemetry.RUN, {telemetry.RUN_ID: "r1"}, parent=packed), telemetry.span(telemetry.STEP):
        pass
    submit, run, step = (named(exporter, name) for name in (telemetry.SUBMIT, telemetry.RUN, telemetry.STEP))
    assert submit.context is not None
    assert run.context is not None
    assert run.parent is not None
    assert step.parent is not None
    assert run.parent.span_id == submit.context.span_id
    assert step.parent.span_id == run.context.span_id
    assert step.context is not None
    assert submit.context.trace_id == run.context.trace_id == step.context.trace_id


def test_the_trace_state_of_a_vendor_travels_along(exporter: InMemorySpanExporter) -> None:
    packed = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 vendor=opaque,other=1"
    with telemetry.span(telemetry.RUN, parent=packed):
        assert telemetry.inject().endswith(" vendor=opaque,other=1")
    assert named(exporter, telemetry.RUN).attributes == {}


def test_outside_of_a_trace_what_the_run_carries_is_handed_on() -> None:
    assert telemetry.inject() == ""
    assert telemetry.inject("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").startswith("00-0af7")


@given(st.text())
def test_a_damaged_context_gives_a_new_trace_and_never_an_error(damaged: str) -> None:
    context = telemetry.extract(damaged)
    assert not damaged or context is not None


def test_a_step_that_raises_marks_its_span_and_a_park_does_not(exporter: InMemorySpanExporter) -> None:
    class Parked(BaseException):
        pass

    with pytest.raises(ValueError, match="broken"), telemetry.span(telemetry.STEP):
        raise ValueError("broken")
    with pytest.raises(Parked), telemetry.span(telemetry.RUN):
        raise Parked
    assert named(exporter, telemetry.STEP).status.status_code is trace.StatusCode.ERROR
    assert named(exporter, telemetry.RUN).status.status_code is trace.StatusCode.UNSET


async def test_steps_of_one_run_side_by_side_are_all_its_children(exporter: InMemorySpanExporter) -> None:
    async def step(n: int) -> None:
        with telemetry.span(telemetry.STEP, {telemetry.ATTEMPT: n}):
            await anyio.lowlevel.checkpoint()

    with telemetry.span(telemetry.RUN):
        async with anyio.create_task_group() as group:
            for n in range(5):
                group.start_soon(step, n)
    run = named(exporter, telemetry.RUN)
    steps = [span for span in exporter.get_finished_spans() if span.name == telemetry.STEP.name]
    assert run.context is not None
    assert [span.parent.span_id for span in steps if span.parent] == [run.context.span_id] * 5


def test_a_span_of_the_past_begins_when_the_wait_began(exporter: InMemorySpanExporter) -> None:
    started = time.time_ns() - 5_000_000_000
    telemetry.span_of_the_past(telemetry.LEASE, started, {telemetry.COUNT: 3})
    span = named(exporter, telemetry.LEASE)
    assert span.start_time == started
    assert span.end_time is not None
    assert span.end_time >= started + 5_000_000_000


def test_metrics_reach_the_sdk_with_unit_and_description(reader: InMemoryMetricReader) -> None:
    steps = telemetry.Counter("test.steps", "{step}", "Steps of a test", telemetry.OUTCOME)
    seconds = telemetry.Histogram("test.seconds", "s", "Lengths of a test")
    depth = telemetry.Gauge("test.depth", "{row}", "Depth of a test")
    del telemetry.TABLE[-3:]
    steps.add(2, {telemetry.OUTCOME: "ok"})
    steps.add(0, {telemetry.OUTCOME: "error"})
    seconds.record(0.25)
    depth.set(7)
    depth.set(4)
    counted = metric(reader, "test.steps")
    assert (counted.unit, counted.description) == ("{step}", "Steps of a test")
    assert [(point.value, dict(point.attributes)) for point in counted.data.data_points] == [(2, {telemetry.OUTCOME: "ok"})]
    assert metric(reader, "test.seconds").data.data_points[0].count == 1
    assert metric(reader, "test.depth").data.data_points[0].value == 4


QUIET = """
from agentkit import telemetry
from opentelemetry.trace import INVALID_SPAN
assert not telemetry.enabled()
with telemetry.span(telemetry.RUN, {telemetry.RUN_ID: "r"}) as span:
    assert span is INVALID_SPAN
telemetry.STEPS.add(1)
assert "_instrument" not in vars(telemetry.STEPS)
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
assert telemetry.look() and telemetry.enabled()
with telemetry.span(telemetry.RUN) as span:
    assert span.get_span_context().is_valid and telemetry.ids() is not None
telemetry.STEPS.add(1)
print("seen")
"""


def test_without_an_sdk_nothing_is_made_and_one_that_appears_is_noticed() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("seen", "")


def test_an_api_provider_is_no_sdk() -> None:
    for provider in (trace.NoOpTracerProvider(), trace.ProxyTracerProvider(), metrics.NoOpMeterProvider()):
        assert not telemetry.from_an_sdk(provider)
    assert telemetry.from_an_sdk(TracerProvider())


def test_a_step_pays_next_to_nothing_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio, not a time: a span and two instruments cost less than three empty context managers of the standard library."""
    from contextlib import contextmanager

    @contextmanager
    def empty() -> Generator[None]:
        yield

    def plain() -> None:
        for _ in range(3):
            with empty():
                pass

    def ours() -> None:
        with telemetry.span(telemetry.STEP):
            telemetry.STEPS.add(1)
            telemetry.STEP_SECONDS.record(0.1)

    def best(function: Any) -> float:
        took: list[float] = []
        for _ in range(5):
            started = time.perf_counter()
            for _ in range(2_000):
                function()
            took.append(time.perf_counter() - started)
        return min(took)

    monkeypatch.setattr(telemetry, "_live", False)
    monkeypatch.setattr(telemetry, "look", lambda: False)
    monkeypatch.setattr(telemetry, "_look_at", float("inf"))
    assert best(ours) < best(plain)


def test_every_name_is_ours_and_is_said_once() -> None:
    keys = [(row.kind, row.name) for row in telemetry.TABLE]
    assert len(keys) == len(set(keys))
    assert all(row.name.startswith("agentkit.") and row.description for row in telemetry.TABLE)
    assert all(row.unit for row in telemetry.TABLE if row.kind in {"counter", "histogram", "gauge", "event"})


def test_an_attribute_of_a_row_has_a_row_and_no_metric_carries_an_id_but_that_of_a_listed_tenant() -> None:
    known = {row.name for row in telemetry.TABLE if row.kind == "attribute"}
    assert {name for row in telemetry.TABLE for name in row.attributes} == known
    metrics = [row for row in telemetry.TABLE if row.kind not in {"span", "attribute"}]
    ids = {telemetry.RUN_ID, telemetry.STEP_KEY, telemetry.WORKER}
    assert not [row for row in metrics if ids & set(row.attributes)]
    assert {row.name.rpartition(".")[0] for row in metrics if telemetry.TENANT in row.attributes} == {
        "agentkit.model",
        "agentkit.model.tokens",
    }


def test_every_name_is_emitted_somewhere() -> None:
    """A name nobody uses is a promise nobody keeps."""
    root = Path(telemetry.__file__).parent
    source = "\n".join(file.read_text() for file in root.rglob("*.py") if file.name != "telemetry.py")
    constants = [name for name, value in vars(telemetry).items() if isinstance(value, SPANS_AND_METRICS) or value in ATTRIBUTES]
    assert len(constants) == len(telemetry.TABLE)
    assert [name for name in constants if f"telemetry.{name}" not in source] == []


def printed_table() -> list[str]:
    """The rows of the table as the reference page must hold them."""
    lines: list[str] = []
    for row in telemetry.TABLE:
        carries = ", ".join(f"`{name}`" for name in row.attributes) or "-"
        if row.kind == "attribute":
            lines.append(f"| `{row.name}` | {row.description} |")
        elif row.kind == "span":
            lines.append(f"| `{row.name}` | {row.description} | {carries} |")
        else:
            lines.append(f"| `{row.name}` | {row.kind} | {row.unit} | {row.description} | {carries} |")
    return lines


def test_the_reference_page_is_this_table() -> None:
    page = [line for line in REFERENCE.read_text().splitlines() if line.startswith("| `")]
    assert sorted(page) == sorted(printed_table())
