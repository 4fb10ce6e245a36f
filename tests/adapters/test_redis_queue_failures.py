"""The queue on Redis when processes, connections and servers fail."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from agentkit.errors import StoreBusy, StoreError, StoreUnavailable
from agentkit.ports.queue import Depth, Lease
from agentkit.testing.queue_base import KIND, SERVED, runs, ticket, tickets
from agentkit_redis import Redis as Ports
from agentkit_redis.queue import FINISH, RedisQueue
from tests.adapters import redis_queue_child
from tests.adapters.opening import opened
from tests.servers.process import private
from tests.servers.proxy import Proxy
from tests.servers.redis import Redis, redis_cluster, watched_redis

GUIDE = Path(__file__).resolve().parents[2] / "docs/how-to/operate-redis.md"
LEASE_S = 2.0
PATIENCE_S = 50.0  # a sentinel whose first election fails waits before the next; only a hang takes longer


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RedisQueue]:
    async with opened(Ports(redis_url).queue) as queue:
        yield queue


async def ask(server: Redis, command: str) -> str:
    return await anyio.to_thread.run_sync(server.ask, command)


async def take(queue: RedisQueue, n: int = 1, *, wait_s: float = 0.0, lease_s: float = LEASE_S) -> list[Lease]:
    return await queue.lease(n, wait_s=wait_s, lease_s=lease_s, kinds=SERVED)


async def take_until(queue: RedisQueue, count: int) -> list[Lease]:
    """As a worker waits: again and again, here for at most 1.25 leases."""
    leases: list[Lease] = []
    with anyio.move_on_after(1.25 * LEASE_S):
        while len(leases) < count:
            leases += await take(queue, count, wait_s=1.0, lease_s=100.0)
    return leases


@asynccontextmanager
async def child(act: str, url: str, number: int) -> AsyncGenerator[subprocess.Popen[bytes]]:
    """A worker's process, which has said its first line when it is handed out; it is killed at the end."""
    program = [sys.executable, str(Path(redis_queue_child.__file__)), act, url, str(number), str(LEASE_S)]
    process: subprocess.Popen[bytes] = await anyio.to_thread.run_sync(lambda: subprocess.Popen(program, stdout=subprocess.PIPE))
    try:
        yield process
    finally:
        process.kill()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.communicate)


