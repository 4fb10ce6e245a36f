"""Every error of agentkit, in one tree. Each says whether the effect may have happened.

AgentKitError
├── RunError(kind, message, run_id)      a run ended without a result
│   ├── StepError(… step)                a step failed; raised live and on replay alike
│   │   └── PermissionDenied             the principal may not: nothing was started
│   ├── NeedNotMet(good, total, needed, first)    too few children succeeded
│   ├── PlanFailed                       a plan and all its successors failed
│   ├── NoResult                         a plan's step has no result: skipped, or not part of the plan
│   ├── TooManyTurns                     a chat agent called tools until it had no more turns
│   ├── AnswerCut  AnswerWithheld        an answer without its end, or withheld by the model's server
│   ├── GuardrailTripped                 a guardrail stopped what was said, or a tool's call: nobody was given it
│   ├── RunBuried                        given up: it killed its process, or its journal does not fit the code
│   └── RunTimeout                       its deadline passed
├── RunCancelled                         cancelled by somebody
├── RunNotFound   RunConflict            no such run; another run has that id
├── RunEnded                             too late for a signal
├── SignalTimeout                        wait_for waited in vain
├── Misuse                               the code breaks a rule of durable execution
│   ├── AmbiguousStep                    a step whose name is not the same in every replay
│   ├── JournalMismatch                  the journal was written by other code
│   ├── NotSerialisable                  a value that does not survive JSON, with the path inside it
│   └── UnknownAgent                     no agent of that name here
├── UnknownModel                         no model of that name here: nothing was sent
├── UnknownTenant                        no tenant of that id: nothing was written
├── InvalidInput                         the input of a run does not validate
├── ToolArguments(tool, faults)          what a model wrote does not fit the tool: nothing was started
├── PlanInvalid(faults)                  a plan that cannot be carried out, with all its faults: nothing of it was started
├── ToolDied                             the process of a tool ended without an answer: the effect may have happened
├── InvalidSetting                       a URL, a variable or an option is wrong
│   ├── AdapterNotInstalled              (also an ImportError)
│   └── UnknownScheme
├── InferenceError(endpoint, problem, retry_after_s)    a model server did not do as asked: retry_safe, counts_as_failure
│   ├── Unreachable                      nothing was sent
│   ├── RateLimited   EngineBusy         nothing was computed
│   ├── EngineFailed   InferenceTimeout   ConnectionCut    an answer may have been computed, and billed
│   ├── StreamBroken(… text)             after the first event: part of an answer came
│   ├── ProtocolBroken                   the answer makes no sense
│   ├── AuthFailed                       the endpoint's key was refused
│   ├── ContentFiltered                  the server answers no such prompt
│   ├── RequestRefused                   the request is wrong: nothing was computed
│   │   └── ContextTooLong  ModelNotFound  Unsupported
│   └── ScriptExhausted  NotRecorded     a test's model has no answer for this call
├── Overloaded(retry_after_s)
│   └── QueueFull
├── CircuitOpen(retry_after_s)           the backend is unwell: nothing was sent
├── BatchClosed                          a micro-batch was closed before it answered this call
├── BudgetExceeded                       money or tokens are used up: nothing was sent
├── DeadlineExceeded                     (also a TimeoutError) cut off: the effect may have happened
│   └── NoTimeLeft                       nothing was sent
├── PermitLost                           cut off: its place under a shared limit may be another's
└── StoreError
    ├── StoreUnavailable                 no answer: a write may have happened
    │   └── StoreBusy                    it did not get to begin: nothing was written
    ├── StoreRefused                     the store refused the data: nothing was written
    │   ├── EntryTooLarge  ValueTooLarge  InvalidKey  InvalidLimit
    │   ├── ValueConflict                another writer was first
    │   └── SchemaTooNew  StoreCorrupt
    ├── WorkerFenced                     this worker was declared dead: nothing was written
    └── ClaimLost                        the run belongs to somebody else: nothing was written
RunParked (a BaseException)              unwinds the frames of a run that parks or drains
"""

from agentkit.errors.base import (
    AdapterNotInstalled,
    AgentKitError,
    InvalidInput,
    InvalidSetting,
    Misuse,
    NotSerialisable,
    UnknownAgent,
    UnknownModel,
    UnknownScheme,
    UnknownTenant,
    nearest,
)
from agentkit.errors.bounds import (
    BatchClosed,
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    NoTimeLeft,
    Overloaded,
    PermitLost,
    QueueFull,
)
from agentkit.errors.inference import (
    AuthFailed,
    ConnectionCut,
    ContentFiltered,
    ContextTooLong,
    EngineBusy,
    EngineFailed,
    InferenceError,
    InferenceTimeout,
    ModelNotFound,
    NotRecorded,
    ProtocolBroken,
    RateLimited,
    RequestRefused,
    ScriptExhausted,
    StreamBroken,
    Unreachable,
    Unsupported,
)
from agentkit.errors.runs import (
    AmbiguousStep,
    AnswerCut,
    AnswerWithheld,
    GuardrailTripped,
    JournalMismatch,
    NeedNotMet,
    NoResult,
    PermissionDenied,
    PlanFailed,
    PlanInvalid,
    RunBuried,
    RunCancelled,
    RunConflict,
    RunEnded,
    RunError,
    RunNotFound,
    RunParked,
    RunTimeout,
    SignalTimeout,
    StepError,
    ToolArguments,
    ToolDied,
    TooManyTurns,
)
from agentkit.errors.stores import (
    ClaimLost,
    EntryTooLarge,
    InvalidKey,
    InvalidLimit,
    SchemaTooNew,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    ValueConflict,
    ValueTooLarge,
    WorkerFenced,
)

__all__ = [
    "AdapterNotInstalled",
    "AgentKitError",
    "AmbiguousStep",
    "AnswerCut",
    "AnswerWithheld",
    "AuthFailed",
    "BatchClosed",
    "BudgetExceeded",
    "CircuitOpen",
    "ClaimLost",
    "ConnectionCut",
    "ContentFiltered",
    "ContextTooLong",
    "DeadlineExceeded",
    "EngineBusy",
    "EngineFailed",
    "EntryTooLarge",
    "GuardrailTripped",
    "InferenceError",
    "InferenceTimeout",
    "InvalidInput",
    "InvalidKey",
    "InvalidLimit",
    "InvalidSetting",
    "JournalMismatch",
    "Misuse",
    "ModelNotFound",
    "NeedNotMet",
    "NoResult",
    "NoTimeLeft",
    "NotRecorded",
    "NotSerialisable",
    "Overloaded",
    "PermissionDenied",
    "PermitLost",
    "PlanFailed",
    "PlanInvalid",
    "ProtocolBroken",
    "QueueFull",
    "RateLimited",
    "RequestRefused",
    "RunBuried",
    "RunCancelled",
    "RunConflict",
    "RunEnded",
    "RunError",
    "RunNotFound",
    "RunParked",
    "RunTimeout",
    "SchemaTooNew",
    "ScriptExhausted",
    "SignalTimeout",
    "StepError",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "StreamBroken",
    "TooManyTurns",
    "ToolArguments",
    "ToolDied",
    "UnknownAgent",
    "UnknownModel",
    "UnknownScheme",
    "UnknownTenant",
    "Unreachable",
    "Unsupported",
    "ValueConflict",
    "ValueTooLarge",
    "WorkerFenced",
    "nearest",
]
