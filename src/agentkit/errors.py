"""Every error of agentkit, in one tree. Each says whether the effect may have happened.

AgentKitError
├── RunError(kind, message, run_id)      a run ended without a result
│   ├── StepError(… step)                a step failed; raised live and on replay alike
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
├── InvalidInput                         the input of a run does not validate
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

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class AgentKitError(Exception):
    """Any error of agentkit."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when nothing is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


class RunError(AgentKitError):
    """A run ended without a result. Its finished steps happened, and their effects with them."""

    def __init__(self, kind: str, message: str, run_id: str = "") -> None:
        self.kind, self.message, self.run_id = kind, message, run_id
        super().__init__(f"{kind}: {message}" + (f" (run {run_id!r})" if run_id else ""))


class StepError(RunError):
    """A step failed, live or on replay: never the original type, so that both take the same `except`. Its effect may have happened."""

    def __init__(self, kind: str, message: str, step: str = "", run_id: str = "") -> None:
        super().__init__(kind, message, run_id)
        self.step = step


class RunBuried(RunError):
    """The run was given up and waits for `redrive`. Its finished steps happened."""


class RunTimeout(RunError):
    """The run's deadline passed. Its finished steps happened."""


class RunCancelled(AgentKitError):
    """The run was cancelled. Its finished steps happened."""

    def __init__(self, run_id: str, reason: str = "") -> None:
        self.run_id, self.reason = run_id, reason
        super().__init__(f"run {run_id!r} was cancelled" + (f": {reason}" if reason else ""))


class RunNotFound(AgentKitError):
    """No such run in this store: never created, or purged after its retention. Nothing was written."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"no run {run_id!r} in this store: check the id and the state URL (ended runs are purged after keep_s)")


class RunConflict(AgentKitError):
    """The id belongs to a run of another agent or with another input. Nothing was written."""

    def __init__(self, run_id: str, kind: str, wanted: str) -> None:
        self.run_id, self.kind, self.wanted = run_id, kind, wanted
        what = "another input" if kind == wanted else f"agent {kind!r}, not {wanted!r}"
        super().__init__(f"run {run_id!r} exists with {what}: one run_id names one run; choose a new id")


class RunEnded(AgentKitError):
    """The run has ended, so a signal cannot reach it any more. Nothing was written."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id!r} has ended: a signal reaches a run only before its end")


class SignalTimeout(AgentKitError):
    """`wait_for` waited `timeout_s` in vain. Journalled: a replay raises it too."""

    def __init__(self, signal: str, timeout_s: float) -> None:
        self.signal, self.timeout_s = signal, timeout_s
        super().__init__(f"no signal {signal!r} within {timeout_s:g} s")


class Misuse(AgentKitError):
    """The code breaks a rule of durable execution."""


class AmbiguousStep(Misuse):
    """A step whose name would differ between replays. It was not started."""

    def __init__(self, step: str, why: str) -> None:
        self.step = step
        super().__init__(f"step {step!r}: {why}. Use ctx.gather(), ctx.branch(key), or key= to give it a name of its own")


class JournalMismatch(Misuse):
    """The journal was written by code that asked for something else here. The step was not started."""

    def __init__(self, run_id: str, step: str, recorded: str, asked: str) -> None:
        self.run_id, self.step, self.recorded, self.asked = run_id, step, recorded, asked
        super().__init__(
            f"run {run_id!r}, step {step!r}: recorded {recorded}, the code now asks for {asked}. Raise the agent's version, "
            f"or keep arguments and order of recorded steps as they were"
        )


class NotSerialisable(Misuse):
    """A value cannot go through JSON. Where it was a step's result, the step ran."""

    def __init__(self, what: str, path: str, problem: str) -> None:
        self.what, self.path, self.problem = what, path, problem
        super().__init__(
            f"{what}: {path or 'the value'} does not survive JSON: {problem}. Return plain data or a pydantic model, or give returns="
        )


class UnknownAgent(Misuse):
    """No agent of that name is registered here. Nothing was written."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, sorted(known)
        listed = ", ".join(self.known) or "none"
        super().__init__(f"no agent {name!r} here (registered: {listed}){nearest(name, self.known)}; list it in Runtime(agents=[…])")


class InvalidInput(AgentKitError):
    """The input of a run does not validate. Nothing was written."""

    def __init__(self, agent: str, problem: str) -> None:
        self.agent, self.problem = agent, problem
        super().__init__(f"input of {agent!r}: {problem}")


class InvalidSetting(AgentKitError):
    """A URL, an environment variable or an option is wrong. Nothing was opened."""

    def __init__(self, name: str, value: object, rule: str) -> None:
        self.name, self.value, self.rule = name, value, rule
        super().__init__(f"{name}={value!r}: {rule}")


class AdapterNotInstalled(InvalidSetting, ImportError):  # type: ignore[misc]  # ImportError.name is the setting's name here
    """An adapter's driver is missing. Nothing was opened."""

    def __init__(self, scheme: str, extra: str) -> None:
        super().__init__("url", f"{scheme}://", f"its driver is missing; install it with: pip install 'agentkit-async[{extra}]'")