async def said(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return (await anyio.to_thread.run_sync(process.stdout.readline)).decode().strip()


async def test_a_hundred_tickets_of_a_killed_worker_are_delivered_again_within_a_quarter_lease_more_on_a_silent_queue(
    queue: RedisQueue, redis_url: str
) -> None:
    sent = tickets(100)
    await queue.put(sent)
    async with child("hold", redis_url, 100) as worker:
        assert await said(worker) == "held 100"
        worker.kill()
        again = await take_until(queue, 100)
    assert sorted(runs(again)) == sorted(each.run_id for each in sent)
    assert {lease.deliveries for lease in again} == {2}
    assert await queue.finish(again) == [True] * 100


async def test_a_ticket_that_kills_its_process_is_buried_after_max_deliveries(queue: RedisQueue, redis_url: str) -> None:
    await queue.put([ticket("poison")])
    for _ in range(3):
        async with child("die", redis_url, 2) as worker:
            code = await anyio.to_thread.run_sync(worker.wait)
        if code == 0:
            break
    [letter] = await queue.dead()
    assert (letter.ticket, letter.reason, letter.deliveries) == (ticket("poison"), "delivered 2 times without an answer", 3)
    assert (await queue.depth())[KIND][:4] == (0, 0, 0, 1)


async def test_a_task_longer_than_its_lease_runs_once_while_it_is_renewed(queue: RedisQueue, redis_url: str) -> None:
    await queue.put([ticket(1)])
    leases = await take(queue, lease_s=0.6)
    others: list[Lease] = []

    async def wait_for_it() -> None:
        async with opened(Ports(redis_url).queue) as other:
            while True:
                others.extend(await take(other, wait_s=1.0))

    async with anyio.create_task_group() as group:
        group.start_soon(wait_for_it)
        for _ in range(9):
            await anyio.sleep(0.2)
            assert await queue.renew(leases, 0.6) == [True]
        group.cancel_scope.cancel()
    assert others == []
    assert await queue.finish(leases) == [True]


class Crowd:
    """Workers that go on whatever the store says, and what they saw."""

    def __init__(self) -> None:
        self.delivered: Counter[str] = Counter()
        self.finished: set[str] = set()
        self.twice: list[str] = []
        self.troubles = 0

    async def work(self, queue: RedisQueue) -> None:
        while True:
            try:
                for lease in await take(queue, 10, wait_s=0.5):
                    self._note(lease)
                    await anyio.sleep(0.01)
                    if await queue.finish([lease]) == [True]:
                        self.finished.add(lease.ticket.run_id)
            except StoreError:
                self.troubles += 1
                await anyio.sleep(0.05)

    def _note(self, lease: Lease) -> None:
        self.delivered[lease.ticket.run_id] += 1
        if lease.ticket.run_id in self.finished:
            self.twice.append(lease.ticket.run_id)


async def is_done(queue: RedisQueue) -> bool:
    try:
        return all(depth[:3] == (0, 0, 0) for depth in (await queue.depth()).values())
    except StoreError:
        return False


async def until(look: Callable[[], bool]) -> None:
    while not look():  # noqa: ASYNC110  it is other tasks' and processes' doing
        await anyio.sleep(0.02)


async def through(queue: RedisQueue, trouble: Callable[[], object]) -> Crowd:
    """Let two workers work while trouble comes in the middle, until nothing is left."""
    crowd = Crowd()
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(crowd.work, queue)
            await until(lambda: len(crowd.finished) >= 30)
            await anyio.to_thread.run_sync(trouble)
            await until(lambda: crowd.troubles > 0)
            while not await is_done(queue):  # noqa: ASYNC110  it is the server that knows
                await anyio.sleep(0.05)
            group.cancel_scope.cancel()
    return crowd


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_no_worker_ends_and_nothing_is_lost_or_done_again_when_the_server_is_started_anew(how: str) -> None:
    async with private(Redis, appendonly="yes", appendfsync="always") as server, opened(Ports(server.url).queue) as queue:

        def restart() -> None:
            {"stop": server.stop, "kill": server.kill}[how]()
            server.start()

        sent = tickets(150)
        await queue.put(sent)
        crowd = await through(queue, restart)
    assert set(crowd.delivered) == {each.run_id for each in sent}
    assert crowd.twice == []


async def test_a_server_that_lost_everything_is_a_working_empty_queue(queue: RedisQueue, redis_server: Redis) -> None:
    await queue.put(tickets(3))
    held = await take(queue)
    await ask(redis_server, "FLUSHALL")
    assert await queue.finish(held) == [False]
    assert await take(queue) == []
    await queue.put([ticket("new")])
    assert runs(await take(queue)) == ["run-new"]


async def test_an_answer_from_before_the_server_lost_everything_takes_no_later_ticket_along(queue: RedisQueue, redis_server: Redis) -> None:
    await queue.put([ticket("old")])
    old = await take(queue)
    await ask(redis_server, "FLUSHALL")
    await queue.put([ticket("new")])
    new = await take(queue)
    assert [lease.attempt for lease in new] == [lease.attempt for lease in old], "the test needs a number given twice"
    assert await queue.finish(old) == [False]
    assert await queue.finish(new) == [True]


async def test_it_goes_on_when_the_server_forgets_its_scripts(queue: RedisQueue, redis_server: Redis) -> None:
    await ask(redis_server, "SCRIPT FLUSH")
    await queue.put([ticket(1)])
    await ask(redis_server, "SCRIPT FLUSH")
    leases = await take(queue)
    await ask(redis_server, "SCRIPT FLUSH")
    assert await queue.finish(leases) == [True]


async def test_a_waiting_lease_is_served_although_the_server_forgot_its_scripts(queue: RedisQueue, redis_server: Redis) -> None:
    got: list[Lease] = []

    async def wait() -> None:
        got.extend(await take(queue, wait_s=PATIENCE_S, lease_s=4 * PATIENCE_S))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        while "blocked_clients:1" not in await ask(redis_server, "INFO clients"):  # noqa: ASYNC110
            await anyio.sleep(0.01)
        await ask(redis_server, "SCRIPT FLUSH")
        await queue.put([ticket(1)])
    assert runs(got) == ["run-1"]


async def test_a_server_without_memory_takes_no_tickets_and_lets_those_it_has_be_worked_off(queue: RedisQueue, redis_server: Redis) -> None:
    await queue.put([*tickets(6), ticket("keyed", key="k")])
    buried = await take(queue)
    await queue.bury(buried, "before")
    held = await take(queue, 3)
    await ask(redis_server, "CONFIG SET maxmemory 1")
    try:
        with pytest.raises(StoreBusy, match="memory is full"):
            await queue.put(tickets(2, tenant="late"))
        assert (await queue.depth())[KIND][:4] == (3, 0, 3, 1)
        assert await queue.renew(held, LEASE_S) == [True] * 3
        assert await queue.give_back(held[:1]) == [True]
        assert await queue.retry(held[1:2], 0.0) == [True]
        assert await queue.bury(held[2:], "poison") == [True]
        assert len(await queue.redrive()) == 2
        rest = await take(queue, 10)
        assert len(rest) == 7
        assert await queue.finish(rest) == [True] * 7
        assert (await queue.depth())[KIND] == Depth()
    finally:
        await ask(redis_server, "CONFIG SET maxmemory 0")


async def test_a_finish_whose_answer_was_lost_is_done_and_its_repetition_says_so(redis_server: Redis, redis_url: str) -> None:
    with Proxy(redis_server.port) as proxy:
        async with opened(Ports(redis_url.replace(str(redis_server.port), str(proxy.port))).queue) as queue:
            await queue.put(tickets(2))
            leases = await take(queue, 2)
            cut = proxy.cut_after(FINISH.sha.encode())
            with pytest.raises(StoreUnavailable):
                await queue.finish(leases[:1])
            assert cut.is_set()
            proxy.heal()
            assert await queue.finish(leases) == [False, True]
            assert (await queue.depth())[KIND] == Depth()


async def test_a_finish_that_never_arrived_can_be_repeated(redis_server: Redis, redis_url: str) -> None:
    with Proxy(redis_server.port) as proxy:
        async with opened(Ports(redis_url.replace(str(redis_server.port), str(proxy.port))).queue) as queue:
            await queue.put([ticket(1)])
            leases = await take(queue)
            proxy.cut_before(FINISH.sha.encode())
            with pytest.raises(StoreUnavailable):
                await queue.finish(leases)
            proxy.heal()
            assert await queue.finish(leases) == [True]


async def test_an_acknowledgement_by_others_neither_finishes_nor_loses_a_ticket(queue: RedisQueue, redis_server: Redis) -> None:
    await queue.put(tickets(2))
    held = await take(queue, 2, lease_s=0.3)
    for number in (1, 2):
        assert await ask(redis_server, f"XACK agentkit:{{queue}}:s1 workers {10_000_000_000_000 + number}-0") == ":1"
    assert await queue.finish(held[:1]) == [True]
    assert runs(await take_until(queue, 1)) == [held[1].ticket.run_id]


async def test_a_ticket_that_others_took_out_of_its_stream_stops_nobody(queue: RedisQueue, redis_server: Redis) -> None:
    await queue.put(tickets(3))
    assert await ask(redis_server, f"XDEL agentkit:{{queue}}:s1 {10_000_000_000_000 + 1}-0") == ":1"
    assert len(await take(queue, 3)) == 2
    assert await take(queue, 3) == []


async def test_the_streams_are_as_long_as_there_is_work_queued_and_in_flight(queue: RedisQueue, redis_server: Redis) -> None:
    async def length() -> int:
        return sum([int((await ask(redis_server, f"XLEN agentkit:{{queue}}:s{priority}"))[1:]) for priority in range(3)])

    await queue.put(tickets(4) + tickets(3, priority=2))
    await queue.put([ticket("later")], delay_s=60.0)
    assert await length() == 7
    held = await take(queue, 5)
    assert await length() == 7
    await queue.finish(held[:2])
    await queue.give_back(held[2:3])
    assert await length() == 5
    await queue.bury(held[3:], "poison")
    assert await length() == 3
    await queue.cancel([each.run_id for each in tickets(4) + tickets(3, priority=2)])
    assert await length() == 0


async def calls(server: Redis, name: str) -> int:
    """How often the server has done a command."""
    lines = (await ask(server, "INFO commandstats")).splitlines()
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines if line.startswith(f"cmdstat_{name}:"))


