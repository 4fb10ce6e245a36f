"""Runs by HTTP: `sse` answers a request of a Starlette or FastAPI app with the events of a run, as server-sent events."""

from agentkit_http.events import EventType, sse

__all__ = ["EventType", "sse"]
