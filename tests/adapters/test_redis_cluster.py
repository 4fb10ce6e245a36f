"""The laws of the ports, on a cluster of three: the keys of each script lie in one slot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from uuid import uuid4

import anyio.to_thread
import pytest

from agentkit.errors import StoreBusy, StoreUnavailable
from agentkit.ports.records import RunStatus
from agentkit.testing.contract import race
from agentkit.testing.runs_base import completed, create, entry, start, write, write_one
from agentkit_redis import Redis as Ports
from agentkit_redis.runs import RedisRuns, from_url
from tests.adapters.laws import Backend, LimitLaws, QueueLaws, RunLaws, ValueLaws
from tests.servers.redis import SLOTS, Redis, redis_cluster


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="module")
async def nodes(servers_folder: None) -> AsyncIterator[list[Redis]]:
    async with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def url(nodes: list[Redis]) -> str:
    return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}?prefix={uuid4().hex}"


@pytest.fixture
def backend(url: str) -> Backend:
    return Backend(Ports, url, own="max_connections=3")


class TestRedisClusterRuns(RunLaws): ...


class TestRedisClusterQueue(QueueLaws): ...


class TestRedisClusterValues(ValueLaws): ...


class TestRedisClusterLimits(LimitLaws): ...


async def moving(nodes: list[Redis], store: RedisRuns, run_id: str) -> tuple[int, Redis, Redis, str]:
    """The slot of a run that is not there yet, its server, another one, and that one's id in the cluster, which is empty."""
    for node in nodes:
        await ask(node, "FLUSHALL")
    slot = int((await ask(nodes[0], f"CLUSTER KEYSLOT {store.run_key(run_id)}")).lstrip(":"))
    owner = nodes[slot * len(nodes) // SLOTS]
    other = next(node for node in nodes if node is not owner)
    return slot, owner, other, await ask(other, "CLUSTER MYID")


async def move(slot: int, source: Redis, target: Redis) -> None:
    """A slot without keys changes its server. Only one who imports it takes a new epoch, without which an old claim would win it back."""
    here, there = await ask(source, "CLUSTER MYID"), await ask(target, "CLUSTER MYID")
    await ask(target, f"CLUSTER SETSLOT {slot} IMPORTING {here}")
    await ask(source, f"CLUSTER SETSLOT {slot} MIGRATING {there}")
    for node in (target, source):
        assert await ask(node, f"CLUSTER SETSLOT {slot} NODE {there}") == "+OK"


async def ask(server: Redis, command: str) -> str:
    return await anyio.to_thread.run_sync(server.ask, command)


@pytest.mark.parametrize("named", ["ip", "unknown-endpoint"])
async def test_a_slot_that_moved_is_followed(named: str, nodes: list[Redis], url: str) -> None:
    """Also where the servers do not know by which name they are reached, and give ports alone."""
    store, run_id = from_url(url), uuid4().hex
    for node in nodes:
        assert await ask(node, f"CONFIG SET cluster-preferred-endpoint-type {named}") == "+OK"
    await store.open()
    slot, owner, other, _ = await moving(nodes, store, run_id)
    try:
        await move(slot, owner, other)
        await ask(other, "SCRIPT FLUSH")
        worker_id, run = await start(store, run_id)
        assert (await write_one(store, worker_id, write(run, [entry(1)], release=completed()))).verdict == "ok"
        assert await ask(other, f"EXISTS {store.run_key(run_id)}") == ":1"
    finally:
        await ask(other, "FLUSHALL")
        await move(slot, other, owner)
        for node in nodes:
            await ask(node, "CONFIG SET cluster-preferred-endpoint-type ip")
        await store.aclose()


async def test_a_slot_on_whose_server_no_one_agrees_takes_no_writes_that_may_come_again(nodes: list[Redis], url: str) -> None:
    store, run_id = from_url(url), uuid4().hex
    await store.open()
    slot, owner, other, there = await moving(nodes, store, run_id)
    try:
        await ask(owner, f"CLUSTER SETSLOT {slot} NODE {there}")  # the owner sends to the other one, which knows nothing of it
        with pytest.raises(StoreBusy, match=r"agree|no server"):
            await create(store, run_id)
    finally:
        await move(slot, owner, other)
        await move(slot, other, owner)
    assert (await create(store, run_id)).status is RunStatus.READY
    await store.aclose()


async def test_a_slot_that_is_on_its_way_is_asked_for_where_it_goes_and_writes_wait_until_it_is_there(nodes: list[Redis], url: str) -> None:
    store, run_id = from_url(url), uuid4().hex
    await store.open()
    slot, owner, other, there = await moving(nodes, store, run_id)
    try:
        await ask(other, f"CLUSTER SETSLOT {slot} IMPORTING {await ask(owner, 'CLUSTER MYID')}")
        await ask(owner, f"CLUSTER SETSLOT {slot} MIGRATING {there}")
        assert await store.inbox(run_id) == []
        with pytest.raises(StoreBusy, match="moving"):
            await create(store, run_id)
        await ask(other, f"CLUSTER SETSLOT {slot} STABLE")
        await ask(owner, f"CLUSTER SETSLOT {slot} STABLE")
        assert (await create(store, run_id)).status is RunStatus.READY
    finally:
        await ask(other, "FLUSHALL")
        for node in (owner, other):
            await ask(node, f"CLUSTER SETSLOT {slot} STABLE")
        await store.aclose()


async def test_a_server_of_the_cluster_that_is_gone_is_told_and_the_others_go_on(url: str) -> None:
    async with redis_cluster(cluster_require_full_coverage="no") as nodes:
        store = from_url(f"redis+cluster://127.0.0.1:{nodes[0].port}?timeout_s=1")
        await store.open()
        names = [f"run-{number}" for number in range(30)]
        for name in names:
            await create(store, name)
        await anyio.to_thread.run_sync(nodes[2].kill)
        outcomes = await race(*(partial(store.get, [name]) for name in names))
        assert {type(outcome) for outcome in outcomes} <= {list, StoreUnavailable, StoreBusy}
        assert any(isinstance(outcome, list) for outcome in outcomes)
        assert any(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
        await store.aclose()
