"""Adapters and agents of other packages, found by entry point and loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.errors import UnknownScheme
from agentkit.later import Later

if TYPE_CHECKING:
    from importlib import metadata
    from importlib.metadata import EntryPoint

    from agentkit.clock import Clock
    from agentkit.ports.inference import Endpoint
else:
    metadata = Later("importlib.metadata")

PORTS = ("runs", "queue", "values", "limits")


def adapters(port: str) -> dict[str, EntryPoint]:
    """Scheme -> entry point of all adapters installed for a port. Nothing is imported."""
    return {entry.name: entry for entry in sorted(metadata.entry_points(group=f"agentkit.{port}"))}


def open_url(port: str, url: str, clock: Clock) -> Any:
    """The adapter that serves a URL; no I/O yet. Raises `UnknownScheme`, `AdapterNotInstalled`, `InvalidSetting`."""
    found = adapters(port)
    entry = found.get(url.partition(":")[0])
    if entry is None:
        raise UnknownScheme(port, url, found)
    return entry.load()(url, clock=clock)


def open_endpoint(endpoint: Endpoint, clock: Clock) -> Any:
    """The engine of a model server; no I/O yet. Raises `UnknownScheme`, `AdapterNotInstalled`, `InvalidSetting`."""
    found = adapters("inference")
    entry = found.get(endpoint.url.partition(":")[0])
    if entry is None:
        raise UnknownScheme("inference", endpoint.url, found)
    return entry.load()(endpoint, clock=clock)


def agents() -> list[Any]:
    """Agent classes or modules that installed packages announce."""
    return [entry.load() for entry in metadata.entry_points(group="agentkit.agents")]
