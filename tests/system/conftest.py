"""Each system test has a file, processes and a side file of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from agentkit import Runtime, Settings
from agentkit.testing.crash import Crew
from tests.system.app import AGENTS, EFFECTS_FILE, Effects

LEASE_S = 1.0
MARKS = [
    pytest.mark.timeout(120),
    pytest.mark.blocks_the_loop("steps note their effects in one call, in the loop, so that a kill leaves all of a line or nothing"),
]
Opened = Callable[..., AbstractAsyncContextManager[Runtime]]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """What is tested is processes; their event loop makes no difference."""
    return "asyncio"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


@pytest.fixture
def effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Effects:
    path = str(tmp_path / "effects.jsonl")
    monkeypatch.setenv(EFFECTS_FILE, path)
    return Effects(path)


@pytest.fixture
async def crew(tmp_path: Path, url: str, effects: Effects) -> AsyncIterator[Crew]:
    async with Crew(tmp_path, "tests.system.app:runtime", url, lease_s=LEASE_S) as crew:
        yield crew


@pytest.fixture
def opened(url: str, effects: Effects) -> Opened:
    """A runtime in the test's own process, with the same short lease as the children."""
    return partial(open_runtime, url)


@asynccontextmanager
async def open_runtime(url: str, *, lease_s: float = LEASE_S, worker: bool = False, **settings: object) -> AsyncGenerator[Runtime]:
    given = Settings.model_validate({"lease_s": lease_s, "grace_s": 2.0, **settings})
    runtime = Runtime(state=url, agents=AGENTS, worker=worker, settings=given)
    runtime.store.min_lease_s = lease_s  # the adapter's own is for slow machines; see `Crew`
    async with runtime:
        yield runtime
