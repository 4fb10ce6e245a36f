"""Tools for tests of plans that need no run: what a plan is checked against, and hands that carry it out in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
from pydantic import BaseModel, JsonValue, create_model

from agentkit.plan.executor import Conclusion, Past, holds
from agentkit.plan.steps import PlanStep, When


@dataclass(frozen=True)
class Fake:
    """A tool as a plan sees it. It is called with the arguments that it was made with."""

    name: str
    arguments: type[BaseModel]
    returns: Any = None
    effect: str | None = None
    has_undo: bool = False
    description: str = "For tests."


def fake(name: str, returns: Any = None, *, effect: str | None = None, has_undo: bool = False, **arguments: Any) -> Fake:
    """`fake("convert", float, amount=(float, ...))`."""
    return Fake(name, create_model(f"{name}_arguments", **arguments), returns, effect, has_undo)


Body = Callable[[PlanStep], Awaitable[object]]


class MemoryHands:
    """Hands that do everything at once and forget it. `most`: how many steps were under way at a time."""

    cut_by_time = False

    def __init__(self, body: Body | None = None, *, past: Past = Past()) -> None:  # noqa: B008
        self.past = past
        self.body = body
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.undone: list[str] = []
        self.arguments: dict[str, Mapping[str, JsonValue]] = {}
        self.now = self.most = self.halts = 0

    async def holds(self, step: PlanStep, when: When, value: JsonValue) -> bool:
        return holds(when, value)

    async def perform(self, step: PlanStep, arguments: Mapping[str, JsonValue]) -> object:
        self.begun.append(step.id)
        self.arguments[step.id] = arguments
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await anyio.lowlevel.checkpoint()
            return None if self.body is None else await self.body(step)
        finally:
            self.now -= 1
            self.ended.append(step.id)

    def halt(self) -> None:
        self.halts += 1

    def can_take_back(self, step: PlanStep) -> bool:
        return True

    async def take_back(self, step: PlanStep, arguments: Mapping[str, JsonValue], result: object) -> None:
        self.undone.append(step.id)

    async def conclude(self, conclusion: Conclusion) -> Conclusion:
        return self.past.conclusion or conclusion

    @asynccontextmanager
    async def unhindered(self) -> AsyncGenerator[None]:
        yield
