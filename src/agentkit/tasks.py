"""Which task am I in, asked on every step: anyio's own answer builds an object each time and costs ten times as much."""

from __future__ import annotations

import asyncio
import sys


def current_task() -> object:
    """The running task of asyncio or trio, as an identity. Needs a running event loop."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return sys.modules["trio"].lowlevel.current_task() if task is None else task
