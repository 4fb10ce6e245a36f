"""Spans, metrics and trace context by the OpenTelemetry API; the application chooses the SDK.

Every span, metric and attribute has its row here; `docs/reference/telemetry.md` is this table, printed. A helper does nothing, in well
under a microsecond, while no SDK is configured: one that appears later is noticed within `LOOK_EVERY_S`, or at once by `look()`.

One trace spans processes: `inject()` packs the current context into one string that tickets and `runs.trace` carry, and each activation
of the run is a span with that parent, wherever it happens.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from opentelemetry import metrics, trace
from opentelemetry.trace import INVALID_SPAN, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    Attributes = Mapping[str, AttributeValue]

SCOPE = "agentkit"
LOOK_EVERY_S = 1.0  # a look at both providers costs 1.7 us, as much as several steps may spend here
NOTHING: Attributes = {}


class Row(NamedTuple):
    """A line of the table: a name that this library emits, and what it means."""

    name: str
    kind: Literal["span", "counter", "histogram", "gauge", "event", "attribute"]
    unit: str
    description: str
    attributes: tuple[str, ...] = ()


TABLE: list[Row] = []


def _attribute(name: str, description: str) -> str:
    TABLE.append(Row(name, "attribute", "", description))
    return name


class SpanName:
    """A span that this library emits."""

    def __init__(self, name: str, description: str, *attributes: str, kind: SpanKind = SpanKind.INTERNAL) -> None:
        self.name, self.kind = name, kind
        TABLE.append(Row(name, "span", "", description, attributes))


class Counter:
    """A sum that only grows. Its instrument is made at the first use under an SDK."""

    def __init__(self, name: str, unit: str, description: str, *attributes: str) -> None:
        self.row = Row(name, "counter", unit, description, attributes)
        TABLE.append(self.row)

    @cached_property
    def _instrument(self) -> metrics.Counter:
        return _meter().create_counter(self.row.name, self.row.unit, self.row.description)

    def add(self, amount: float = 1, attributes: Attributes = NOTHING) -> None:
        if amount and enabled():
            self._instrument.add(amount, attributes)


class Event:
    """Something that happened in a call: a counter, and an event of the same name on the current span."""

    def __init__(self, name: str, unit: str, description: str, *attributes: str) -> None:
        self.row = Row(name, "event", unit, description, attributes)
        TABLE.append(self.row)

    @cached_property
    def _instrument(self) -> metrics.Counter:
        return _meter().create_counter(self.row.name, self.row.unit, self.row.description)

    def say(self, attributes: Attributes, details: Attributes = NOTHING) -> None:
        """Count it by `attributes`; the span gets the details too, which would be too many time series."""
        if enabled():
            self._instrument.add(1, attributes)
            trace.get_current_span().add_event(self.row.name, {**attributes, **details})


class Histogram:
    """A distribution; its count is the number of events. Its instrument is made at the first use under an SDK."""

    def __init__(self, name: str, unit: str, description: str, *attributes: str) -> None:
        self.row = Row(name, "histogram", unit, description, attributes)
        TABLE.append(self.row)

    @cached_property
    def _instrument(self) -> metrics.Histogram:
        return _meter().create_histogram(self.row.name, self.row.unit, self.row.description)

    def record(self, amount: float, attributes: Attributes = NOTHING) -> None:
        if enabled():
            self._instrument.record(amount, attributes)


class _Settable(Protocol):
    def set(self, amount: float, attributes: Attributes | None = None) -> None: ...


class Gauge:
    """A value as it stands now. Its instrument is made at the first use under an SDK."""

    def __init__(self, name: str, unit: str, description: str, *attributes: str) -> None:
        self.row = Row(name, "gauge", unit, description, attributes)
        TABLE.append(self.row)

    @cached_property
    def _instrument(self) -> _Settable:
        return _meter().create_gauge(self.row.name, self.row.unit, self.row.description)

    def set(self, amount: float, attributes: Attributes = NOTHING) -> None:
        if enabled():
            self._instrument.set(amount, attributes)


# Ids (run, tenant, step) are on spans only: on a metric each new value would be a new time series. A tenant that the app lists is none.
RUN_ID = _attribute("agentkit.run_id", "Id of the run")
AGENT = _attribute("agentkit.agent", "Name of the agent")
VERSION = _attribute("agentkit.version", "Version of the agent")
TENANT = _attribute("agentkit.tenant", "Tenant of the run, empty when there is none; on metrics only one that `Runtime(tenants={…})` lists")
STATUS = _attribute("agentkit.status", "How it left or ended: ready, parked, completed, failed, cancelled, buried")
FENCE = _attribute("agentkit.fence", "Number of the claim: 1 for the first activation, one more for each further one")
STEP_KEY = _attribute("agentkit.step", "Key of the step in the journal")
ATTEMPT = _attribute("agentkit.attempt", "Attempt at the step, from 1")
EFFECT = _attribute("agentkit.effect", "What a crash in the step leads to: none, rerun, ask, fail")
OUTCOME = _attribute(
    "agentkit.outcome",
    "ok, error or cancelled; of a claim its answer, of a signal accepted, duplicate, ended or unknown, of a hedge first, second or error, "
    "of a cached tool hit, shared or made",
)
WORKER = _attribute("agentkit.worker", "Registration of the worker")
COUNT = _attribute("agentkit.count", "How many runs, rows or tickets the operation is about")
STATE = _attribute("agentkit.state", "ready, delayed, leased or dead; of a circuit open, half_open or closed")
TOPIC = _attribute("agentkit.signal", "Name of the signal")
POLICY = _attribute("agentkit.policy", "Name of the policy")
LIMIT = _attribute("agentkit.limit", "Name of the semaphore or rate")
TOOL = _attribute("agentkit.tool", "Name of the tool")
REASON = _attribute("agentkit.reason", "Why not: attempts, budget, time or unsafe of a retry; overloaded, requests or tokens of a limit")
WAIT = _attribute("agentkit.wait_s", "Seconds waited, or that will be")
MODEL_NAME = _attribute("agentkit.model", "Name of the model, as agents use it")
INPUT_TOKENS = _attribute("agentkit.input_tokens", "Tokens that the model read")
OUTPUT_TOKENS = _attribute("agentkit.output_tokens", "Tokens that the model wrote")
USD = _attribute("agentkit.usd", "What the call cost in dollars, where the model has a price")
CODE = _attribute("agentkit.code", "File, line and function that blocked the event loop")

SUBMIT = SpanName("agentkit.submit", "Runs are stored and their tickets put", AGENT, TENANT, COUNT, kind=SpanKind.PRODUCER)
RUN = SpanName(
    "agentkit.run",
    "One activation of a run, from its claim to its release; its parent is the submitter's span, in whatever process that was",
    RUN_ID, AGENT, VERSION, TENANT, FENCE, STATUS, WORKER, kind=SpanKind.CONSUMER,
)  # fmt: skip
STEP = SpanName("agentkit.step", "The body of a step runs (a replayed step has none)", RUN_ID, STEP_KEY, ATTEMPT, EFFECT)
CHILD = SpanName("agentkit.child", "Child runs are created; their activations are below it", RUN_ID, AGENT, COUNT, kind=SpanKind.PRODUCER)
SIGNAL = SpanName("agentkit.signal", "A signal is put into a run's inbox", RUN_ID, TOPIC, OUTCOME, kind=SpanKind.PRODUCER)
FLUSH = SpanName("agentkit.flush", "A lane writes a batch of journal entries", COUNT, kind=SpanKind.CLIENT)
CLAIM = SpanName("agentkit.claim", "A worker asks for the runs of the tickets it leased", WORKER, COUNT, kind=SpanKind.CLIENT)
TAKE_OVER = SpanName("agentkit.take_over", "A sweep frees runs of dead workers (only those that freed some)", WORKER, COUNT)
MODEL = SpanName(
    "agentkit.model.call", "A model is asked: all attempts, engines and fallbacks; of a stream until it is left",
    MODEL_NAME, INPUT_TOKENS, OUTPUT_TOKENS, USD, kind=SpanKind.CLIENT,
)  # fmt: skip
TURN = SpanName("agentkit.session.wait", "A message waited for its turn in its session (only those that did)", RUN_ID, AGENT, WAIT)
PUT = SpanName("agentkit.queue.put", "Tickets are put", COUNT, kind=SpanKind.PRODUCER)
LEASE = SpanName("agentkit.queue.lease", "Tickets are leased (only those that brought some)", WORKER, COUNT, kind=SpanKind.CLIENT)

RUNS_STARTED = Counter("agentkit.runs.started", "{run}", "First activations of runs", AGENT)
RUNS_ENDED = Counter("agentkit.runs.ended", "{run}", "Runs that ended", AGENT, STATUS)
RUNS_PARKED = Counter("agentkit.runs.parked", "{run}", "Runs that parked on a timer, signal or child", AGENT)
RUNS_TAKEN_OVER = Counter("agentkit.runs.taken_over", "{run}", "Runs freed from dead workers by this process")
RUNS_BURIED = Counter("agentkit.runs.buried", "{run}", "Runs given up (without the agent where a sweep did it)", AGENT)
RUNS_IN_FLIGHT = Gauge("agentkit.runs.in_flight", "{run}", "Runs that this process has claimed")
RUN_SECONDS = Histogram("agentkit.run.duration", "s", "Length of one activation", AGENT, STATUS)
STEPS = Counter("agentkit.steps", "{step}", "Step bodies that ended (replayed steps are not counted)", AGENT, OUTCOME)
STEP_SECONDS = Histogram("agentkit.step.duration", "s", "Length of a step's body, attempts included", AGENT, OUTCOME)
FLUSH_ROWS = Histogram("agentkit.flush.rows", "{row}", "Journal entries written by one flush")
FLUSH_SECONDS = Histogram("agentkit.flush.duration", "s", "Time until the store acknowledged a flush")
LANE_DEPTH = Gauge("agentkit.lane.depth", "{row}", "Journal entries that wait for the next flush")
SIGNALS = Counter("agentkit.signals", "{signal}", "Signals sent by this process", OUTCOME)
CLAIMS = Counter("agentkit.claims", "{run}", "Answers to claims: granted, or why not", OUTCOME)
TICKETS_PUT = Counter("agentkit.queue.tickets.put", "{ticket}", "Tickets put by this process")
TICKETS_LEASED = Counter("agentkit.queue.tickets.leased", "{ticket}", "Tickets leased by this process")
QUEUE_DEPTH = Gauge("agentkit.queue.depth", "{ticket}", "Tickets in the queue, as this process last saw it", AGENT, VERSION, STATE)
QUEUE_OLDEST_SECONDS = Gauge("agentkit.queue.oldest", "s", "Age of the oldest undelivered ticket", AGENT, VERSION)
STALLS = Counter("agentkit.loop.stalls", "{stall}", "Times that user code blocked the event loop", CODE)
STALL_SECONDS = Histogram("agentkit.loop.stall.duration", "s", "How long the event loop was blocked", CODE)
BEATS_MISSED = Counter("agentkit.beats.missed", "{beat}", "Heartbeats that were due and not accepted")
MODEL_TOKENS_READ = Counter("agentkit.model.tokens.read", "{token}", "Tokens that models read", MODEL_NAME, TENANT)
MODEL_TOKENS_WRITTEN = Counter("agentkit.model.tokens.written", "{token}", "Tokens that models wrote", MODEL_NAME, TENANT)
MODEL_USD = Counter("agentkit.model.cost", "USD", "What calls of models with a price cost", MODEL_NAME, TENANT)
SESSION_LINE = Histogram(
    "agentkit.session.line", "{turn}", "Turns in a session's line when a message took its place there, with its own", AGENT
)
SESSION_SECONDS = Histogram("agentkit.session.wait", "s", "How long messages waited for their turn in their session", AGENT)
RETRIED = Event("agentkit.policy.retry", "{retry}", "An attempt failed and is made again after a wait", POLICY, ATTEMPT, WAIT)
NOT_RETRIED = Event("agentkit.policy.gave_up", "{call}", "An attempt failed and is not made again", POLICY, REASON, ATTEMPT)
CUT_OFF = Event("agentkit.policy.cut_off", "{call}", "A deadline passed in or before a call", POLICY)
HEDGED = Event("agentkit.policy.hedge", "{call}", "A slow call was sent a second time; the outcome says which answered", POLICY, OUTCOME)
FELL_BACK = Event("agentkit.policy.fallback", "{call}", "An alternative failed and the next is asked", ATTEMPT)
CIRCUIT_CHANGED = Event("agentkit.circuit.change", "{change}", "A circuit opened, half opened or closed", POLICY, STATE)
CIRCUIT_REFUSED = Event("agentkit.circuit.refusal", "{call}", "An open circuit refused a call", POLICY)
LIMIT_WAITED = Event("agentkit.limit.wait", "{call}", "A call waited for a permit or for its rate", LIMIT, WAIT)
LIMIT_REFUSED = Event("agentkit.limit.refusal", "{call}", "A limit refused a call", LIMIT, REASON)
LIMIT_SECONDS = Histogram("agentkit.limit.duration", "s", "How long calls waited for a limit (only those that did)", LIMIT)
TOOL_CACHE = Event("agentkit.tool.cache", "{call}", "A call of a cached tool: kept, shared with one under way, or made", TOOL, OUTCOME)
TOOL_DENIED = Event("agentkit.tool.denied", "{call}", "A call whose principal lacks a permission that the tool requires", TOOL)
LIMIT_PERMITS = Gauge("agentkit.limit.permits", "{permit}", "Permits of an adaptive semaphore", LIMIT)


_OFF: AbstractContextManager[Span] = nullcontext(INVALID_SPAN)
_W3C = TraceContextTextMapPropagator()
_live = False
_look_at = 0.0


def enabled() -> bool:
    """Whether an SDK is configured for spans or metrics. Costs well under 0.1 us: hot paths may ask at every step."""
    return _live or (time.monotonic() >= _look_at and look())


def look() -> bool:
    """Look for an SDK now, for instance because one was just configured. Once seen it stays: OpenTelemetry sets providers once."""
    global _live, _look_at  # noqa: PLW0603  the providers are one per process too
    _look_at = time.monotonic() + LOOK_EVERY_S
    _live = from_an_sdk(trace.get_tracer_provider()) or from_an_sdk(metrics.get_meter_provider())
    return _live


def from_an_sdk(provider: object) -> bool:
    """Whether a provider is more than the API's own stand-in."""
    return not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


