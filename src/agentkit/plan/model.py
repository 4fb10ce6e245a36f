"""`Plan`: steps as data; and `PlanResult`: what became of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, overload

from pydantic import BaseModel, JsonValue, TypeAdapter, create_model
from pydantic_core import to_json

from agentkit.errors import NoResult, PlanInvalid, RunError
from agentkit.plan.check import faults_of
from agentkit.plan.executor import Ended
from agentkit.plan.shape import steps_for
from agentkit.plan.steps import PlanStep
from agentkit.plan.uses import Usable, uses_of

T = TypeVar("T")


class Plan(BaseModel, defer_build=True):
    """Steps that use tools and agents: data that code or a model writes. A step starts as soon as those it comes after have ended."""

    steps: list[PlanStep]

    def check(self, *, tools: Iterable[Usable] = (), agents: Iterable[type[Any]] = ()) -> None:
        """Raises `PlanInvalid`, with all that keeps this plan from being carried out with these tools and agents."""
        faults = faults_of(self.steps, uses_of(tools, agents))
        if faults:
            raise PlanInvalid(faults)

    @classmethod
    def schema_for(cls, *, tools: Iterable[Usable] = (), agents: Iterable[type[Any]] = ()) -> type[Plan]:
        """A `Plan` that can use nothing else, to be asked of a model: its JSON schema has one closed variant for each tool and agent.

        Each argument may be written out or be a `Ref`. What validates is made of plain `PlanStep`s.
        """
        return _closed(cls, tuple(tools), tuple(agents))


@lru_cache(maxsize=64)  # a replay asks for it again, and a few sets of tools are all that a program has
def _closed(base: type[Plan], tools: tuple[Usable, ...], agents: tuple[type[Any], ...]) -> type[Plan]:
    fields: dict[str, Any] = {"steps": (steps_for(uses_of(tools, agents)), ...)}
    return create_model("Plan", __base__=base, __doc__="Steps: each starts when those it comes after have ended.", **fields)


class PlanResult:
    """What became of a plan.

    Args:
        plan: as it was carried out.
        done: ids of the steps that have a result, in the order of the plan; of a plan that failed in the order of completion.
        failed: errors of steps, by id. Without any the plan succeeded.
        skipped: steps whose `when` did not hold.
        undone: steps that were taken back, because another one failed.
        undo_failed: steps that could not be taken back, with the reason: their effects stand.
    """

    __slots__ = ("_results", "failed", "plan", "skipped", "undo_failed", "undone")

    def __init__(self, plan: Plan, ended: Ended) -> None:
        self.plan, self._results = plan, ended.results
        self.failed: Mapping[str, RunError] = ended.failed
        self.skipped: Sequence[str] = ended.skipped
        self.undone: Sequence[str] = ended.undone
        self.undo_failed: Mapping[str, RunError] = ended.undo_failed

    @property
    def done(self) -> Sequence[str]:
        return [*self._results]

    @overload
    def get(self, step: str, /) -> JsonValue: ...
    @overload
    def get(self, step: str, model: type[T], /) -> T: ...
    def get(self, step: str, model: type[T] | None = None, /) -> T | JsonValue:
        """The result of a step, as JSON or as `model`.

        Raises the step's own error, or of a step that did not come to its result, or was taken back, the error that the plan failed by.
        Raises `NoResult` when it was skipped, or is not part of the plan.
        """
        if step in self.failed:
            raise self.failed[step]
        if step in self._results and step not in self.undone:
            value = self._results[step]
            return value if model is None else TypeAdapter(model).validate_json(to_json(value))
        known = [one.id for one in self.plan.steps]
        if step in self.skipped:
            raise NoResult(step, "its `when` did not hold")
        if step not in known:
            raise NoResult(step, f"there are {', '.join(known) or 'no steps'}")
        raise next(iter(self.failed.values()))