class UnknownScheme(InvalidSetting):
    """No adapter serves this URL scheme. Nothing was opened."""

    def __init__(self, port: str, url: str, known: Iterable[str]) -> None:
        scheme, known = url.partition(":")[0], sorted(known)
        super().__init__(port, url, f"no adapter for {scheme!r}; installed: {', '.join(known)}{nearest(scheme, known)}")


class InferenceError(AgentKitError):
    """A model server did not do as asked.

    Each kind says two things to whoever called. `retry_safe`: the same call may be sent again, and may well succeed then.
    `counts_as_failure`: it tells that the endpoint is unwell, so a circuit breaker counts it. A cancelled call raises none of them.

    Args:
        endpoint: the name of the server.
        problem: what it said, or what was seen.
        retry_after_s: when it asked to be left alone for so many seconds.
    """

    retry_safe: ClassVar[bool] = False
    counts_as_failure: ClassVar[bool] = False
    way_out: ClassVar[str] = ""

    def __init__(self, endpoint: str, problem: str, *, retry_after_s: float | None = None) -> None:
        self.endpoint, self.problem, self.retry_after_s = endpoint, problem, retry_after_s
        again = "" if retry_after_s is None else f"; try again in {retry_after_s:g} s"
        super().__init__(f"{endpoint}: {problem}{again}{self.way_out}")


class Unreachable(InferenceError):
    """No connection to the server. Nothing was sent."""

    retry_safe = counts_as_failure = True


class RateLimited(InferenceError):
    """Over the quota at this server. Nothing was computed. It is no sign of illness: a limit, not a breaker, is the answer to it."""

    retry_safe = True


class EngineBusy(InferenceError):
    """The server has too much waiting. Nothing was computed; another one may have room."""

    retry_safe = counts_as_failure = True


class EngineFailed(InferenceError):
    """The server failed by its own fault. An answer may have been computed, and billed."""

    retry_safe = counts_as_failure = True


class InferenceTimeout(InferenceError):
    """No answer in time. One may have been computed, and billed."""

    retry_safe = counts_as_failure = True


class ConnectionCut(InferenceError):
    """The connection ended after the request was sent and before anything came back. An answer may have been computed, and billed."""

    retry_safe = counts_as_failure = True


class StreamBroken(InferenceError):
    """The stream ended without saying why it finished. Part of the answer came, in `text`; it was computed, and billed.

    Not `retry_safe`: whoever listened has heard the first part, and another answer begins with another one.
    """

    counts_as_failure = True

    def __init__(self, endpoint: str, problem: str, *, text: str = "", retry_after_s: float | None = None) -> None:
        self.text = text
        super().__init__(endpoint, problem, retry_after_s=retry_after_s)


class ProtocolBroken(InferenceError):
    """What came back is not what the server's protocol allows. An answer was computed, and billed."""

    counts_as_failure = True
    way_out = "; check the endpoint's URL and dialect"


class AuthFailed(InferenceError):
    """The server refused the endpoint's key. Nothing was computed. It counts as a failure: the next call there would end the same way."""

    counts_as_failure = True
    way_out = "; check the endpoint's api_key"


class ContentFiltered(InferenceError):
    """The server answers no such prompt, or withholds the answer. It may have been computed, and billed."""


class RequestRefused(InferenceError):
    """The request is wrong for this server. Nothing was computed; it would be refused again."""


class ContextTooLong(RequestRefused):
    """Prompt and `max_tokens` do not fit the model's context. Nothing was computed."""

    way_out = "; shorten the prompt or lower max_tokens"


class ModelNotFound(RequestRefused):
    """The server does not serve that model. Nothing was computed."""


class Unsupported(RequestRefused):
    """The server cannot do what is asked, and says so in its capabilities. Nothing was sent."""


class ScriptExhausted(InferenceError):
    """A scripted model was asked once more than it has replies. Nothing happened."""

    way_out = "; give the script one reply for each call"


class NotRecorded(InferenceError):
    """The recording holds no such call. Nothing was sent."""

    way_out = "\nDelete the file to record anew"


class Overloaded(AgentKitError):
    """Too much is waiting already. Nothing was started; try again after `retry_after_s` seconds."""

    counts_as_failure: ClassVar[bool] = False  # the limit is ours: it tells nothing about the backend behind it
    try_elsewhere: ClassVar[bool] = True

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        self.what, self.limit, self.retry_after_s = what, limit, retry_after_s
        super().__init__(f"{what} is full ({limit}); try again in {retry_after_s:g} s")


