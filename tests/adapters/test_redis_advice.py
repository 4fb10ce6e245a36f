"""What `agentkit doctor` says about a Redis server."""

from __future__ import annotations

import pytest

from agentkit import Agent, Context, Runtime
from agentkit.cli.doctor import advice as of_runtime
from agentkit_redis.advice import advice, facts_of
from agentkit_redis.runs import from_url
from tests.servers.process import private
from tests.servers.redis import Redis

GOOD = {
    "redis_version": "7.2.4", "role": "master", "aof_enabled": "1", "appendfsync": "always", "aof_last_write_status": "ok",
    "maxmemory": "1000", "used_memory": "100", "maxmemory_policy": "noeviction",
}  # fmt: skip


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


class Careful(Agent[int, int]):
    durability = "strict"

    async def run(self, ctx: Context, input: int) -> int:
        return input


def level(facts: dict[str, str], durability: str = "durable") -> dict[str, str]:
    """The worst level of each thing that is not in order."""
    return {found.what: found.level for found in advice("here", GOOD | facts, durability) if found.level != "ok"}


def test_a_server_that_is_set_up_well_gives_no_reason_to_complain() -> None:
    assert level({}, "strict") == {}


@pytest.mark.parametrize(
    ("facts", "durability", "expected"),
    [
        ({"redis_version": "6.2.14"}, "durable", {"redis": "fail"}),
        ({"role": "slave"}, "durable", {"redis": "fail"}),
        ({"aof_enabled": "0"}, "memory", {"redis log": "note"}),
        ({"aof_enabled": "0"}, "relaxed", {"redis log": "warn"}),
        ({"aof_enabled": "0"}, "durable", {"redis log": "warn"}),
        ({"appendfsync": "everysec"}, "durable", {"redis log": "note"}),
        ({"appendfsync": "everysec"}, "strict", {"redis log": "warn"}),
        ({"appendfsync": "no"}, "durable", {"redis log": "warn"}),
        ({"aof_last_write_status": "err"}, "relaxed", {"redis log": "fail"}),
        ({"maxmemory_policy": "allkeys-lru"}, "relaxed", {"redis memory": "fail"}),
        ({"maxmemory_policy": "volatile-ttl"}, "relaxed", {"redis memory": "fail"}),
        ({"maxmemory": "0"}, "durable", {"redis memory": "note"}),
        ({"used_memory": "900"}, "durable", {"redis memory": "warn"}),
    ],
)
def test_what_does_not_match_is_told_with_the_way_out(facts: dict[str, str], durability: str, expected: dict[str, str]) -> None:
    assert level(facts, durability) == expected
    assert all(found.do for found in advice("here", GOOD | facts, durability) if found.level != "ok")


def test_a_server_that_hides_its_settings_is_judged_by_what_it_shows() -> None:
    assert advice("here", facts_of("redis_version:7.0.15\r\nmaxmemory:0\r\n", {}), "durable")


async def test_the_doctor_asks_for_the_strictest_class_among_the_agents() -> None:
    async with private(Redis, appendonly="yes", appendfsync="everysec", maxmemory_policy="allkeys-lru", maxmemory="100mb") as server:
        async with Runtime(state=server.url, queue="memory://", values="memory://", limits="memory://", agents=[Careful]) as runtime:
            found = {finding.what: finding.level for finding in await of_runtime(runtime) if finding.level != "ok"}
        assert found == {"redis log": "warn", "redis memory": "fail"}


async def test_a_store_without_advice_is_left_alone() -> None:
    async with Runtime(state="memory://") as runtime:
        assert await of_runtime(runtime) == []


async def test_a_user_who_may_not_look_is_told_which_right_is_missing(redis_server: Redis, redis_url: str) -> None:
    redis_server.ask("ACL SETUSER blind on >right ~* +@all -info -config")
    store = from_url(f"redis://blind:right@127.0.0.1:{redis_server.port}/0")
    await store.open()
    [found] = await store.findings("durable")
    await store.aclose()
    redis_server.ask("ACL DELUSER blind")
    assert (found.level, "+info" in found.do) == ("note", True)
