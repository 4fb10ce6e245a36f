"""What tests of the examples share."""

from __future__ import annotations

import anyio

from agentkit.testing import LocalRuntime

LIMIT_S = 20.0  # files are read on threads, and the machine may be busy


async def crashed(rt: LocalRuntime) -> None:
    """Return when the ordered crash has struck. To settle once may not do: a body that reads files under a time limit seems to sleep."""
    with anyio.fail_after(LIMIT_S):
        while not rt.crashed:
            await rt.settle()
