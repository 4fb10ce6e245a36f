"""A human's leave before a step starts: asked for once, journalled, bound to the very arguments that were shown."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio

from agentkit.durable.codec import PLAIN, fields_of
from agentkit.durable.identity import preview
from agentkit.durable.steps import Question, ask, fail
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    from agentkit.durable.execution import Execution
    from agentkit.durable.journal import Record
    from agentkit.durable.steps import Call, Done

MAX_SHOWN_BYTES = 50_000  # nobody reads more before a yes
GRANTED = PLAIN.encode({"granted": True}, "approval")
APPROVAL = Question("approval", (EntryKind.APPROVAL, GRANTED), ("NotApproved", "a human refused it"))


class Halt:
    """Whether what a step is part of was given up. Then no human need answer for it any more, and nobody waits until one does."""

    def __init__(self) -> None:
        self._given_up = False
        self._waiting: set[anyio.CancelScope] = set()

    def strike(self) -> None:
        """It was given up."""
        self._given_up = True
        for scope in self._waiting:
            scope.cancel()

    async def ask(self, ex: Execution, call: Call) -> Done[Any] | None:
        """Wait for the human, unless it is given up: raises `StepError` `NotNeeded`."""
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                if self._given_up:
                    scope.cancel()
                return await ask(ex, call, APPROVAL)
            finally:
                self._waiting.discard(scope)
        raise fail(ex, call, "NotNeeded", "its plan failed before a human answered")


current_halt: ContextVar[Halt | None] = ContextVar("agentkit_halt", default=None)
"""Of the plan that the step is part of."""


async def approved(ex: Execution, call: Call, record: Record | None, shown: object) -> Done[Any] | None:
    """Park until a human lets the step start (None), or did it (its value). Raises `StepError`: `NotApproved` when it is refused,
    `NotNeeded` when the plan that it is part of is given up first.

    Args:
        shown: what the human is to see of the call, plain JSON.
    """
    asked = None if record is None else record.opening
    if asked is not None and fields_of(asked.body).get("granted"):
        return None
    if asked is None:
        with ex.working():
            body = PLAIN.encode({"step": call.name, "arguments": shown}, call.key)
            if len(body) > MAX_SHOWN_BYTES:
                body = PLAIN.encode({"step": call.name, "arguments": preview(call.fp)}, call.key)
            await ex.journal.settled(ex.journal.append(EntryKind.APPROVAL, call.key, body, fp=call.fp))
    halt = current_halt.get()
    return await ask(ex, call, APPROVAL) if halt is None else await halt.ask(ex, call)
