"""The fixtures of the servers: one of each kind for a test process, an empty database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest

from tests.servers.mariadb import Mariadb
from tests.servers.postgresql import Postgresql
from tests.servers.process import Server, leave, or_skip
from tests.servers.redis import Redis
from tests.servers.sqs import Sqs

S = TypeVar("S", bound=Server)


def running(kind: type[S]) -> Iterator[S]:
    """A server that is discarded in the end."""
    server = or_skip(kind)()
    try:
        yield server.start()
    finally:
        server.discard()


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[None]:
    """Removed after all servers in it have been stopped."""
    yield
    leave()


@pytest.fixture(scope="session")
def postgresql(servers_folder: None) -> Iterator[Postgresql]:
    """The PostgreSQL of this test process. A test that stops, kills or tunes one starts its own: `private(Postgresql, ...)`."""
    yield from running(Postgresql)


@pytest.fixture(scope="session")
def mariadb(servers_folder: None) -> Iterator[Mariadb]:
    """The MariaDB of this test process."""
    yield from running(Mariadb)


@pytest.fixture(scope="session")
def redis_server(servers_folder: None) -> Iterator[Redis]:
    """The Redis of this test process; as nobody else uses it, database 0 and all channels are the test's."""
    yield from running(Redis)


@pytest.fixture
def postgresql_url(postgresql: Postgresql) -> Iterator[str]:
    """`postgresql://...` of an empty database; connections left open after the test are cut."""
    name = postgresql.new_database()
    yield postgresql.url(name)
    postgresql.drop_database(name)


@pytest.fixture
def mariadb_url(mariadb: Mariadb) -> Iterator[str]:
    """`mysql://...` of an empty database."""
    name = mariadb.new_database()
    yield mariadb.url(name)
    mariadb.drop_database(name)


@pytest.fixture
def redis_url(redis_server: Redis) -> Iterator[str]:
    """`redis://...` of an empty server. Scripts stay loaded from test to test, as they would."""
    yield redis_server.url
    redis_server.ask("FLUSHALL")


@pytest.fixture(scope="session")
def sqs_server(servers_folder: None) -> Iterator[Sqs]:
    """The SQS of this test process."""
    yield from running(Sqs)


@pytest.fixture
def sqs_url(sqs_server: Sqs, monkeypatch: pytest.MonkeyPatch) -> str:
    """`sqs://...` of a server without queues, and credentials that it takes."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    sqs_server.reset()
    return sqs_server.queue_url("agents", "look_s=0")
