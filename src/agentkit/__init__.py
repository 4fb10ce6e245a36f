"""agentkit: run AI agents durably inside your own app.

A run's way, and the room of each step:

    your Agent.run asks for a step          agents/
    already in the journal? else run it     durable/journal.py, durable/steps.py
    the result is handed in                 durable/group_commit.py
    and made durable with its neighbours    ports/runs.py -> an adapter (agentkit.inmemory, agentkit_sql)

Submitted runs pass runtime/ (create, queue), ports/queue.py and runtime/worker.py (lease, claim) before. `Runtime` is the way in;
`agentkit.testing` has a runtime with a clock to advance, and the conformance suite of every port.
"""

from agentkit.agents.base import Agent, AnyAgent, Child, Signal
from agentkit.agents.children import Need, Outcomes
from agentkit.agents.context import Context, StepContext
from agentkit.agents.state import State
from agentkit.durable.group_commit import Durability
from agentkit.durable.steps import Done, Effect
from agentkit.errors import (
    AdapterNotInstalled,
    AgentKitError,
    AmbiguousStep,
    ClaimLost,
    EntryTooLarge,
    InvalidInput,
    InvalidKey,
    InvalidLimit,
    InvalidSetting,
    JournalMismatch,
    Misuse,
    NotSerialisable,
    Overloaded,
    QueueFull,
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
    UnknownAgent,
    UnknownScheme,
    ValueConflict,
    ValueTooLarge,
    WorkerFenced,
)
from agentkit.ports.queue import Depth
from agentkit.ports.records import Entry
from agentkit.runtime.events import EventStream, Progress, RunEvent, Status, StatusChanged, StepEvent
from agentkit.runtime.handle import RunHandle, RunInfo
from agentkit.runtime.queues import DeadTicket
from agentkit.runtime.runtime import Lifespan, Runtime
from agentkit.runtime.settings import Settings
from agentkit.runtime.submission import Priority
from agentkit.runtime.verify import Verdict

__all__ = [
    "AdapterNotInstalled",
    "Agent",
    "AgentKitError",
    "AmbiguousStep",
    "AnyAgent",
    "Child",
    "ClaimLost",
    "Context",
    "DeadTicket",
    "Depth",
    "Done",
    "Durability",
    "Effect",
    "Entry",
    "EntryTooLarge",
    "EventStream",
    "InvalidInput",
    "InvalidKey",
    "InvalidLimit",
    "InvalidSetting",
    "JournalMismatch",
    "Lifespan",
    "Misuse",
    "Need",
    "NotSerialisable",
    "Outcomes",
    "Overloaded",
    "Priority",
    "Progress",
    "QueueFull",
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
    "UnknownAgent",
    "UnknownScheme",
    "ValueConflict",
    "ValueTooLarge",
    "Verdict",
    "WorkerFenced",
]
