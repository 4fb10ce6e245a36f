"""What is said about the settings of a PostgreSQL server."""

from __future__ import annotations

import pytest

from agentkit_sql import Sql
from agentkit_sql.postgresql_advice import advice
from agentkit_sql.postgresql_runs import PostgresRuns

GOOD = {
    "server_version": "15.1", "server_version_num": "150001", "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
    "synchronous_standby_names": "", "autovacuum": "on", "max_connections": "100", "transaction_read_only": "off",
    "in_hot_standby": "off",
}  # fmt: skip


def found(durability: str = "durable", **changes: str) -> list[tuple[str, str]]:
    """Level and words of what is not in order."""
    return [(one.level, one.says) for one in advice({**GOOD, **changes}, durability, connections=12) if one.level != "ok"]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The drivers run on asyncio alone."""
    return "asyncio"


def test_a_server_as_it_should_be_is_left_in_peace() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"server_version": "11.2", "server_version_num": "110002"}, "fail", "12 or newer"),
        ({"fsync": "off"}, "fail", "fsync is off"),
        ({"full_page_writes": "off"}, "fail", "full_page_writes is off"),
        ({"synchronous_commit": "off"}, "warn", "loses up to a second"),
        ({"synchronous_commit": "remote_apply"}, "note", "no replica is named"),
        ({"autovacuum": "off"}, "fail", "slower by the hour"),
        ({"max_connections": "40"}, "warn", "opens up to 12"),
        ({"in_hot_standby": "on"}, "fail", "replica"),
        ({"transaction_read_only": "on"}, "fail", "replica"),
    ],
)
def test_what_does_not_fit_is_said_with_its_weight(changes: dict[str, str], level: str, words: str) -> None:
    [(said, says)] = found(**changes)
    assert said == level
    assert words in says


def test_a_class_that_asks_for_less_is_told_less() -> None:
    assert found("relaxed", synchronous_commit="off") == [("note", found(synchronous_commit="off")[0][1])]
    assert found("memory", fsync="off")[0][0] == "note"


async def test_the_facts_are_asked_of_the_server(postgresql_url: str) -> None:
    store = Sql(postgresql_url).runs
    assert isinstance(store, PostgresRuns)
    await store.open()
    findings = {one.what: one.level for one in await store.findings("durable")}
    await store.aclose()
    assert findings["postgresql"] == "ok"
    assert findings["postgresql disk"] == "fail", "the servers of the tests do not wait for the disk"
