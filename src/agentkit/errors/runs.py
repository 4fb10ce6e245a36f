"""How runs and steps end without a result, and what keeps them from going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.errors.base import AgentKitError, Misuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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


class NeedNotMet(RunError):
    """Fewer children succeeded than were needed. What those that succeeded did has happened; those that had not ended are cancelled.

    Its `kind` is that of the first failure, or `NeedNotMet` where none failed and the time was up.

    Args:
        good: how many succeeded.
        total: of so many.
        needed: how many had to.
        late: how many had not ended when this was decided.
        first: the error of the first child that failed, in the order in which they were asked for.
    """

    def __init__(self, good: int, total: int, needed: int, *, late: int = 0, first: RunError | None = None, run_id: str = "") -> None:
        self.good, self.total, self.needed, self.late, self.first = good, total, needed, late, first
        parts = [f"{good} of {total} succeeded, {needed} needed"]
        parts += [f"{late} had not ended"] if late else []
        parts += [f"first failure: {first}"] if first is not None else []
        super().__init__("NeedNotMet" if first is None else first.kind, "; ".join(parts), run_id)


class PermissionDenied(StepError):
    """A tool requires what the run's principal is not permitted. It was not started. Journalled: a replay raises it too.

    Args:
        message: who lacks what, as the journal keeps it.
    """

    def __init__(self, message: str, step: str = "", run_id: str = "") -> None:
        super().__init__("PermissionDenied", message, step, run_id)


class PlanFailed(RunError):
    """A plan failed, and so did those that were made in its place. Finished effects were undone as far as each says how.

    Args:
        rounds: how many plans were carried out.
        failed: the errors of the last one's steps, by id.
        undo_failed: those of its steps that could not be taken back: their effects stand.
    """

    def __init__(
        self, rounds: int, failed: Mapping[str, RunError], undo_failed: Mapping[str, RunError] | None = None, run_id: str = ""
    ) -> None:
        self.rounds, self.failed, self.undo_failed = rounds, dict(failed), dict(undo_failed or {})
        told = [f"step {step!r}: {error.kind}: {error.message}" for step, error in self.failed.items()]
        told += [f"step {step!r} could not be taken back: {error.kind}: {error.message}" for step, error in self.undo_failed.items()]
        super().__init__("PlanFailed", f"{rounds} plan{'s' * (rounds > 1)} failed, the last one by {'; '.join(told)}", run_id)


class NoResult(RunError):
    """A plan's step has no result although no step failed: its `when` skipped it, or the plan has no such step."""

    def __init__(self, step: str, why: str, run_id: str = "") -> None:
        self.step = step
        super().__init__("NoResult", f"step {step!r} of the plan has no result: {why}", run_id)


class GuardrailTripped(RunError):
    """A guardrail stopped a message, an answer or a tool's call. Nobody was given it; what came before it happened.

    Args:
        hook: what it looked at: `input`, `output` or `tool`.
        reason: what it said, or why it gave no answer.
    """

    def __init__(self, guardrail: str, hook: str, reason: str, run_id: str = "") -> None:
        self.guardrail, self.hook, self.reason = guardrail, hook, reason
        super().__init__("GuardrailTripped", f"guardrail {guardrail!r} stopped the {hook}: {reason}", run_id)


class TooManyTurns(RunError):
    """A chat agent called its model as often as it may for one message, and still has no answer. What its tools did has happened."""

    def __init__(self, max_turns: int, run_id: str = "") -> None:
        self.max_turns = max_turns
        super().__init__("TooManyTurns", f"no answer after {max_turns} calls of the model; raise max_turns, or look why it goes on", run_id)


class AnswerCut(RunError):
    """A model's answer ended before it was whole, for want of tokens. What its tools did before has happened."""

    def __init__(self, model: str, tokens: int, run_id: str = "") -> None:
        self.model, self.tokens = model, tokens
        super().__init__("AnswerCut", f"model {model!r} stopped in mid-answer after {tokens} tokens; raise max_tokens", run_id)


class AnswerWithheld(RunError):
    """The model's server withheld its answer for what is in it. What its tools did before has happened."""

    def __init__(self, model: str, run_id: str = "") -> None:
        self.model = model
        super().__init__("AnswerWithheld", f"the server of model {model!r} withheld the answer for its content", run_id)


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


class ToolArguments(AgentKitError):
    """Arguments that do not fit a tool, told so that a model can mend its call. Nothing was started.

    Args:
        tool: its name.
        faults: one line for each: which argument, what is wrong with it, what was given.
        allowed: how each argument is to be, one line for each.
    """

    def __init__(self, tool: str, faults: Iterable[str], allowed: Iterable[str]) -> None:
        self.tool, self.faults, self.allowed = tool, list(faults), list(allowed)
        told = "\n- ".join(["", *self.faults])
        wanted = "\n- ".join(["", *self.allowed]) if self.allowed else " {} (it has no arguments)"
        super().__init__(f"{tool} was not called, for its arguments do not fit:{told}\nGive it one JSON object with:{wanted}")


class PlanInvalid(AgentKitError):
    """A plan cannot be carried out. All that is wrong with it is in `faults`, one line each. Nothing of it was started."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n- ".join(["the plan cannot be carried out:", *self.faults]))


class ToolDied(AgentKitError):
    """The process of a tool ended without an answer. Its effect may have happened."""

    def __init__(self, tool: str, problem: str) -> None:
        self.tool, self.problem = tool, problem
        super().__init__(f"tool {tool!r}: {problem}")


class RunParked(BaseException):
    """Unwinds the frames of a run that parks or drains. Never swallow it."""
