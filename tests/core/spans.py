"""The spans that a test's code makes, for tests to look at."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentkit import telemetry


@contextmanager
def exported(monkeypatch: pytest.MonkeyPatch) -> Generator[InMemorySpanExporter]:
    """An SDK for one test: the API lets a process set its providers once only, so the tracer is swapped instead."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_live", True)
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer(telemetry.SCOPE))
    yield exporter
    provider.shutdown()
