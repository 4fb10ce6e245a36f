"""Which steps of a plan may start: decided from what has ended, without doing anything."""

from __future__ import annotations

from collections.abc import Container, Sequence
from heapq import heapify, heappop, heappush

from agentkit.plan.steps import PlanStep, comes_after


class Schedule:
    """The order of a plan that is being carried out. Steps that are ready start in the order in which they are written.

    Args:
        steps: of a plan without faults.
        max_parallel: how many may be under way.
        begun: steps that an earlier activation started. They are asked for again even when the plan is given up: their journal entries
            would otherwise be taken for dropped.
        halted: it was given up already; only `begun` may start.
    """

    def __init__(self, steps: Sequence[PlanStep], max_parallel: int, begun: Container[str] = (), *, halted: bool = False) -> None:
        self._steps, self._begun, self._halted = steps, begun, halted
        self._free = max(1, max_parallel)
        self._places = {step.id: i for i, step in enumerate(steps)}
        self._waits_for: list[int] = []
        self._frees: list[list[int]] = [[] for _ in steps]
        for i, step in enumerate(steps):
            before = comes_after(step)
            self._waits_for.append(len(before))
            for other in before:
                self._frees[self._places[other]].append(i)
        self._ready = [i for i, count in enumerate(self._waits_for) if not count]
        heapify(self._ready)

    def take(self) -> list[PlanStep]:
        """The steps to start now; each is handed out once."""
        taken: list[PlanStep] = []
        while self._ready and self._free:
            step = self._steps[heappop(self._ready)]
            if not self._halted or step.id in self._begun:
                taken.append(step)
                self._free -= 1
        return taken

    def ended(self, id: str, *, well: bool) -> None:
        """A step is over. Those that waited for it are ready only when it ended well: with a result, or skipped."""
        self._free += 1
        for i in self._frees[self._places[id]] if well else ():
            self._waits_for[i] -= 1
            if not self._waits_for[i]:
                heappush(self._ready, i)

    def halt(self) -> None:
        """The plan is given up: nothing new starts."""
        self._halted = True
