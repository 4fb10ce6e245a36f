"""What every test of the house shares: two event loops, and a loop that nobody may block."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

# A slow machine is no failure of a property, and a failure that comes and goes helps nobody.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

pytest_plugins = ["tests.servers.fixtures", "tests.servers.http"]

WATCHED = ["agentkit", "agentkit_http", "agentkit_redis", "agentkit_sql", "agentkit_sqs"]
MAY_BLOCK = {
    "<frozen importlib._bootstrap>": {"_find_and_load"},  # an adapter is imported on first use, once per process
    "importlib/metadata/__init__.py": {"entry_points"},  # and found by entry point just before
    "agentkit/runtime/heartbeat.py": {"_beat_there"},  # a loop of its own, in which nothing else runs
    "aiobotocore/session.py": {"_create_client"},  # looks for files of settings that may be there, once for each opening
    "asyncpg/connect_utils.py": {"_parse_connect_dsn_and_args"},  # looks for ~/.pgpass and certificates, once for each connection
    "logging/__init__.py": {"emit"},  # a log line is written where it is logged, as everywhere in Python
}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Twice as many as there are cores: much of the time tests wait, for servers, leases and other processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 2 * cores


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "blocks_the_loop(reason): the test blocks the event loop on purpose, for this reason")


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on asyncio and on trio; what is for one of them alone overrides this in its module."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nobody_blocks_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call of the product in an event loop fails the test that led to it (seen on asyncio; the code is the same on trio)."""
    marker: pytest.Mark | None = request.node.get_closest_marker("blocks_the_loop")
    if marker is not None:
        if not marker.args:
            pytest.fail("blocks_the_loop needs its reason")
        yield
        return
    with blockbuster_ctx(WATCHED) as watch:
        for function in watch.functions.values():
            for file, names in MAY_BLOCK.items():
                function.can_block_in(file, names)
        yield
