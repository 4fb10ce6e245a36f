"""PostgreSQL before the first run: URLs, schemas, plans, and runs created in the application's own transaction."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import AsyncIterator, Mapping
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agentkit import Agent, Context, Runtime
from agentkit.clock import SYSTEM
from agentkit.errors import AdapterNotInstalled, InvalidSetting, SchemaTooNew, StoreBusy
from agentkit.ports.records import RunStatus
from agentkit.testing.queue_base import SERVED, ticket
from agentkit.testing.runs_base import new
from agentkit_sql import Sql, SqlRuns
from agentkit_sql import postgresql_queue as queue_statements
from agentkit_sql import postgresql_runs as run_statements
from agentkit_sql.dialect import Script, Statement
from agentkit_sql.postgresql import PostgresDialect, PostgresSettings, driver_of
from agentkit_sql.postgresql_asyncpg import numbered
from agentkit_sql.schema import FIRST, MIGRATIONS, migrate
from agentkit_sql.server import Server, drive
from tests.adapters.opening import opened
from tests.adapters.statements import WITHOUT_WEIGHTS, statements
from tests.adapters.within_laws import WithinLaws
from tests.servers.postgresql import GUARDED, PASSWORD, Postgresql
from tests.servers.process import private

DRIVERS = ["asyncpg", "psycopg"]
LARGE = ("runs", "journal", "inbox", "tickets")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The drivers run on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def store(postgresql_url: str) -> AsyncIterator[SqlRuns]:
    async with opened(Sql(postgresql_url).runs) as store:
        yield store


def somewhere() -> str:
    """An option that names a schema of the test's own."""
    return f"schema=s{uuid4().hex}"


async def open_once(url: str) -> None:
    store = Sql(url).runs
    await store.open()
    await store.aclose()


# Settings