async def test_a_waiting_lease_asks_a_silent_server_a_few_times_in_a_lease(queue: RedisQueue, redis_server: Redis) -> None:
    before = await calls(redis_server, "evalsha")
    assert await take(queue, wait_s=1.2, lease_s=1.2) == []
    assert await calls(redis_server, "evalsha") - before <= 6


async def test_puts_and_finishes_of_concurrent_tasks_share_round_trips(queue: RedisQueue, redis_server: Redis) -> None:
    before = await calls(redis_server, "evalsha")
    async with anyio.create_task_group() as group:
        for each in tickets(200):
            group.start_soon(queue.put, [each])
    leases = await take(queue, 200)
    async with anyio.create_task_group() as group:
        for lease in leases:
            group.start_soon(queue.finish, [lease])
    assert await calls(redis_server, "evalsha") - before <= 10
    assert (await queue.depth())[KIND] == Depth()


async def test_a_caller_that_is_cancelled_while_others_wait_stops_nobody(queue: RedisQueue) -> None:
    for cancelled in range(4):
        async with anyio.create_task_group() as group:
            scopes = [anyio.CancelScope() for _ in range(4)]

            async def put(scope: anyio.CancelScope, name: str) -> None:
                with scope:
                    await queue.put([ticket(name)])

            for number, scope in enumerate(scopes):
                group.start_soon(put, scope, f"{cancelled}-{number}")
            await anyio.lowlevel.checkpoint()
            scopes[cancelled].cancel()
    found = runs(await take(queue, 100))
    assert {f"run-{round_}-{number}" for round_ in range(4) for number in range(4) if number != round_} <= set(found)