@cache
def tracer() -> Tracer:
    """The tracer that all spans of this library come from."""
    return trace.get_tracer(SCOPE)


@cache
def _meter() -> metrics.Meter:
    return metrics.get_meter(SCOPE)


def span(what: SpanName, attributes: Attributes = NOTHING, *, parent: str = "") -> AbstractContextManager[Span]:
    """Run a block under a new span, current in it. `parent` is what `inject` gave, in this process or another.

    Without an SDK the block gets an invalid span, which takes and forgets whatever is set on it.
    """
    if not enabled():
        return _OFF
    return tracer().start_as_current_span(what.name, extract(parent), kind=what.kind, attributes=attributes)


def span_of_the_past(what: SpanName, started_ns: int, attributes: Attributes = NOTHING, *, parent: str = "") -> None:
    """A span from `started_ns` (`time.time_ns`) to now: for a wait that is worth a span only if something came of it."""
    if enabled():
        tracer().start_span(what.name, extract(parent), kind=what.kind, attributes=attributes, start_time=started_ns).end()


def inject(otherwise: str = "") -> str:
    """The current trace context as one string: W3C `traceparent`, then after a blank `tracestate` if there is one.

    Outside of any trace `otherwise`: hand in what the run carries, so that a process without an SDK does not cut its trace.
    """
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    if "traceparent" not in carrier:
        return otherwise
    return f"{carrier['traceparent']} {carrier.get('tracestate', '')}".rstrip()


def extract(packed: str) -> Context | None:
    """What `inject` packed, as a parent for a span. None, the current context, for an empty string; damage gives a new trace."""
    if not packed:
        return None
    parent, _, state = packed.partition(" ")
    return _W3C.extract({"traceparent": parent, "tracestate": state})


def ids() -> tuple[str, str] | None:
    """Trace id and span id of the current span in hexadecimal, as logs show them; None outside of any trace."""
    context = trace.get_current_span().get_span_context()
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None
