"""agentkit: run AI agents durably inside your own app.

A run's way, and the room of each step:

    your Agent.run asks for a step          agents/
    already in the journal? else run it     durable/journal.py, durable/steps.py
    the result is handed in                 durable/group_commit.py
    and made durable with its neighbours    ports/runs.py -> an adapter (agentkit.inmemory, agentkit_sql)

Submitted runs pass runtime/ (create, queue), ports/queue.py and runtime/worker.py (lease, claim) before. `Runtime` is the way in;
`agentkit.testing` has a runtime with a clock to advance, and the conformance suite of every port.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentkit.agents.base import Agent, AnyAgent, Child, Signal
from agentkit.agents.children import Need, Outcomes
from agentkit.agents.context import Context
from agentkit.agents.meta import Principal
from agentkit.agents.state import State
from agentkit.agents.step_context import StepContext
from agentkit.agents.tenants import Tenant, TenantSource
from agentkit.durable.group_commit import Durability
from agentkit.durable.steps import Done, Effect
from agentkit.errors import (
    AdapterNotInstalled,
    AgentKitError,
    AmbiguousStep,
    AnswerCut,
    AnswerWithheld,
    AuthFailed,
    BatchClosed,
    BudgetExceeded,
    CircuitOpen,
    ClaimLost,
    ConnectionCut,
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    EngineBusy,
    EngineFailed,
    EntryTooLarge,
    GuardrailTripped,
    InferenceError,
    InferenceTimeout,
    InvalidInput,
    InvalidKey,
    InvalidLimit,
    InvalidSetting,
    JournalMismatch,
    Misuse,
    ModelNotFound,
    NeedNotMet,
    NoResult,
    NoTimeLeft,
    NotSerialisable,
    Overloaded,
    PermissionDenied,
    PermitLost,
    PlanFailed,
    PlanInvalid,
    ProtocolBroken,
    QueueFull,
    RateLimited,
    RequestRefused,
    RunBuried,
    RunCancelled,
    RunConflict,
    RunEnded,
    RunError,
    RunNotFound,
    RunParked,
    RunTimeout,
    SchemaTooNew,
    SignalTimeout,
    StepError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    StreamBroken,
    ToolArguments,
    ToolDied,
    TooManyTurns,
    UnknownAgent,
    UnknownModel,
    UnknownScheme,
    UnknownTenant,
    Unreachable,
    Unsupported,
    ValueConflict,
    ValueTooLarge,
    WorkerFenced,
)
from agentkit.inference.budgets import Budget
from agentkit.ports.queue import Depth
from agentkit.ports.records import Entry
from agentkit.runtime.events import (
    ApprovalEvent,
    BudgetEvent,
    EventStream,
    Progress,
    RunEvent,
    Status,
    StatusChanged,
    StepEvent,
    TextDelta,
    ToolEvent,
)
from agentkit.runtime.handle import RunHandle, RunInfo
from agentkit.runtime.queues import DeadTicket
from agentkit.runtime.runtime import Lifespan, Runtime
from agentkit.runtime.settings import Settings
from agentkit.runtime.submission import Priority
from agentkit.runtime.verify import Verdict

if TYPE_CHECKING:
    from agentkit.agents.chat import ChatAgent
    from agentkit.agents.executors import Executor
    from agentkit.agents.guardrail import Guardrail, Ruling
    from agentkit.agents.orchestrator import Orchestrator
    from agentkit.agents.planning import PlanningAgent
    from agentkit.agents.session import Session
    from agentkit.agents.tool import AnyTool, Tool, tool
    from agentkit.agents.tool_cache import Cache
    from agentkit.agents.turns import SessionSettings
    from agentkit.durable.secret import Secret
    from agentkit.inference.batching import MicroBatch
    from agentkit.inference.models import Models, Reply, TextStream
    from agentkit.inference.places import Model, Place
    from agentkit.inference.pricing import Price
    from agentkit.plan.model import Plan, PlanResult
    from agentkit.plan.steps import PlanStep, Ref, When
    from agentkit.ports.inference import Array, Inference
    from agentkit.ports.messages import Attachment, Message, Prompt, Request, Usage, UserMessage
    from agentkit.resilience.circuit_breaker import CircuitBreaker
    from agentkit.resilience.policy import Policy
    from agentkit.resilience.rate_limit import RateLimit
    from agentkit.resilience.retry import Retry
    from agentkit.resilience.semaphore import Semaphore

__all__ = [
    "AdapterNotInstalled",
    "Agent",
    "AgentKitError",
    "AmbiguousStep",
    "AnswerCut",
    "AnswerWithheld",
    "AnyAgent",
    "AnyTool",
    "ApprovalEvent",
    "Array",
    "Attachment",
    "AuthFailed",
    "BatchClosed",
    "Budget",
    "BudgetEvent",
    "BudgetExceeded",
    "Cache",
    "ChatAgent",
    "Child",
    "CircuitBreaker",
    "CircuitOpen",
    "ClaimLost",
    "ConnectionCut",
    "ContentFiltered",
    "Context",
    "ContextTooLong",
    "DeadTicket",
    "DeadlineExceeded",
    "Depth",
    "Done",
    "Durability",
    "Effect",
    "EngineBusy",
    "EngineFailed",
    "Entry",
    "EntryTooLarge",
    "EventStream",
    "Executor",
    "Guardrail",
    "GuardrailTripped",
    "Inference",
    "InferenceError",
    "InferenceTimeout",
    "InvalidInput",
    "InvalidKey",
    "InvalidLimit",
    "InvalidSetting",
    "JournalMismatch",
    "Lifespan",
    "Message",
    "MicroBatch",
    "Misuse",
    "Model",
    "ModelNotFound",
    "Models",
    "Need",
    "NeedNotMet",
    "NoResult",
    "NoTimeLeft",
    "NotSerialisable",
    "Orchestrator",
    "Outcomes",
    "Overloaded",
    "PermissionDenied",
    "PermitLost",
    "Place",
    "Plan",
    "PlanFailed",
    "PlanInvalid",
    "PlanResult",
    "PlanStep",
    "PlanningAgent",
    "Policy",
    "Price",
    "Principal",
    "Priority",
    "Progress",
    "Prompt",
    "ProtocolBroken",
    "QueueFull",
    "RateLimit",
    "RateLimited",
    "Ref",
    "Reply",
    "Request",
    "RequestRefused",
    "Retry",
    "Ruling",
    "RunBuried",
    "RunCancelled",
    "RunConflict",
    "RunEnded",
    "RunError",
    "RunEvent",
    "RunHandle",
    "RunInfo",
    "RunNotFound",
    "RunParked",
    "RunTimeout",
    "Runtime",
    "SchemaTooNew",
    "Secret",
    "Semaphore",
    "Session",
    "SessionSettings",
    "Settings",
    "Signal",
    "SignalTimeout",
    "State",
    "Status",
    "StatusChanged",
    "StepContext",
    "StepError",
    "StepEvent",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "StreamBroken",
    "Tenant",
    "TenantSource",
    "TextDelta",
    "TextStream",
    "TooManyTurns",
    "Tool",
    "ToolArguments",
    "ToolDied",
    "ToolEvent",
    "UnknownAgent",
    "UnknownModel",
    "UnknownScheme",
    "UnknownTenant",
    "Unreachable",
    "Unsupported",
    "Usage",
    "UserMessage",
    "ValueConflict",
    "ValueTooLarge",
    "Verdict",
    "When",
    "WorkerFenced",
    "tool",
]

_LATER = {
    "AnyTool": "agentkit.agents.tool",
    "Array": "agentkit.ports.inference",
    "Attachment": "agentkit.ports.messages",
    "Cache": "agentkit.agents.tool_cache",
    "ChatAgent": "agentkit.agents.chat",
    "CircuitBreaker": "agentkit.resilience.circuit_breaker",
    "Executor": "agentkit.agents.executors",
    "Guardrail": "agentkit.agents.guardrail",
    "Inference": "agentkit.ports.inference",
    "Message": "agentkit.ports.messages",
    "MicroBatch": "agentkit.inference.batching",
    "Model": "agentkit.inference.places",
    "Models": "agentkit.inference.models",
    "Orchestrator": "agentkit.agents.orchestrator",
    "Place": "agentkit.inference.places",
    "Plan": "agentkit.plan.model",
    "PlanResult": "agentkit.plan.model",
    "PlanStep": "agentkit.plan.steps",
    "PlanningAgent": "agentkit.agents.planning",
    "Policy": "agentkit.resilience.policy",
    "Price": "agentkit.inference.pricing",
    "Prompt": "agentkit.ports.messages",
    "RateLimit": "agentkit.resilience.rate_limit",
    "Ref": "agentkit.plan.steps",
    "Reply": "agentkit.inference.models",
    "Request": "agentkit.ports.messages",
    "Retry": "agentkit.resilience.retry",
    "Ruling": "agentkit.agents.guardrail",
    "Semaphore": "agentkit.resilience.semaphore",
    "Session": "agentkit.agents.session",
    "Secret": "agentkit.durable.secret",
    "SessionSettings": "agentkit.agents.turns",
    "TextStream": "agentkit.inference.models",
    "Tool": "agentkit.agents.tool",
    "Usage": "agentkit.ports.messages",
    "UserMessage": "agentkit.ports.messages",
    "When": "agentkit.plan.steps",
    "tool": "agentkit.agents.tool",
}
"""Where the names are that not every program uses. Their rooms are loaded when they are asked for: see `agentkit.later`."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'agentkit' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_LATER[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
