"""What the run store on Redis makes of a server that fails, forgets, hangs, moves or refuses."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import pytest

from agentkit import Agent, Context, Runtime
from agentkit.clock import SYSTEM
from agentkit.errors import InvalidKey, InvalidSetting, StoreBusy, StoreError, StoreUnavailable, WorkerFenced
from agentkit.ports.records import Release, Run, RunQuery, RunStatus, Written
from agentkit.ports.runs import RunStore
from agentkit.runtime.settings import Settings
from agentkit.testing.clock import FakeClock
from agentkit.testing.runs_base import (
    completed,
    create,
    entries,
    entry,
    family,
    get,
    new,
    parked,
    reap,
    register,
    run_ids,
    start,
    sweep,
    write,
    write_one,
)
from agentkit_redis.runs import RedisRuns, from_url
from tests.adapters.opening import opened
from tests.servers.process import private
from tests.servers.proxy import Proxy
from tests.servers.redis import Redis, redis_cluster, watched_redis

T = TypeVar("T")
BACK_S = 45.0  # for a server to be there again: a Sentinel that was held up for two seconds trusts no clock for thirty (its TILT mode)
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "operate-redis.md"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisRuns]:
    async with opened(from_url(redis_url)) as store:
        yield store


async def until_done(work: Callable[[], Awaitable[T]]) -> T:
    """Do it again until the store answers, as the lane of a worker does."""
    with anyio.fail_after(BACK_S):
        while True:
            try:
                return await work()
            except StoreUnavailable:
                await anyio.sleep(0.05)


async def ask(server: Redis, command: str) -> str:
    return await anyio.to_thread.run_sync(server.ask, command)


async def test_a_server_that_forgot_its_scripts_is_given_them_again(store: RedisRuns, redis_server: Redis) -> None:
    worker_id, run = await start(store, "run-1")
    await ask(redis_server, "SCRIPT FLUSH")
    assert await store.write(worker_id, [write(run, entries([1, 2]))]) == [Written("ok", 0)]
    await ask(redis_server, "SCRIPT FLUSH")
    assert (await store.signal("run-1", "m", "topic", b"")).answer == "accepted"
    assert [each.seq for each in await store.load("run-1")] == [1, 2]


async def test_a_write_whose_answer_was_lost_is_there_once_when_sent_again(redis_url: str, redis_server: Redis) -> None:
    with Proxy(redis_server.port) as proxy:
        async with opened(from_url(f"redis://127.0.0.1:{proxy.port}/0")) as store:
            worker_id, run = await start(store, "run-1")
            for number, release in enumerate((None, parked(run)), 1):
                batch = [write(run, [entry(number)], release=release)]
                happened = proxy.cut_after(b"EVALSHA")
                with pytest.raises(StoreUnavailable):
                    await store.write(worker_id, batch)
                assert happened.is_set()
                assert [each.seq for each in await store.load("run-1")] == list(range(1, number + 1))
                assert await store.write(worker_id, batch) == [Written("ok", 0)]
            assert (await get(store, "run-1")).status is RunStatus.PARKED
            assert len(await store.load("run-1")) == 2


async def test_a_write_that_never_arrived_is_there_when_sent_again(redis_url: str, redis_server: Redis) -> None:
    with Proxy(redis_server.port) as proxy:
        async with opened(from_url(f"redis://127.0.0.1:{proxy.port}/0")) as store:
            worker_id, run = await start(store, "run-1")
            proxy.cut_before(b"EVALSHA")
            with pytest.raises(StoreUnavailable):
                await store.write(worker_id, [write(run, [entry(1)])])
            assert await store.load("run-1") == []
            assert await store.write(worker_id, [write(run, [entry(1)])]) == [Written("ok", 0)]


async def test_a_signal_whose_answer_was_lost_woke_the_run_and_the_sweep_finds_its_ticket(redis_url: str, redis_server: Redis) -> None:
    with Proxy(redis_server.port) as proxy:
        async with opened(from_url(f"redis://127.0.0.1:{proxy.port}/0")) as store:
            worker_id, run = await start(store, "run-1")
            await write_one(store, worker_id, write(run, release=parked(run)))
            proxy.cut_after(b"EVALSHA")
            with pytest.raises(StoreUnavailable):
                await store.signal("run-1", "m", "topic", b"")
            assert (await store.signal("run-1", "m", "topic", b"")).answer == "duplicate"
            assert run_ids((await sweep(store)).tickets) == ["run-1"]


async def test_connections_that_the_server_closed_cost_one_error_at_most(store: RedisRuns, redis_server: Redis) -> None:
    await create(store, "run-1")
    await ask(redis_server, "CLIENT KILL TYPE normal SKIPME yes")
    assert (await until_done(partial(store.get, ["run-1"])))[0] is not None


async def test_what_was_acknowledged_is_there_after_kill_9_of_a_server_that_syncs_always() -> None:
    async with private(Redis, appendonly="yes", appendfsync="always") as server, opened(from_url(server.url)) as store:
        worker_id, run = await start(store, "run-1")
        for seq in range(1, 51):
            assert (await write_one(store, worker_id, write(run, [entry(seq)]))).verdict == "ok"
        await anyio.to_thread.run_sync(server.kill)
        with pytest.raises(StoreUnavailable):
            await write_one(store, worker_id, write(run, [entry(51)]))
        await anyio.to_thread.run_sync(server.start)
        assert await until_done(partial(store.write, worker_id, [write(run, [entry(51)], release=completed())])) == [Written("ok", 0)]
        assert [each.seq for each in await store.load("run-1")] == list(range(1, 52))


async def test_a_server_that_hangs_is_reported_and_nothing_is_lost_or_doubled(redis_url: str) -> None:
    async with private(Redis) as server, opened(from_url(f"{server.url}?timeout_s=0.5")) as store:
        worker_id, run = await start(store, "run-1")
        await anyio.to_thread.run_sync(server.pause)
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match=r"0\.5 s"):
                    await store.write(worker_id, [write(run, entries([1, 2]))])
        finally:
            await anyio.to_thread.run_sync(server.resume)
        assert await until_done(partial(store.write, worker_id, [write(run, entries([1, 2]))])) == [Written("ok", 0)]
        assert [each.seq for each in await store.load("run-1")] == [1, 2]
        assert (await sweep(store)).taken_over == []


class Door:
    def __init__(self) -> None:
        self.entered, self.open = anyio.Event(), anyio.Event()


class Patient(Agent[int, int]):
    """Waits in a step until the test lets it go on."""

    async def run(self, ctx: Context, input: int) -> int:
        door = ctx.get(Door)

        async def wait() -> int:
            door.entered.set()
            await door.open.wait()
            return input

        return await ctx.step("wait", wait)


async def test_nobody_is_declared_dead_by_an_outage_longer_than_a_lease(tmp_path: Path) -> None:
    lease_s = RedisRuns.min_lease_s
    door = Door()

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[dict[type, object]]:
        yield {Door: door}

    async with private(Redis, appendonly="yes") as server:

        def runtime(url: str) -> Runtime:
            settings = Settings(state=url, queue=f"sqlite:///{tmp_path}/queue.db", values="memory://", limits="memory://", lease_s=lease_s)
            return Runtime(settings=settings, agents=[Patient], lifespan=lifespan, worker=True)

        first, second = (runtime(f"{server.url}?timeout_s={timeout_s}") for timeout_s in (1, 2))
        async with first, second:
            await first.submit(Patient, 7, run_id="run-1")
            await door.entered.wait()
            await anyio.to_thread.run_sync(server.pause)
            await anyio.sleep(1.5 * lease_s)
            await anyio.to_thread.run_sync(server.resume)
            await anyio.sleep(lease_s)
            door.open.set()
            run = await until_ended(first.store, "run-1")
        assert (run.status, run.fence, run.crashes) == (RunStatus.COMPLETED, 1, 0)


async def until_ended(store: RunStore, run_id: str) -> Run:
    with anyio.fail_after(BACK_S):
        while True:
            run = await get(store, run_id)
            if run.status.ended:
                return run
            await anyio.sleep(0.05)


async def test_a_server_that_is_slow_is_waited_for_and_one_that_is_too_slow_is_not(redis_url: str, redis_server: Redis) -> None:
    with Proxy(redis_server.port) as proxy:
        async with opened(from_url(f"redis://127.0.0.1:{proxy.port}/0?timeout_s=2")) as store:
            worker_id, run = await start(store, "run-1")
            proxy.slow(0.1)
            assert await store.write(worker_id, [write(run, [entry(1)])]) == [Written("ok", 0)]
            proxy.slow(3.0)
            with pytest.raises(StoreUnavailable, match="no answer within 2 s"):
                await store.write(worker_id, [write(run, [entry(2)])])
            proxy.heal()
            assert await until_done(partial(store.write, worker_id, [write(run, [entry(2)])])) == [Written("ok", 0)]
            assert [each.seq for each in await store.load("run-1")] == [1, 2]


async def test_a_server_without_memory_says_so_and_goes_on_when_it_has_some() -> None:
    async with private(Redis, maxmemory="4mb", maxmemory_policy="noeviction") as server, opened(from_url(server.url)) as store:
        worker_id, run = await start(store, "run-1")
        written, busy = 0, None
        while busy is None and written < 1000:
            try:
                await write_one(store, worker_id, write(run, [entry(written + 1, b"x" * 50_000)]))
                written += 1
            except StoreBusy as exc:
                busy = exc
        assert "maxmemory" in str(busy)
        assert [each.seq for each in await store.load("run-1")] == list(range(1, written + 1))
        with pytest.raises(StoreBusy):
            await store.signal("run-1", "m", "topic", b"x" * 50_000)
        assert await store.inbox("run-1") == []
        await ask(server, "CONFIG SET maxmemory 100mb")
        assert (await write_one(store, worker_id, write(run, [entry(written + 1)], release=completed()))).verdict == "ok"


async def test_a_replica_refuses_writes_and_the_error_names_the_way_out() -> None:
    async with (
        private(Redis) as primary,
        private(Redis, replicaof=f"127.0.0.1 {primary.port}") as replica,
        opened(from_url(replica.url)) as store,
    ):
        with pytest.raises(StoreBusy, match=r"redis\+sentinel"):
            await store.create([new("run-1")])


@pytest.mark.parametrize("clustered", [False, True], ids=["one server", "cluster"])
async def test_a_zombie_writes_and_claims_nothing_after_its_take_over(redis_url: str, *, clustered: bool) -> None:
    async def zombie(url: str) -> None:
        async with opened(from_url(url)) as store, opened(from_url(f"{url}?timeout_s=6")) as other:
            worker_id, run = await start(store, "run-1")
            await write_one(store, worker_id, write(run, [entry(1)]))
            assert run_ids((await reap(other, worker_id)).tickets) == ["run-1"]
            with pytest.raises(WorkerFenced):
                await store.write(worker_id, [write(run, [entry(2)], release=completed())])
            assert await store.beat(worker_id) is None
            assert await store.claim(worker_id, ["run-1"], {"review": {"3"}}) == ["fenced"]
            assert len(await other.load("run-1")) == 1

    if not clustered:
        await zombie(redis_url)
        return
    async with redis_cluster() as nodes:
        await zombie(f"redis+cluster://127.0.0.1:{nodes[0].port}")


async def test_a_sentinel_names_the_new_primary_and_the_runs_go_on_there() -> None:
    async with watched_redis() as watched:
        url = f"redis+sentinel://127.0.0.1:{watched.sentinel.port}/main?wait_replicas=1&timeout_s=2"
        async with opened(from_url(url)) as store:
            worker_id, run = await start(store, "run-1")
            assert (await write_one(store, worker_id, write(run, entries([1, 2, 3])))).verdict == "ok"
            await anyio.to_thread.run_sync(watched.primary.kill)
            # The new primary has no replica to wait for: what was written there is told as not kept, and it is there.
            with anyio.fail_after(BACK_S):
                while True:
                    try:
                        assert [each.seq for each in await store.load("run-1")] == [1, 2, 3]
                        break
                    except StoreUnavailable:
                        await anyio.sleep(0.1)
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await until_told(partial(store.write, worker_id, [write(run, [entry(4)])]), "replicas")
            assert [each.seq for each in await store.load("run-1")] == [1, 2, 3, 4]


async def until_told(work: Callable[[], Awaitable[object]], words: str) -> None:
    """Do it again until it fails with these words."""
    with anyio.fail_after(BACK_S):
        while True:
            try:
                await work()
            except StoreUnavailable as exc:
                if words in str(exc):
                    raise
            await anyio.sleep(0.05)


async def test_tls_is_spoken_with_a_server_whose_certificate_is_trusted_and_with_no_other() -> None:
    async with private(Redis, tls=True) as server:
        async with opened(from_url(f"{server.url}?ca_file={server.certificate}")) as store:
            await create(store, "run-1")
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            await from_url(server.url).open()


async def test_the_least_rights_of_the_guide_are_enough_and_less_is_told(redis_server: Redis, redis_url: str) -> None:
    [rule] = re.findall(r"^ACL SETUSER agentkit (.*)$", GUIDE.read_text(), re.MULTILINE)
    await ask(redis_server, f"ACL SETUSER agentkit {rule.replace('PASSWORD', 'right')}")
    await ask(redis_server, "ACL SETUSER limited on >right ~other:* +@all")
    port = redis_server.port
    try:
        async with opened(from_url(f"redis://agentkit:right@127.0.0.1:{port}/0")) as store:
            await everything(store)
        with pytest.raises(InvalidSetting, match="refuses that user and password") as told:
            await from_url(f"redis://agentkit:wrong@127.0.0.1:{port}/0").open()
        assert "wrong" not in str(told.value)
        async with opened(from_url(f"redis://limited:right@127.0.0.1:{port}/0")) as store:
            with pytest.raises(StoreError, match="grant it"):
                await create(store, "run-1")
    finally:
        await ask(redis_server, "ACL DELUSER agentkit limited")


async def everything(store: RedisRuns) -> None:
    """Call each verb."""
    parent = await family(store, 3, window=1)
    await parent.create_children()
    await parent.park_parent()
    await parent.finish(0)
    await store.cancel_children("parent", None, b"{}")
    worker_id, run = await start(store, "run-1", keep_s=0.0)
    await store.signal("run-1", "m", "topic", b"")
    assert await store.beat(worker_id) is not None
    await write_one(store, worker_id, write(run, [entry(1)], takes=[("m", 1)], release=Release(RunStatus.READY)))
    await store.ticketed((await sweep(store)).tickets)
    assert await store.bury("run-1", b"{}")
    assert await store.revive("run-1")
    await reap(store, worker_id)
    assert await store.bury("run-1", b"{}")
    assert await store.inbox("run-1")
    assert len(await store.list(RunQuery(parent_id="parent"))) == 3
    assert await store.purge(10) == 1
    await store.changed(await store.changed(0, 0.0), 0.05)
    await store.retire(await register(store))
    assert await store.findings("durable")


async def test_lists_of_hints_that_were_lost_are_made_again(redis_url: str, redis_server: Redis) -> None:
    clock = FakeClock()
    store = from_url(redis_url, clock=clock)
    await store.open()
    parent = await family(store, 1)
    await parent.create_children()
    await parent.park_parent()
    await create(store, "ready")
    await create(store, "later", delay_s=5.0)
    owner, _ = await start(store, "running")
    lost_owner, _ = await start(store, "orphan")
    [answer] = await store.claim(owner, parent.names, {"review": {"3"}})
    assert not isinstance(answer, str)
    await write_one(store, owner, write(answer.run, release=completed()))
    await sweep(store)
    for name in ("ready", "put", "due", "untold", "expiring", "dead"):
        await ask(redis_server, f"DEL agentkit:{{hints}}:{name}")
    await ask(redis_server, f"DEL agentkit:{{w:{lost_owner}}} agentkit:{{w:{lost_owner}}}:claims agentkit:{{w:{owner}}}:claims")
    await sweep(store)
    swept = await sweep(store)
    assert sorted(run_ids(swept.tickets)) == ["orphan", "ready"]
    assert list(swept.untold) == parent.names
    assert swept.next_timer_s == 5.0
    assert [freed.run_id for freed in (await reap(store, owner)).taken_over] == ["running"]
    await store.aclose()


async def test_a_timer_that_was_set_by_nobody_hurries_nobody_and_leaves_its_list(redis_url: str, redis_server: Redis) -> None:
    clock = FakeClock()
    store = from_url(redis_url, clock=clock)
    await store.open()
    worker_id, run = await start(store, "run-1")
    await store.signal("run-1", "m", "topic", b"")
    stale = write(run, [entry(1)], release=parked(run, wake_at=clock.time() - 1.0))
    assert (await write_one(store, worker_id, stale)).verdict == "moved"
    swept = await sweep(store)
    assert (swept.next_timer_s, swept.more, list(swept.tickets)) == (None, False, [])
    clock.jump(120.0)
    await sweep(store)
    assert await ask(redis_server, "ZCARD agentkit:{hints}:due") == ":0"
    await store.aclose()


async def test_an_id_that_is_no_text_is_refused(store: RedisRuns) -> None:
    with pytest.raises(InvalidKey):
        await store.get(["\ud800"])


async def test_an_option_that_this_server_cannot_offer_is_refused_at_once(redis_url: str) -> None:
    with pytest.raises(InvalidSetting, match=r"7\.2"):
        await from_url(f"{redis_url}?wait_aof=true").open()


async def test_a_store_that_is_not_open_says_so(redis_url: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"open\(\)"):
        await from_url(redis_url).get(["run-1"])


async def test_a_store_that_is_not_there_says_where_it_was_sought() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9"):
        await from_url("redis://user:secret@127.0.0.1:9/0").open()


def test_trio_is_told_that_the_driver_needs_asyncio() -> None:
    with pytest.raises(InvalidSetting, match="asyncio"):
        anyio.run(from_url("redis://127.0.0.1/0").open, backend="trio")


async def test_the_servers_clock_decides_by_default(store: RedisRuns, redis_server: Redis) -> None:
    assert store.clock is SYSTEM
    run = await create(store, "later", delay_s=0.2)
    assert run.status is RunStatus.PARKED
    with anyio.fail_after(BACK_S):
        while not (await sweep(store)).tickets:  # noqa: ASYNC110  the server's time passes
            await anyio.sleep(0.05)