async def test_the_names_of_workers_that_are_gone_are_forgotten_and_those_who_hold_something_stay(
    queue: RedisQueue, redis_server: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.put(tickets(2))
    async with opened(Ports(redis_url.replace("/0", "/0?timeout_s=4")).queue) as gone:
        await gone.finish(await take(gone))
    held = await take(queue)
    assert await consumers(redis_server) == 2
    monkeypatch.setattr("agentkit_redis.queue.CONSUMER_KEPT_S", 0.0)
    async with opened(Ports(redis_url).queue):
        assert await consumers(redis_server) == 1
    assert await queue.finish(held) == [True]


async def consumers(server: Redis) -> int:
    """How many consumers the group has."""
    return int((await ask(server, "XINFO CONSUMERS agentkit:{queue}:s1 workers"))[1:])


async def test_the_rights_that_the_guide_lists_are_enough_for_queue_values_and_limits(redis_server: Redis) -> None:
    [rule] = re.findall(r"^ACL SETUSER agentkit (.*)$", GUIDE.read_text(), re.MULTILINE)
    await ask(redis_server, f"ACL SETUSER agentkit {rule.replace('PASSWORD', 'right')}")
    try:
        url = f"redis://agentkit:right@127.0.0.1:{redis_server.port}/0"
        async with opened(Ports(url).queue) as queue:
            await everything(queue, url)
    finally:
        await ask(redis_server, "ACL DELUSER agentkit")


async def everything(queue: RedisQueue, url: str) -> None:
    """Call each verb."""
    redis = Ports(url)
    await redis.values.open()
    await redis.limits.open()
    await queue.put([ticket(1), ticket(2, key="k"), ticket(3)], delay_s=0.001)
    leases = await take_until(queue, 3)
    assert await queue.renew(leases, LEASE_S) == [True] * 3
    assert await queue.give_back(leases[:1]) == [True]
    assert await queue.retry(leases[1:2], 60.0) == [True]
    assert await queue.bury(leases[2:], "poison") == [True]
    assert len(await queue.dead()) == len(await queue.redrive()) == 1
    assert await queue.cancel([each.ticket.run_id for each in leases]) == 3
    assert (await queue.depth())[KIND] == Depth()
    await redis.values.put("k", b"v", ttl_s=60.0)
    assert [found.key for found in await redis.values.scan("")] == list(await redis.values.get(["k"])) == ["k"]
    assert await redis.values.delete("k")
    assert (await redis.limits.acquire("gpu", "a", permits=1, lease_s=LEASE_S)).granted
    assert await redis.limits.renew("gpu", ["a"], LEASE_S) == [await redis.limits.release("gpu", "a")]
    for rate_per_s in (0.0, 1.0):
        assert (await redis.limits.reserve("rpm", f"a {rate_per_s}", 1.0, rate_per_s=rate_per_s, burst=9.0)).granted
        await redis.limits.settle("rpm", f"a {rate_per_s}", 0.5)
    await redis.limits.aclose()
    await redis.values.aclose()


async def test_the_queue_works_on_a_cluster_whose_slots_lie_on_three_servers() -> None:
    async with redis_cluster() as nodes, opened(Ports(f"redis+cluster://127.0.0.1:{nodes[0].port}").queue) as queue:
        got: list[Lease] = []

        async def wait() -> None:
            got.extend(await take(queue, 10, wait_s=PATIENCE_S, lease_s=4 * PATIENCE_S))

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.sleep(0.1)
                await queue.put([ticket(1, key="a"), ticket(2, key="a"), ticket(3, tenant="b")])
        assert sorted(runs(got)) == ["run-1", "run-3"]
        assert await queue.renew(got, LEASE_S) == [True, True]
        assert await queue.give_back(got[:1]) == [True]
        assert await queue.bury(got[1:], "poison") == [True]
        assert len(await queue.redrive()) == 1
        assert await queue.cancel(["run-2"]) == 1
        assert (await queue.depth())[KIND][:4] == (2, 0, 0, 0)


async def test_the_queue_goes_on_with_the_replica_after_a_failover() -> None:
    async with watched_redis() as watched, opened(Ports(f"redis+sentinel://127.0.0.1:{watched.sentinel.port}/main").queue) as queue:
        await queue.put(tickets(100))
        await ask(watched.primary, "WAIT 1 5000")
        crowd = await through(queue, watched.primary.kill)
    assert set(crowd.delivered) == {each.run_id for each in tickets(100)}
