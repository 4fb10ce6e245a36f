"""Carrying out a plan: steps side by side as their order allows, and back again when it fails or is cut short.

What is done, and where it is kept, is the business of the `Hands` that it is given; here is only the order of things. An effect is taken
back only when what had ended by then is written down (`conclude`): a replay takes back the same steps in the same order.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

import anyio
from anyio.abc import TaskGroup
from pydantic import BaseModel, JsonValue
from pydantic_core import to_jsonable_python

from agentkit.durable.execution import Interrupted
from agentkit.durable.steps import NOT_JOURNALLED
from agentkit.errors import AgentKitError, RunCancelled, RunError, StoreError
from agentkit.plan.schedule import Schedule
from agentkit.plan.steps import Op, PlanStep, When, as_ref

log = logging.getLogger("agentkit.plan")


class Failure(BaseModel, defer_build=True):
    """Why a step failed, as the journal keeps it."""

    kind: str
    message: str


class Conclusion(BaseModel, defer_build=True):
    """What had ended when a plan was given up. `done`: in the order of completion."""

    done: list[str]
    failed: dict[str, Failure]


class Past(NamedTuple):
    """What earlier activations of the run left of this plan. `begun`: steps of which the journal knows something."""

    begun: frozenset[str] = frozenset()
    conclusion: Conclusion | None = None


class Hands(Protocol):
    """What a plan is carried out with: calls of the run that it is part of, each of them durable."""

    past: Past

    @property
    def cut_by_time(self) -> bool:
        """Whether a time limit of the run's own cuts the plan short, rather than the run leaving to come back."""
        ...

    async def holds(self, step: PlanStep, when: When, value: JsonValue) -> bool: ...

    async def perform(self, step: PlanStep, arguments: Mapping[str, JsonValue]) -> object:
        """Raises an `AgentKitError` when it failed."""
        ...

    def halt(self) -> None:
        """A step has failed for good: one that has not started, and waits for somebody's leave, need not."""
        ...

    def can_take_back(self, step: PlanStep) -> bool: ...

    async def take_back(self, step: PlanStep, arguments: Mapping[str, JsonValue], result: object) -> None: ...

    async def conclude(self, conclusion: Conclusion) -> Conclusion:
        """What the journal holds as the conclusion: an earlier activation's, or else this one."""
        ...

    def unhindered(self) -> AbstractAsyncContextManager[None]:
        """Inside it calls are made although the run is cancelled or its time is up."""
        ...


class Ended(NamedTuple):
    """What became of a plan. `results`: as JSON, in the order of the plan; of one that was given up in that of completion."""

    results: Mapping[str, JsonValue]
    failed: Mapping[str, RunError]
    skipped: Sequence[str]
    undone: Sequence[str]
    undo_failed: Mapping[str, RunError]


async def execute(steps: Sequence[PlanStep], hands: Hands, max_parallel: int) -> Ended:
    """Carry out the steps of a plan without faults. When one fails, those under way end, and finished effects are taken back.

    Raises what cut it short, a cancel of the run or a time limit of its own, after the finished effects were taken back; and, taking
    nothing back, what says that the run will go on elsewhere or later.
    """
    return await _Execution(steps, hands, max_parallel).run()


