"""Events of a run as server-sent events, by hand: one frame each, whose id is the offset to go on after."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import StreamingResponse

from agentkit import RunCancelled, RunError, RunHandle

SHOWN = frozenset({"text", "tool", "approval", "status"})  # which steps a run takes, and how often, is nobody's business outside
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy keeps an answer back until it is whole


def sse(handle: RunHandle[Any], *, after: int = 0) -> StreamingResponse:
    """A response that tells what happens in a run after an offset, then its result. It ends with the run, or with the client."""
    return StreamingResponse(frames(handle, after), media_type="text/event-stream", headers=HEADERS)


async def frames(handle: RunHandle[Any], after: int) -> AsyncGenerator[str]:
    """The frames: what is for users, each under its type, at the end `result` or `error`."""
    async with handle.events(after=after) as events:
        async for event in events:
            if event.type in SHOWN:
                yield frame(event.type, event.model_dump_json(), event.offset)
    try:
        yield frame("result", json.dumps(await handle.result()))
    except (RunError, RunCancelled) as error:
        yield frame("error", json.dumps({"kind": getattr(error, "kind", "RunCancelled"), "message": str(error)}))


def frame(event: str, data: str, offset: int | None = None) -> str:
    """One frame. `data` is JSON, so it has no line breaks."""
    return (f"id: {offset}\n" if offset is not None else "") + f"event: {event}\ndata: {data}\n\n"
