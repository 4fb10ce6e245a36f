"""Where the peers work: a SQLite file, or a database of a real server that is started for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from benchmarks.peers.environments import FOLDER
from tests.servers.postgresql import Postgresql
from tests.servers.process import Server
from tests.servers.redis import Redis

S = TypeVar("S", bound=Server)


@contextmanager
def file() -> Generator[str]:
    """A SQLite file in an empty folder."""
    folder = (FOLDER / "files").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield f"sqlite:///{folder / 'peer.db'}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(make: Callable[[], S]) -> Generator[S]:
    """A server of our own. Raises `ServerMissing`."""
    server = make()
    try:
        yield server.start()
    finally:
        server.discard()


def lasting_postgresql() -> Postgresql:
    """It waits for the disk at each commit, as its own defaults do."""
    return Postgresql(lasting=True)


def plain_redis() -> Redis:
    """Without persistence: its disk would be measured with every peer."""
    return Redis(appendonly="no")


@contextmanager
def database(server: Postgresql) -> Generator[str]:
    """An empty database."""
    name = server.new_database()
    try:
        yield server.url(name)
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def emptied(server: Redis) -> Generator[str]:
    """A Redis without keys."""
    server.ask("FLUSHALL")
    yield server.url
