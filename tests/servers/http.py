"""An app of a test behind a real socket, served by uvicorn in the test's own loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import pytest

Serve: TypeAlias = Callable[[Any], AbstractAsyncContextManager[str]]
STARTED_WITHIN_S = 20.0
POLL_S = 0.01


@asynccontextmanager
async def served(app: Any) -> AsyncGenerator[str]:
    """The URL under which an app answers. It is for asyncio alone, as uvicorn is."""
    import uvicorn  # here, or every test process would load it

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, ws="none", log_config=None, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            with anyio.fail_after(STARTED_WITHIN_S):
                while not server.started:  # noqa: ASYNC110  # it tells nobody when it is
                    await anyio.sleep(POLL_S)
            try:
                yield "http://{}:{}".format(*listening.getsockname())
            finally:
                server.should_exit = True


@pytest.fixture(scope="session")
def serve() -> Serve:
    """What puts an app on a socket, as a context manager that gives its URL."""
    return served
