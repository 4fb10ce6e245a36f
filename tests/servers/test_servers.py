"""The servers of the tests break as they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psycopg
import pymysql
import pytest

from tests.servers.mariadb import Mariadb
from tests.servers.postgresql import GUARDED, PASSWORD, PgBouncer, Postgresql
from tests.servers.process import REPOSITORY, ServerMissing, find, private
from tests.servers.proxy import Proxy
from tests.servers.redis import Redis, redis_cluster, told, watched_redis


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """What is tested are processes."""
    return "asyncio"


def test_a_missing_program_is_named_with_the_way_out() -> None:
    with pytest.raises(ServerMissing, match=r"no-such-server is not installed here: run scripts/servers\.sh"):
        find("no-such-server")


def test_each_postgresql_database_is_empty(postgresql: Postgresql) -> None:
    for _ in range(2):
        name = postgresql.new_database()
        left_open = postgresql.connect(name)
        left_open.execute("CREATE TABLE things ()")
        postgresql.drop_database(name)
        left_open.close()


def test_each_mariadb_database_is_empty(mariadb: Mariadb, mariadb_url: str) -> None:
    with mariadb.connect(mariadb_url.rsplit("/", 1)[1]) as connection, connection.cursor() as cursor:
        assert not cursor.execute("SHOW TABLES")


async def test_a_lasting_postgresql_keeps_what_was_committed_over_kill_9() -> None:
    async with private(Postgresql, lasting=True) as server:
        server.execute("CREATE TABLE things ()")
        server.kill()
        assert not server.answers()
        server.start()
        server.execute("INSERT INTO things DEFAULT VALUES")


async def test_a_lasting_mariadb_keeps_what_was_committed_over_kill_9() -> None:
    async with private(Mariadb, lasting=True) as server:
        server.execute("CREATE DATABASE things")
        server.kill()
        server.start()
        server.execute("DROP DATABASE things")


async def test_the_guarded_users_need_their_password() -> None:
    async with private(Postgresql) as postgresql, private(Mariadb) as mariadb:
        postgresql.add_guarded_user()
        mariadb.add_guarded_user()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"{postgresql.url('postgres', user=GUARDED)}?password=wrong")
        psycopg.connect(f"{postgresql.url('postgres', user=GUARDED)}?password={PASSWORD}").close()
        with pytest.raises(pymysql.err.OperationalError):
            pymysql.connect(host="127.0.0.1", port=mariadb.port, user=GUARDED, password="wrong")
        pymysql.connect(host="127.0.0.1", port=mariadb.port, user=GUARDED, password=PASSWORD).close()


async def test_pgbouncer_shares_connections_by_transaction() -> None:
    async with private(Postgresql) as server, private(PgBouncer, server, default_pool_size=1) as bouncer:
        with psycopg.connect(bouncer.url("postgres")) as one, psycopg.connect(bouncer.url("postgres")) as two:
            pids: set[object] = set()
            for connection in (one, two):
                pids |= {connection.execute("SELECT pg_backend_pid()").fetchone()}
                connection.commit()
        assert len(pids) == 1


async def test_redis_loses_all_by_kill_9_unless_it_writes_a_log() -> None:
    for appendonly, kept in (("no", "$-1"), ("yes", "there")):
        async with private(Redis, appendonly=appendonly, appendfsync="always") as server:
            server.ask("SET key there")
            server.kill()
            server.start()
            assert server.ask("GET key") == kept


async def test_redis_serves_over_tls() -> None:
    async with private(Redis, tls=True) as server:
        assert server.url.startswith("rediss://")


async def test_sentinels_make_the_replica_primary() -> None:
    async with watched_redis() as watched:
        watched.primary.kill()
        await told(watched.replica, "INFO replication", "role:master")


async def test_a_cluster_refers_to_the_node_that_holds_the_slot() -> None:
    async with redis_cluster() as nodes:
        answers = [node.ask("GET key") for node in nodes]
        assert sorted(answer.split(" ")[0] for answer in answers) == ["$-1", "-MOVED", "-MOVED"]


def test_a_paused_server_answers_when_it_goes_on() -> None:
    server = Redis().start()
    try:
        server.pause()
        os.kill(server.pid, 0)
        server.resume()
        assert server.answers()
    finally:
        server.discard()


def test_what_a_killed_process_left_is_ended_by_the_next() -> None:
    program = "from tests.servers.redis import Redis; import os; print(Redis().start().pid, flush=True); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", "from tests.servers.process import home, leave; home(); leave()"], cwd=REPOSITORY, check=True)
    state = subprocess.run(["ps", "-o", "stat=", "-p", killed.stdout.strip()], capture_output=True, text=True, check=False)
    assert state.stdout.strip()[:1] in {"", "Z"}


def asked(proxy: Proxy, server: Redis, command: str) -> str:
    """The answer through the proxy; empty where the connection was cut."""
    through = Redis.__new__(Redis)
    through.port, through.certificate = proxy.port, server.certificate
    try:
        return through.ask(command)
    except OSError:
        return ""


def test_a_proxy_cuts_before_a_request_or_after_it_was_served(redis_server: Redis, redis_url: str) -> None:
    with Proxy(redis_server.port) as proxy:
        assert asked(proxy, redis_server, "SET one 1") == "+OK"
        before = proxy.cut_before(b"two")
        assert asked(proxy, redis_server, "SET two 2") == ""
        assert before.is_set()
        after = proxy.cut_after(b"three")
        assert asked(proxy, redis_server, "SET three 3") == ""
        assert after.is_set()
        assert [redis_server.ask(f"GET {key}") for key in ("one", "two", "three")] == ["1", "$-1", "3"]
        proxy.cut(refuse=True)
        assert asked(proxy, redis_server, "PING") == ""
        proxy.heal()
        assert asked(proxy, redis_server, "PING") == "+PONG"
