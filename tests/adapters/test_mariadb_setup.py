"""How a MariaDB is reached, what it is asked to hold, and runs that are created in the application's own transaction."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import anyio
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agentkit.errors import InvalidKey, InvalidSetting, SchemaTooNew, StoreBusy, StoreRefused
from agentkit.testing.contract import race
from agentkit.testing.queue_base import SERVED, ticket
from agentkit.testing.runs_base import create, new, start
from agentkit_sql import Sql, SqlRuns
from agentkit_sql.dialect import Script, Statement
from tests.adapters.opening import HASTY, opened
from tests.adapters.statements import WITHOUT_WEIGHTS
from tests.adapters.within_laws import WithinLaws
from tests.servers.mariadb import GUARDED, PASSWORD, Mariadb
from tests.servers.process import certify, private


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def store(mariadb_url: str) -> AsyncIterator[SqlRuns]:
    async with opened(Sql(f"{mariadb_url}?{HASTY}").runs) as store:
        yield store


async def test_ids_that_a_collation_would_call_one_are_three_runs(store: SqlRuns) -> None:
    ids = ["r1", "R1", "r1 ", "ŕ1", "r1\u00a0"]
    created = await store.create([new(run_id) for run_id in ids])
    assert [one.answer for one in created] == ["created"] * len(ids)
    assert [run.run_id for run in await store.get(ids) if run] == ids


async def test_an_id_that_is_too_long_is_refused_and_never_cut(store: SqlRuns) -> None:
    with pytest.raises(InvalidKey):
        await store.create([new("r" * 513)])
    await create(store, "r" * 512)
    with pytest.raises(StoreRefused, match="Nothing was written"):
        await store.signal("r" * 512, "m" * 1025, "topic", b"")
    assert await store.inbox("r" * 512) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"root": GUARDED + ":wrong"}, "check user and password"),
        ({"/test_": "/no_such_"}, "create the database first"),
        ({"mysql:": "mysql+pymysql:"}, "mysql\\+asyncmy"),
        ({"?": "?pool_siez=3&"}, "pool_siez.*did you mean"),
        ({"?": "?pool_size=0&"}, "pool_size"),
    ],
    ids=["password", "database", "driver", "option", "value"],
)
async def test_a_url_that_cannot_work_is_told_with_the_way_out(
    mariadb: Mariadb, mariadb_url: str, change: dict[str, str], told: str
) -> None:
    mariadb.add_guarded_user()
    url = f"{mariadb_url}?{HASTY}"
    [(one, other)] = change.items()
    with pytest.raises(InvalidSetting, match=told) as error:
        await Sql(url.replace(one, other)).runs.open()
    assert "wrong" not in str(error.value)


async def test_a_user_with_a_password_is_let_in(mariadb: Mariadb, mariadb_url: str) -> None:
    mariadb.add_guarded_user()
    store = Sql(mariadb_url.replace("root", f"{GUARDED}:{PASSWORD}")).runs
    await store.open()
    await store.aclose()


async def test_over_tls_the_certificate_is_checked_when_its_signer_is_named() -> None:
    async with private(Mariadb, tls=True) as server:
        url = server.url(server.new_database())
        spoken = Statement("SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Ssl_version'")

        def work() -> Script[str]:
            return str((yield spoken())[0][0])

        for options, version in (("ssl=true", "TLSv1.3"), (f"ssl_ca={server.certificate}", "TLSv1.3"), ("pool_size=3", "")):
            store = Sql(f"{url}?{options}").runs
            await store.open()
            assert await store.database.read(work) == version
            await store.aclose()
        stranger, _ = certify(server.folder)
        with pytest.raises(InvalidSetting, match=r"ssl_ca.*must have signed"):
            await Sql(f"{url}?ssl_ca={stranger}").runs.open()


def test_on_trio_it_says_that_its_driver_cannot(mariadb_url: str) -> None:
    with pytest.raises(InvalidSetting, match="asyncio"):
        anyio.run(Sql(mariadb_url).runs.open, backend="trio")


async def test_a_server_that_is_down_is_busy_and_nothing_was_written() -> None:
    async with private(Mariadb) as server:
        url = server.url(server.new_database())
        server.kill()
        with pytest.raises(StoreBusy, match="cannot connect"):
            await Sql(url).runs.open()


async def test_a_schema_of_a_newer_agentkit_is_left_alone(mariadb: Mariadb, mariadb_url: str, store: SqlRuns) -> None:
    with mariadb.connect(mariadb_url.rsplit("/", 1)[1]) as other:
        other.cursor().execute("UPDATE schema_version SET version = 99")
    with pytest.raises(SchemaTooNew):
        await Sql(mariadb_url).runs.open()


async def test_a_first_migration_that_was_cut_off_is_finished_by_the_next(mariadb: Mariadb, mariadb_url: str) -> None:
    store = Sql(mariadb_url).runs
    await store.open()
    await store.aclose()
    with mariadb.connect(mariadb_url.rsplit("/", 1)[1]) as other, other.cursor() as cursor:
        for statement in ("DELETE FROM schema_version", "DELETE FROM documents", "DELETE FROM queue_state", "DROP TABLE runs"):
            cursor.execute(statement)
    await store.open()
    await start(store, "run-1")
    await store.aclose()


@pytest.mark.parametrize("cut_off", [False, True])
async def test_the_tickets_of_a_schema_from_before_there_were_weights_weigh_one(mariadb: Mariadb, mariadb_url: str, cut_off: bool) -> None:
    async with opened(Sql(mariadb_url).queue) as queue:
        await queue.put([ticket(1)])
    first = "ALTER TABLE tickets ADD COLUMN weight INTEGER DEFAULT 1 NOT NULL"
    with mariadb.connect(mariadb_url.rsplit("/", 1)[1]) as other, other.cursor() as cursor:
        for statement in (*WITHOUT_WEIGHTS, *[first] * cut_off):
            cursor.execute(statement)
    async with opened(Sql(mariadb_url).queue) as queue:
        await queue.put([ticket(2, weight=3)])
        leases = await queue.lease(2, wait_s=0, lease_s=60, kinds=SERVED)
        assert {lease.ticket for lease in leases} == {ticket(1), ticket(2, weight=3)}
        assert await queue.bury(leases, "poison") == [True, True]
        assert {letter.ticket for letter in await queue.dead()} == {lease.ticket for lease in leases}


async def test_ten_processes_that_start_together_migrate_once(mariadb_url: str) -> None:
    opening = f"async def main():\n s = Sql({mariadb_url!r}).runs\n await s.open()\n await s.aclose()\n"
    program = f"import anyio\nfrom agentkit_sql import Sql\n{opening}anyio.run(main)"

    async def process() -> int:
        return (await anyio.run_process([sys.executable, "-c", program], check=False)).returncode

    assert await race(*[process] * 10) == [0] * 10
    store = Sql(mariadb_url).runs
    await store.open()
    await start(store, "run-1")
    await store.aclose()


class TestWithin(WithinLaws):
    @pytest.fixture
    async def engine(self, mariadb_url: str) -> AsyncIterator[AsyncEngine]:
        engine = create_async_engine(mariadb_url.replace("mysql://", "mysql+asyncmy://"))
        async with engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
        yield engine
        await engine.dispose()

    @pytest.fixture
    async def elsewhere(self, mariadb: Mariadb) -> AsyncIterator[AsyncEngine]:
        engine = create_async_engine(mariadb.url("mysql").replace("mysql://", "mysql+asyncmy://"))
        yield engine
        await engine.dispose()