@pytest.mark.parametrize(
    ("url", "named", "way_out"),
    [
        ("postgresql+pg8000://host/name", "url", "postgresql+psycopg"),
        ("postgresql://host/name?pool=3", "pool", "did you mean 'pool_size'?"),
        ("postgresql://host/name?pool_size=none", "pool_size", "valid integer"),
        ("postgresql://host/name?statement_timeout_s=0", "statement_timeout_s", "greater than 0"),
        ("postgresql://host/name?port=3", "port", "known"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_is_opened(url: str, named: str, way_out: str) -> None:
    if named == "port":
        url = url.replace("host/", "host:5432/")
    with pytest.raises(InvalidSetting) as refused:
        Sql(url)
    assert refused.value.name == named
    assert way_out in str(refused.value)


def test_settings_are_read_from_the_url_and_keep_the_password_to_themselves() -> None:
    settings = PostgresSettings.from_url("postgresql://ann:s3cret@db.example:6432/agents?pool_size=3&schema=mine")
    assert (settings.host, settings.port, settings.user, settings.database) == ("db.example", 6432, "ann", "agents")
    assert (settings.pool_size, settings.schema_, settings.driver) == (3, "mine", "asyncpg")
    assert "s3cret" not in f"{settings!r} {settings.store}"
    assert settings.dsn == "postgresql://ann:s3cret@db.example:6432/agents?sslmode=prefer"


def test_timeouts_stay_under_a_quarter_of_the_shortest_lease() -> None:
    runs = Sql("postgresql://host/name?statement_timeout_s=3&idle_in_transaction_s=1").runs
    assert runs.min_lease_s / 4 > 3
    assert Sql("postgresql://host/name").runs.min_lease_s < 10, "the default lease is long enough for the default timeouts"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_missing_driver_says_how_to_install_it(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    monkeypatch.delitem(sys.modules, f"agentkit_sql.postgresql_{driver}", raising=False)
    with pytest.raises(AdapterNotInstalled, match="pip install"):
        anyio.run(Sql(f"postgresql+{driver}://localhost/name").runs.open)


def test_an_event_loop_of_trio_is_refused(postgresql_url: str) -> None:
    with pytest.raises(InvalidSetting, match="asyncio alone"):
        anyio.run(Sql(postgresql_url).runs.open, backend="trio")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_what_stands_between_us_and_the_database_is_named(postgresql: Postgresql, driver: str) -> None:
    scheme = f"postgresql+{driver}://"
    with pytest.raises(InvalidSetting, match=r'"nowhere" does not exist.*create'):
        await open_once(postgresql.url("nowhere").replace("postgresql://", scheme))
    with pytest.raises(StoreBusy, match="is the server up"):
        await open_once(f"{scheme}postgres@127.0.0.1:9/name")
    with pytest.raises(StoreBusy, match="is the server up"):
        await open_once(f"{scheme}postgres@nowhere.invalid/name")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_wrong_password_is_a_wrong_setting_and_is_not_repeated(driver: str) -> None:
    async with private(Postgresql) as server:
        await anyio.to_thread.run_sync(server.add_guarded_user)
        url = server.url("postgres", user=f"{GUARDED}:wrong").replace("postgresql://", f"postgresql+{driver}://")
        with pytest.raises(InvalidSetting, match="check user and password") as refused:
            await open_once(url)
        assert "wrong" not in str(refused.value)
        await open_once(url.replace(":wrong@", f":{PASSWORD}@"))


# The schema


@pytest.mark.parametrize("driver", DRIVERS)
async def test_ten_that_open_a_new_database_at_once_make_it_once(postgresql_url: str, driver: str) -> None:
    url = postgresql_url.replace("postgresql://", f"postgresql+{driver}://")
    place = somewhere()
    stores = [Sql(f"{url}?{place}&max_depth={number}").runs for number in range(1, 11)]
    async with anyio.create_task_group() as tasks:
        for store in stores:
            tasks.start_soon(store.open)

    def count() -> Script[int]:
        [(rows,)] = yield Statement("SELECT count(*) FROM queue_state")()
        return int(rows)

    assert [await store.database.read(count) for store in stores] == [1] * 10
    for store in stores:
        await store.aclose()


async def test_a_newer_schema_is_refused_and_left_alone(store: SqlRuns, postgresql_url: str) -> None:
    def newer() -> Script[None]:
        yield Statement("UPDATE schema_version SET version = ?")(FIRST + 41)

    await store.database.write(newer, sync=True)
    with pytest.raises(SchemaTooNew, match="upgrade"):
        await open_once(f"{postgresql_url}?pool_size=3")


async def test_an_older_schema_is_brought_up_to_date_once(store: SqlRuns) -> None:
    def newest(_: object) -> list[str]:
        return ["ALTER TABLE runs ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'"]

    dialect = PostgresDialect(SYSTEM)
    for _ in range(2):
        await store.database.write(lambda: migrate(dialect, "here", [*MIGRATIONS, newest]), sync=True)

    def look() -> Script[tuple[int, str]]:
        [(version,)] = yield Statement("SELECT version FROM schema_version")()
        [(colour,)] = yield Statement("SELECT column_default FROM information_schema.columns WHERE column_name = 'colour'")()
        return version, colour

    version, colour = await store.database.read(look)
    assert (version, "red" in colour) == (FIRST + len(MIGRATIONS) + 1, True)


async def test_the_tickets_of_a_schema_from_before_there_were_weights_weigh_one(postgresql_url: str) -> None:
    async with opened(Sql(postgresql_url).queue) as queue:
        await queue.put([ticket(1)])

        def go_back() -> Script[None]:
            for statement in WITHOUT_WEIGHTS:
                yield Statement(statement)()

        await queue.database.write(go_back, sync=True)
    async with opened(Sql(postgresql_url).queue) as queue:
        await queue.put([ticket(2, weight=3), ticket(3, key="k", weight=5)])
        leases = await queue.lease(3, wait_s=0, lease_s=60, kinds=SERVED)
    assert {lease.ticket for lease in leases} == {ticket(1), ticket(2, weight=3), ticket(3, key="k", weight=5)}


async def test_two_schemas_of_one_database_know_nothing_of_each_other(postgresql_url: str) -> None:
    stores = [Sql(f"{postgresql_url}?{somewhere()}{name}").runs for name in ("", 'with"quote')]
    for store in stores:
        await store.open()
        assert [created.answer for created in await store.create([new("run-1")])] == ["created"]
    for store in stores:
        await store.aclose()


# How statements find rows


HOT = {
    f"{module.__name__}.{name}": str(getattr(module, name))
    for module, names in (
        (run_statements, ["ADD", "ADD_RELAXED", "ADD_ONE", "ADD_ONE_RELAXED", "WRITE", "CLAIM", "CREATE"]),
        (queue_statements, ["PUT", "LEASE", "WAITING", "FINISH", "RENEW"]),
    )
    for name in names
}


async def plans_of(url: str, texts: Mapping[str, str]) -> dict[str, list[str]]:
    """How a session carries out statements that it prepared while all tables were empty."""
    connection = await driver_of(PostgresSettings.from_url(url)).connect()
    plans: dict[str, list[str]] = {}
    for number, (name, text) in enumerate(texts.items()):
        await connection.plain(f"PREPARE s{number} AS {numbered(text)}")
        nothing = ", ".join(["NULL"] * text.count("?"))
        rows = await connection.rows(f"EXPLAIN EXECUTE s{number}" + (f"({nothing})" if nothing else ""), ())
        plans[name] = [row[0] for row in rows]
    await connection.close()
    return plans


async def test_no_statement_searches_through_a_large_table(postgresql_url: str, store: SqlRuns) -> None:
    sql = Sql(postgresql_url)
    found = statements(sql.runs) | statements(sql.queue) | statements(sql.values) | statements(sql.limits) | HOT
    assert len(found) > 80
    for name, plan in (await plans_of(postgresql_url, found)).items():
        for line in plan:
            assert not any(f"Seq Scan on {table}" in line for table in LARGE), f"{name}: {line}"


async def test_what_is_done_all_the_time_finds_rows_by_their_keys_also_when_it_was_planned_on_empty_tables(
    postgresql_url: str, store: SqlRuns
) -> None:
    for name, plan in (await plans_of(postgresql_url, HOT)).items():
        for line, following in itertools.pairwise([*plan, ""]):
            assert "runs_owned" not in line, f"{name}: each run of the worker beside each entry: {line}"
            assert "Index Cond" in following or not re.search(r"Index (Only )?Scan ", line), f"{name}: a whole index: {line}"


# The application's own transaction


@pytest.fixture(params=DRIVERS)
async def engine(request: pytest.FixtureRequest, postgresql_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(postgresql_url.replace("postgresql://", f"postgresql+{request.param}://"))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
    yield engine
    await engine.dispose()


class Welcome(Agent[str, str]):
    """Greets who has signed up."""

    async def run(self, ctx: Context, input: str) -> str:
        return f"welcome, {input}"


class TestWithin(WithinLaws):
    @pytest.fixture
    async def elsewhere(self, postgresql: Postgresql) -> AsyncIterator[AsyncEngine]:
        engine = create_async_engine(postgresql.url("postgres").replace("postgresql://", "postgresql+asyncpg://"))
        yield engine
        await engine.dispose()


async def test_a_run_submitted_in_a_transaction_runs_once(postgresql_url: str, engine: AsyncEngine) -> None:
    async with Runtime(state=f"{postgresql_url}?{somewhere()}", agents=[Welcome], worker=True) as runtime:
        async with engine.connect() as connection:
            await runtime.submit(Welcome, "bob", run_id="run-2", within=connection)
            await connection.rollback()
        for _ in range(2):
            async with engine.begin() as connection:
                await runtime.submit(Welcome, "ann", run_id="run-1", within=connection)
                assert (await connection.exec_driver_sql("SELECT current_schema()")).scalar() == "public"
        assert await runtime.handle("run-1", Welcome).result(timeout_s=20) == "welcome, ann"
        row, never = await runtime.store.get(["run-1", "run-2"])
        assert row is not None
        assert (row.status, row.fence, never) == (RunStatus.COMPLETED, 1, None)


async def test_a_store_that_has_no_transactions_of_others_says_so() -> None:
    async with Runtime(state="memory://", agents=[Welcome]) as runtime:
        with pytest.raises(InvalidSetting, match="takes no part"):
            await runtime.submit(Welcome, "ann", within=object())


# What a connection keeps to


@pytest.mark.parametrize("driver", DRIVERS)
async def test_every_connection_keeps_to_its_settings_whatever_the_role_has(
    postgresql: Postgresql, postgresql_url: str, driver: str
) -> None:
    url = postgresql_url.replace("postgresql://", f"postgresql+{driver}://")
    await anyio.to_thread.run_sync(postgresql.execute, "ALTER ROLE postgres SET default_transaction_isolation = 'serializable'")
    connection = await driver_of(PostgresSettings.from_url(f"{url}?statement_timeout_s=1.5&schema=a b")).connect()
    await anyio.to_thread.run_sync(postgresql.execute, "ALTER ROLE postgres RESET ALL")
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "search_path", "transaction_isolation")
    found = [(await connection.rows(f"SHOW {name}", ()))[0][0] for name in names]
    assert found == ["1500ms", "2s", '"a b"', "read committed"]
    await connection.close()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_write_that_need_not_wait_for_the_disk_does_not(postgresql_url: str, driver: str) -> None:
    url = postgresql_url.replace("postgresql://", f"postgresql+{driver}://")
    sql = Sql(url)
    await sql.runs.open()
    server = sql.runs.database
    assert isinstance(server, Server)

    def how() -> Script[str]:
        [(value,)] = yield Statement("SELECT current_setting('synchronous_commit')")()
        return str(value)

    assert [await server.write(how, sync=sync) for sync in (True, False, True)] == ["on", "off", "on"]
    assert await server.read(how) == "on"
    connection = await driver_of(PostgresSettings.from_url(url)).connect()
    assert await drive(connection, how()) == "on"
    await connection.close()
    await sql.runs.aclose()
