"""A human's leave before a step starts: asked for once, journalled, bound to the very arguments that were shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.durable.codec import PLAIN, fields_of
from agentkit.durable.identity import preview
from agentkit.durable.steps import Question, ask
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    from agentkit.durable.execution import Execution
    from agentkit.durable.journal import Record
    from agentkit.durable.steps import Call, Done

MAX_SHOWN_BYTES = 50_000  # nobody reads more before a yes
GRANTED = PLAIN.encode({"granted": True}, "approval")
APPROVAL = Question("approval", (EntryKind.APPROVAL, GRANTED), ("NotApproved", "a human refused it"))


async def approved(ex: Execution, call: Call, record: Record | None, shown: object) -> Done[Any] | None:
    """Park until a human lets the step start (None), or did it (its value). Raises `StepError` `NotApproved` when it is refused.

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
    return await ask(ex, call, APPROVAL)