class _Execution:
    def __init__(self, steps: Sequence[PlanStep], hands: Hands, max_parallel: int) -> None:
        past = hands.past
        self._hands, self._concluded = hands, past.conclusion
        self._steps = {step.id: step for step in steps}
        self._schedule = Schedule(steps, max_parallel, past.begun, halted=past.conclusion is not None)
        self._values: dict[str, object] = {}
        self._results: dict[str, JsonValue] = {}
        self._failed: dict[str, RunError] = {}
        self._skipped: set[str] = set()
        self._undone: list[str] = []
        self._undo_failed: dict[str, RunError] = {}
        self._cut: BaseException | None = None
        self._broken: Exception | None = None

    async def run(self) -> Ended:
        try:
            async with anyio.create_task_group() as tasks:
                self._start(tasks)
        except BaseException:
            if self._hands.cut_by_time:
                await self._give_up()
            raise
        if self._broken is not None:
            raise self._broken
        if self._cut is not None or self._failed or self._concluded is not None:
            await self._give_up()
        else:  # nobody has written down in which order they ended, and in a replay it is another one
            self._results = {step: self._results[step] for step in self._steps if step in self._results}
        if self._cut is not None:
            raise self._cut
        skipped = [step for step in self._steps if step in self._skipped]
        return Ended(self._results, self._failed, skipped, self._undone, self._undo_failed)

    def _start(self, tasks: TaskGroup) -> None:
        for step in self._schedule.take():
            tasks.start_soon(self._one, tasks, step)

    async def _one(self, tasks: TaskGroup, step: PlanStep) -> None:
        well = await self._attempt(step)
        if not well:
            self._schedule.halt()
        self._schedule.ended(step.id, well=well)
        self._start(tasks)

    async def _attempt(self, step: PlanStep) -> bool:
        """Whether the plan may go on behind this step."""
        try:
            if step.when is not None and not await self._hands.holds(step, step.when, self._at(step.when.ref)):
                self._skipped.add(step.id)
                return True
            value = await self._hands.perform(step, self._arguments(step))
            shown = to_jsonable_python(value, by_alias=False)
        except (RunCancelled, Interrupted) as cut:
            self._cut = self._cut or cut
        except (*NOT_JOURNALLED, StoreError) as broken:
            self._broken = self._broken or broken
        except AgentKitError as exc:
            self._failed[step.id] = as_run_error(exc)
            if isinstance(exc, RunError):  # it is in the journal: whoever goes on after a crash gives the plan up, too
                self._hands.halt()
        except Exception as bug:  # noqa: BLE001 - raised as it is when the others have ended, not wrapped in a group
            self._broken = self._broken or bug
        else:
            self._values[step.id], self._results[step.id] = value, shown
            return True
        return False

    def _arguments(self, step: PlanStep) -> dict[str, JsonValue]:
        return {name: self._filled(value) for name, value in step.args.items()}

    def _filled(self, value: Any) -> JsonValue:
        """An argument with results in the place of references."""
        ref = as_ref(value)
        if ref is not None:
            return self._at(ref)
        if isinstance(value, dict):
            return {name: self._filled(part) for name, part in value.items()}  # pyright: ignore[reportUnknownVariableType]
        return [self._filled(part) for part in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]

    def _at(self, ref: str) -> JsonValue:
        target, *path = ref.split(".")
        return look(self._results[target], path, ref)

    # Back again

    async def _give_up(self) -> None:
        """Write down what had ended, and take the effects of it back, the last one first."""
        failed = {step: Failure(kind=error.kind, message=error.message) for step, error in self._failed.items()}
        async with self._hands.unhindered():
            ended = await self._hands.conclude(Conclusion(done=[*self._results], failed=failed))
            self._failed = {step: self._failed.get(step) or RunError(said.kind, said.message) for step, said in ended.failed.items()}
            self._results = {step: self._results[step] for step in ended.done}
            for step in reversed(ended.done):
                if self._hands.can_take_back(self._steps[step]):
                    await self._take_back(self._steps[step])

    async def _take_back(self, step: PlanStep) -> None:
        try:
            await self._hands.take_back(step, self._arguments(step), self._values[step.id])
        except (*NOT_JOURNALLED, StoreError):
            raise
        except AgentKitError as exc:
            log.error("step %r of a plan could not be taken back: %s", step.id, exc)
            self._undo_failed[step.id] = as_run_error(exc)
        else:
            self._undone.append(step.id)


def as_run_error(exc: AgentKitError) -> RunError:
    """The error of a step, whatever kept it from its result."""
    return exc if isinstance(exc, RunError) else RunError(type(exc).__name__, str(exc))


def look(value: JsonValue, path: Sequence[str], ref: str) -> JsonValue:
    """The part of a result at a path. Raises `RunError` when it is not there."""
    for name in path:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise RunError("RefNotFound", f"{ref!r}: the result has no {name!r}")
    return value


_COMPARE: dict[Op, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "gt": operator.gt,
    "in": lambda found, value: found in value,
    "empty": lambda found, _: found in (None, "", [], {}),
    "not_empty": lambda found, _: found not in (None, "", [], {}),
}


def holds(when: When, value: JsonValue) -> bool:
    """Whether a condition holds for a value. Raises `RunError` when the two cannot be compared."""
    try:
        return _COMPARE[when.op](value, when.value)
    except TypeError as exc:
        raise RunError("WhenImpossible", f"when {when.ref!r} {when.op} {when.value!r}: it is {value!r}") from exc
