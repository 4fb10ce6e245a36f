"""What doctor says about a MariaDB."""

from __future__ import annotations

import pytest

from agentkit_sql.mariadb_advice import advice
from agentkit_sql.mariadb_runs import MariadbRuns
from agentkit_sql.sql import settings_of

GOOD = {
    "version": "10.11.19-MariaDB", "read_only": "OFF", "innodb_flush_log_at_trx_commit": "1", "log_bin": "ON", "sync_binlog": "1",
    "binlog_format": "MIXED", "max_allowed_packet": "16777216", "wsrep_on": "OFF",
}  # fmt: skip


def worst(durability: str = "durable", **changes: str) -> list[tuple[str, str]]:
    """Level and sentence of what is not well."""
    return [(found.level, found.says) for found in advice({**GOOD, **changes}, durability) if found.level != "ok"]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


def test_a_server_with_its_defaults_is_well() -> None:
    assert worst() == []


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({"version": "10.5.9-MariaDB"}, "fail", "needs 10.6 or newer"),
        ({"version": "5.7.44"}, "fail", "needs 8.0 or newer"),
        ({"version": "8.4.2"}, "note", "MySQL 8.4.2"),
        ({"read_only": "ON"}, "fail", "takes no writes"),
        ({"innodb_flush_log_at_trx_commit": "2"}, "warn", "a power cut loses up to a second"),
        ({"innodb_flush_log_at_trx_commit": "0"}, "warn", "a crash of the server loses up to a second"),
        ({"binlog_format": "STATEMENT"}, "fail", "refuses READ COMMITTED"),
        ({"sync_binlog": "0"}, "note", "sync_binlog is not 1"),
        ({"max_allowed_packet": "1048576"}, "warn", "larger values are refused"),
        ({"wsrep_on": "ON"}, "warn", "Galera"),
    ],
)
def test_each_setting_that_does_not_fit_is_told(changes: dict[str, str], level: str, says: str) -> None:
    [(found, sentence)] = worst(**changes)
    assert found == level
    assert says in sentence


def test_without_a_binary_log_its_settings_do_not_matter() -> None:
    assert worst(log_bin="OFF", binlog_format="STATEMENT", sync_binlog="0") == []


def test_runs_that_are_kept_in_memory_lose_nothing_by_a_lazy_log() -> None:
    assert [level for level, _ in worst("memory", innodb_flush_log_at_trx_commit="2")] == ["note"]


async def test_a_real_server_is_read(mariadb_url: str) -> None:
    store = MariadbRuns(settings_of(mariadb_url))
    await store.open()
    found = {one.what: one for one in await store.findings("durable")}
    await store.aclose()
    assert found["mariadb"].level == "ok", found
    assert found["mariadb log"].level == "warn", "the tests' server leaves the disk alone"