class QueueFull(Overloaded):
    """The queue is at `max_depth`. Nothing was written."""


class CircuitOpen(AgentKitError):
    """Too many of the last calls failed or were slow. Nothing was sent; calls are let through again after `retry_after_s` seconds."""

    counts_as_failure: ClassVar[bool] = False
    try_elsewhere: ClassVar[bool] = True

    def __init__(self, name: str, retry_after_s: float) -> None:
        self.name, self.retry_after_s = name, retry_after_s
        super().__init__(f"the circuit of {name!r} is open, for its calls failed or were slow; try again in {retry_after_s:g} s")


class DeadlineExceeded(AgentKitError, TimeoutError):
    """A call was cut off at its deadline. Its effect may have happened."""

    def __init__(self, what: str, timeout_s: float) -> None:
        self.what, self.timeout_s = what, timeout_s
        super().__init__(f"{what}: no end within {timeout_s:g} s; give it more time, or look why it hangs")


class NoTimeLeft(DeadlineExceeded):
    """No time was left before a call was sent. Nothing happened."""

    counts_as_failure: ClassVar[bool] = False

    def __init__(self, what: str, timeout_s: float = 0.0) -> None:
        super().__init__(what, timeout_s)
        within = f"all {timeout_s:g} s went by waiting" if timeout_s else "the caller's deadline has passed"
        self.args = (f"{what}: not sent, for {within}; allow more time or fewer callers",)


class PermitLost(AgentKitError):
    """A call was cut off because its permit of a shared semaphore could not be renewed. Its effect may have happened."""

    counts_as_failure: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"semaphore {name!r}: the lease of a permit ran out and it may be another's; is the limit store reachable?")


class StoreError(AgentKitError):
    """A store did not do as asked."""


class StoreUnavailable(StoreError):
    """The store did not answer. A write may have happened."""

    def __init__(self, store: str, problem: str) -> None:
        self.store, self.problem = store, problem
        super().__init__(f"{store}: {problem}")


class StoreBusy(StoreUnavailable):
    """The store was locked or full before anything began. Nothing was written; try again."""

    retry_safe: ClassVar[bool] = True


class StoreRefused(StoreError):
    """The store refused the data. Nothing was written."""


class EntryTooLarge(StoreRefused):
    """A value over the limit of a journal entry. Nothing was written; where it was a step's result, the step ran."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.what, self.size, self.limit = what, size, limit
        super().__init__(f"{what} is {size} bytes, the limit is {limit}: keep big data in a blob store and return its address")


class ValueTooLarge(StoreRefused):
    """Over `max_value_bytes`. Nothing was written."""

    def __init__(self, key: str, size: int, limit: int) -> None:
        self.key, self.size, self.limit = key, size, limit
        super().__init__(f"value of {key!r} is {size} bytes, the limit is {limit}: split it, or keep an address instead")


class InvalidKey(StoreRefused):
    """A key or id outside the rule. Nothing was written."""

    def __init__(self, key: str, rule: str) -> None:
        self.key, self.rule = key, rule
        super().__init__(f"key {key[:80]!r}: {rule}")


class InvalidLimit(StoreRefused):
    """A weight or amount that can never be granted. Nothing was written."""

    def __init__(self, name: str, asked: float, most: float) -> None:
        self.name, self.asked, self.most = name, asked, most
        super().__init__(f"limit {name!r}: {asked:g} asked, but it never has more than {most:g}: ask for less or raise the limit")


class ValueConflict(StoreRefused):
    """Another writer was first. Nothing was written."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        self.key, self.expected, self.found = key, expected, found
        super().__init__(f"{key!r}: expected version {expected}, found {found}; read it again and decide anew")


class SchemaTooNew(StoreRefused):
    """The store was migrated by a newer agentkit. Nothing was written."""

    def __init__(self, store: str, found: int, known: int) -> None:
        self.found, self.known = found, known
        super().__init__(f"{store}: its schema is version {found}, this agentkit knows up to {known}: upgrade agentkit-async")


class StoreCorrupt(StoreRefused):
    """The store's file is damaged or no database. Nothing was written."""

    def __init__(self, store: str, problem: str) -> None:
        self.store, self.problem = store, problem
        super().__init__(f"{store}: {problem}. Restore it from a backup, or move it away to start empty")


class WorkerFenced(StoreError):
    """This worker was declared dead. Nothing was written; it registers anew."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        super().__init__(f"worker {worker_id} was declared dead by another process")


class ClaimLost(StoreError):
    """The run belongs to somebody else now. Nothing was written."""

    def __init__(self, run_id: str, fence: int) -> None:
        self.run_id, self.fence = run_id, fence
        super().__init__(f"run {run_id!r}: claim {fence} is no longer valid")


class RunParked(BaseException):
    """Unwinds the frames of a run that parks or drains. Never swallow it."""
