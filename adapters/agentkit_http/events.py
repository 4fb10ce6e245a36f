"""`sse`: the events of a run as server-sent events, which a browser reads with `EventSource`."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, suppress
from typing import Literal, TypeAlias

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from agentkit import AgentKitError, EventStream, RunEvent

EventType: TypeAlias = Literal["approval", "budget", "progress", "status", "step", "text", "tool"]
HEARTBEAT_S = 15.0  # a quarter of what the strictest proxies in common use allow a silent connection (60 s): three may be late
HEARTBEAT = ": nothing new\n\n"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # or nginx keeps events back until its buffer is full
}
log = logging.getLogger("agentkit.http")


def sse(events: EventStream, /, *, only: Collection[EventType] | None = None, heartbeat_s: float = HEARTBEAT_S) -> StreamingResponse:
    """A response that streams the events of a run, each as soon as it is durable, until the run or the client has gone.

    One server-sent event each: `id` is its offset, `event` its type, `data` the event as JSON. A client that was cut off says the last
    `id` in `Last-Event-ID`; give it as `handle.events(after=…)` and the stream goes on behind it, on any pod. If the run has ended and
    nothing is left to tell, the answer is 204, which makes a browser stop asking.

    Args:
        events: `handle.events(…)`, which nobody has read from. It is closed with the response, at once when the client leaves.
        only: the types of events that are for the client's eyes; of others it learns the `id` alone. None: all.
        heartbeat_s: seconds of silence after which a comment keeps proxies from cutting the connection.

    Raises (as the response is sent, before its first byte: an exception handler of the app can still answer):
        RunNotFound: no such run; most apps answer 404.
        StoreError: the store cannot be read; most apps answer 503.

    What the store raises later is told as one event `error` without an `id`, and logged: the stream ends, the run goes on, and the client
    may ask for the rest.
    """
    return _EventResponse(events, None if only is None else frozenset(only), heartbeat_s)


class _EventResponse(StreamingResponse):
    """Knows before its first byte whether there is such a run, and notices at once that the client has gone."""

    def __init__(self, events: EventStream, only: frozenset[str] | None, heartbeat_s: float) -> None:
        self._events, self._only, self._heartbeat_s = events, only, heartbeat_s
        super().__init__(self._frames([]), headers=HEADERS, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._events:
            told = await self._events.read(0)
            if told is None:
                self.status_code = 204
            async with aclosing(self._frames(told)) as self.body_iterator, anyio.create_task_group() as tasks:
                tasks.start_soon(self._stop_with_client, receive, tasks.cancel_scope)
                with suppress(OSError):  # how some servers say that the client has gone
                    await self.stream_response(send)
                tasks.cancel_scope.cancel()
        if self.background is not None:
            await self.background()

    async def _stop_with_client(self, receive: Receive, sending: anyio.CancelScope) -> None:
        """Starlette itself would notice, with some servers, only at the next frame."""
        await self.listen_for_disconnect(receive)
        sending.cancel()

    async def _frames(self, told: list[RunEvent] | None) -> AsyncGenerator[str]:
        """What was read, then what comes. Nothing is read ahead: a slow client keeps the events in the store."""
        while told is not None:
            for event in told:
                yield _frame(event, shown=self._only is None or event.type in self._only)
            if not told:
                yield HEARTBEAT  # the first of them also carries the headers past those who wait for a body
            try:
                told = await self._events.read(self._heartbeat_s)
            except AgentKitError as error:
                log.warning("events of a run broke off: %s", error)
                yield _broken(error)
                return


def _frame(event: RunEvent, *, shown: bool) -> str:
    """One event. What is not shown moves the client's place on all the same, or it would be read again after each cut."""
    return f"id: {event.offset}\n" + (f"event: {event.type}\ndata: {event.model_dump_json()}\n\n" if shown else "\n")


def _broken(error: AgentKitError) -> str:
    """The message stays in the log: it may name servers."""
    return f"event: error\ndata: {json.dumps({'type': 'error', 'kind': type(error).__name__})}\n\n"
