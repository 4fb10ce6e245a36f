"""All that is wrong with a plan, found before anything of it is started."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from agentkit.errors import nearest
from agentkit.plan.fit import Part, fields_of, fits, inside, kind_of, of_arguments, of_result
from agentkit.plan.steps import PlanStep, When, comes_after, refs_of
from agentkit.plan.uses import Use

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
SHOWN = 80  # characters of a wrong value


def faults_of(steps: Sequence[PlanStep], uses: Mapping[str, Use]) -> list[str]:
    """Everything that keeps these steps from being carried out with these tools and agents, in the order of the steps."""
    return [*Check(steps, uses).faults()]


class Check:
    """A plan under examination."""

    def __init__(self, steps: Sequence[PlanStep], uses: Mapping[str, Use]) -> None:
        self._steps, self._uses = steps, uses
        self._by_id = {step.id: step for step in reversed(steps)}  # of two with one id the first
        self._results: dict[str, Part] = {}
        self._arguments: dict[str, Part] = {}

    def faults(self) -> Iterator[str]:
        """One line each."""
        for step_id, times in Counter(step.id for step in self._steps).items():
            if times > 1:
                yield f"step {step_id!r} is there {times} times: give each step an id of its own"
        for step in self._steps:
            yield from (f"step {step.id!r}: {fault}" for fault in self._step(step))
        yield from self._cycles()

    def _step(self, step: PlanStep) -> Iterator[str]:
        if not ID.fullmatch(step.id):
            yield "an id consists of 1 to 64 letters, digits, '_' and '-'"
        if step.attempts < 1:
            yield f"attempts={step.attempts}: it must be 1 or more"
        for other in step.after:
            yield from self._unknown_step("after", other)
        if step.when is not None:
            yield from self._when(step, step.when)
        use = self._uses.get(step.use)
        if use is None:
            known = ", ".join(sorted(self._uses)) or "none"
            yield f"no tool or agent {step.use!r} (there are: {known}){nearest(step.use, self._uses)}"
        else:
            yield from self._repeated(step, use)
            yield from self._given(step, use)
            yield from self._undo(step)

    def _repeated(self, step: PlanStep, use: Use) -> Iterator[str]:
        if step.attempts > 1 and use.effect in ("ask", "fail"):
            yield f"attempts={step.attempts}: {use.name!r} must not be called again when nobody knows whether it did its work"

    def _unknown_step(self, what: str, id: str) -> Iterator[str]:
        if id not in self._by_id:
            yield f"{what} {id!r}: no step has this id{nearest(id, self._by_id)}"

    # References

    def _refers(self, step: PlanStep, what: str, ref: str) -> tuple[Part | None, list[str]]:
        """What a reference stands for, and what is wrong with it."""
        target, *path = ref.split(".")
        faults = [*self._unknown_step(what, target)]
        if faults:
            return None, faults
        other = self._by_id[target]
        if other.when is not None and other.when != step.when:
            return None, [f"{what} refers to {target!r}, which may be skipped: give both steps the same `when`, or none"]
        result = self._result(other)
        part = inside(result, path)
        if part is None:
            fields = fields_of(result)
            has = f"its fields are {', '.join(fields)}" if fields else f"it is {kind_of(result)}"
            return None, [f"{what} {ref!r}: the result of {other.use!r} has no {'.'.join(path)!r} ({has}){nearest(path[0], fields)}"]
        return part, []

    def _result(self, step: PlanStep) -> Part:
        use = self._uses.get(step.use)
        if use is None:
            return Part({})
        if use.name not in self._results:
            self._results[use.name] = of_result(use.returns)
        return self._results[use.name]

    def _when(self, step: PlanStep, when: When) -> Iterator[str]:
        yield from self._refers(step, "when", when.ref)[1]
        if when.op in ("empty", "not_empty") and when.value is not None:
            yield f"when: op {when.op!r} takes no value, and {when.value!r} is given"
        if when.op == "in" and not isinstance(when.value, list):
            yield f"when: op 'in' takes a list as its value, not {when.value!r}"
        if when.op in ("lt", "gt") and (isinstance(when.value, bool) or not isinstance(when.value, int | float | str)):
            yield f"when: op {when.op!r} compares numbers or texts, not {when.value!r}"

    # Arguments

    def _given(self, step: PlanStep, use: Use) -> Iterator[str]:
        fields = use.arguments.model_fields
        for name, field in fields.items():
            if field.is_required() and name not in step.args:
                yield f"argument {name!r} of {use.name!r} is missing"
        for name, value in step.args.items():
            if name not in fields:
                takes = ", ".join(fields) or "none"
                yield f"{use.name!r} has no argument {name!r} (it takes: {takes}){nearest(name, fields)}"
                continue
            refs = [*refs_of(value)]
            for path, ref in refs:
                yield from self._reference(step, use, (name, *path), ref)
            if not refs:
                yield from _literal(use, name, value)

    def _reference(self, step: PlanStep, use: Use, path: tuple[str, ...], ref: str) -> Iterator[str]:
        what = f"argument {'.'.join(path)!r}"
        source, faults = self._refers(step, what, ref)
        yield from faults
        if use.name not in self._arguments:
            self._arguments[use.name] = of_arguments(use.arguments)
        target = inside(self._arguments[use.name], path)
        if source is not None and target is not None and not fits(source, target):
            yield f"{what} of {use.name!r} takes {kind_of(target)}, and {ref!r} is {kind_of(source)}"

    def _undo(self, step: PlanStep) -> Iterator[str]:
        if step.undo is None:
            return
        use = self._uses.get(step.undo)
        tools = [name for name, one in self._uses.items() if not one.is_agent]
        if use is None or use.is_agent:
            yield f"undo {step.undo!r} is no tool (there are: {', '.join(sorted(tools)) or 'none'}){nearest(step.undo, tools)}"
            return
        for name, field in use.arguments.model_fields.items():
            if field.is_required() and name != "result" and name not in step.args:
                yield f"undo {step.undo!r} needs {name!r}, which is neither an argument of this step nor its `result`"

    # Order

    def _cycles(self) -> Iterator[str]:
        """Each cycle once, named from its first step in the plan."""
        behind: set[str] = set()
        for step in self._steps:
            cycle = self._cycle_from(step.id, behind)
            if cycle:
                yield f"these steps wait for each other: {' -> '.join(cycle)}"

    def _cycle_from(self, start: str, behind: set[str]) -> list[str]:
        """Go along what each step waits for. `behind` holds what was gone through already, and grows."""
        way: list[str] = []
        todo: list[tuple[str, Iterator[str]]] = []

        def enter(id: str) -> None:
            behind.add(id)
            way.append(id)
            todo.append((id, iter([other for other in comes_after(self._by_id[id]) if other in self._by_id])))

        if start not in behind:
            enter(start)
        while todo:
            other = next(todo[-1][1], None)
            if other is None:
                todo.pop()
                way.pop()
            elif other in way:
                return [*way[way.index(other) :], other]
            elif other not in behind:
                enter(other)
        return []


def _literal(use: Use, name: str, value: Any) -> Iterator[str]:
    """Whether a value that is written out fits the argument."""
    field = use.arguments.model_fields[name]
    declared: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    try:
        TypeAdapter[Any](declared).validate_json(to_json(value))
    except ValidationError as exc:
        for fault in exc.errors(include_url=False):
            where = ".".join([name, *map(str, fault["loc"])])
            given = repr(fault["input"])
            yield f"argument {where!r} of {use.name!r}: {fault['msg']} (given: {given[:SHOWN]})"
