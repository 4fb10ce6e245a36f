"""A process that is cut off between the steps of one call: what it began is finished by whoever comes next, once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from agentkit.errors import StoreUnavailable
from agentkit.ports.records import RunStatus
from agentkit.testing.clock import FakeClock
from agentkit.testing.runs_base import (
    SERVES,
    Family,
    claim,
    completed,
    crash,
    create,
    entry,
    family,
    get,
    reap,
    register,
    run_ids,
    start,
    statuses,
    sweep,
    write,
    write_one,
)
from agentkit_redis.connection import Call, Client
from agentkit_redis.runs import RedisRuns, from_url
from tests.adapters.opening import opened
from tests.servers.proxy import Proxy
from tests.servers.redis import Redis

MOST_STEPS = 9  # round trips of the longest call, and one more
cuts = pytest.mark.parametrize("after", [False, True], ids=["not arrived", "answer lost"])
steps = pytest.mark.parametrize("step", range(MOST_STEPS))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


@pytest.fixture(autouse=True, params=[False, True], ids=["one server", "as in a cluster"])
def phase_by_phase(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster each phase of a step is a round trip of its own; here they are made so on one server, where the proxy sees them all."""
    together = Client.phases

    async def one_by_one(self: Client, *phases: Sequence[Call]) -> list[list[Any]]:
        return [(await together(self, phase))[0] for phase in phases]

    if request.param:
        monkeypatch.setattr(Client, "phases", one_by_one)


@pytest.fixture
async def stores(redis_url: str, redis_server: Redis) -> AsyncGenerator[tuple[RedisRuns, RedisRuns, Proxy]]:
    """The one that is cut off, another one, and the proxy between the first and the server."""
    clock = FakeClock()
    with Proxy(redis_server.port) as proxy:
        async with (
            opened(from_url(f"redis://127.0.0.1:{proxy.port}/0", clock=clock)) as cut_off,
            opened(from_url(redis_url, clock=clock)) as other,
        ):
            yield cut_off, other, proxy


async def cut(proxy: Proxy, step: int, work: Callable[[], Awaitable[object]], *, after: bool) -> None:
    """Do it, and lose the connection at one of its round trips."""
    (proxy.cut_after if after else proxy.cut_before)(b"EVALSHA", skip=step)
    with suppress(StoreUnavailable):
        await work()
    proxy.heal()


async def told(store: RedisRuns) -> list[str]:
    """What a sweeping process does about ended children, until there is nothing left; whose tickets it got."""
    tickets: list[str] = []
    while untold := (await sweep(store)).untold:
        tickets += run_ids(await store.tell(untold))
    return tickets


@steps
@cuts
async def test_an_end_whose_telling_was_cut_off_is_counted_once(
    stores: tuple[RedisRuns, RedisRuns, Proxy], step: int, *, after: bool
) -> None:
    cut_off, other, proxy = stores
    parent = await family(other, 3, window=1)
    await parent.create_children()
    await parent.park_parent()
    for idx in range(3):
        [answer] = await other.claim(parent.worker_id, [parent.names[idx]], SERVES)
        assert not isinstance(answer, str)
        await write_one(other, parent.worker_id, write(answer.run, release=completed()))
        await cut(proxy, step, lambda: cut_off.tell(parent.names), after=after)
        await told(other)
        assert await parent.let_through() == list(range(min(3, idx + 2)))
        assert len(await other.inbox("parent")) == (idx == 2)
    run = await get(other, "parent")
    assert (run.status, run.wake) == (RunStatus.READY, 1)
    assert "parent" in run_ids((await sweep(other)).tickets)


@steps
@cuts
async def test_children_whose_creation_was_cut_off_are_created_by_its_repetition(
    stores: tuple[RedisRuns, RedisRuns, Proxy], step: int, *, after: bool
) -> None:
    cut_off, other, proxy = stores
    parent = await family(other, 5, window=2)
    await cut(proxy, step, Family(cut_off, parent.worker_id, parent.parent, parent.join).create_children, after=after)
    await parent.create_children()
    assert await parent.let_through() == [0, 1]
    assert sorted(run_ids((await sweep(other)).tickets)) == parent.names[:2]


@steps
@cuts
async def test_a_run_whose_claim_was_cut_off_goes_on_when_its_claimer_is_dead(
    stores: tuple[RedisRuns, RedisRuns, Proxy], step: int, *, after: bool
) -> None:
    cut_off, other, proxy = stores
    worker_id = await register(other)
    await create(other, "run-1")
    await cut(proxy, step, lambda: cut_off.claim(worker_id, ["run-1"], SERVES), after=after)
    claimed = (await get(other, "run-1")).status is RunStatus.RUNNING
    assert [freed.run_id for freed in (await reap(other, worker_id)).taken_over] == ["run-1"] * claimed
    assert run_ids((await sweep(other)).tickets) == ["run-1"]
    await claim(other, await register(other), "run-1")


@steps
@cuts
async def test_a_take_over_that_was_cut_off_is_finished_by_the_next(
    stores: tuple[RedisRuns, RedisRuns, Proxy], step: int, *, after: bool
) -> None:
    cut_off, other, proxy = stores
    worker_id = await register(other)
    names = ["run-1", "run-2"]
    for name in names:
        await start(other, name, worker_id)
    seen = (await sweep(other)).beats
    await cut(proxy, step, lambda: sweep(cut_off, seen), after=after)
    await sweep(other, {worker: beat for worker, beat in seen.items() if worker in (await sweep(other)).beats})
    assert [(run.status, run.crashes) for run in [await get(other, name) for name in names]] == [(RunStatus.READY, 1)] * 2
    assert sorted(run_ids((await sweep(other)).tickets)) == names


@steps
@cuts
async def test_a_cancel_of_children_that_was_cut_off_is_finished_by_its_repetition(
    stores: tuple[RedisRuns, RedisRuns, Proxy], step: int, *, after: bool
) -> None:
    cut_off, other, proxy = stores
    parent = await family(other, 4, window=2)
    await parent.create_children()
    await parent.park_parent()
    await cut(proxy, step, lambda: cut_off.cancel_children("parent", None, b"{}"), after=after)
    await other.cancel_children("parent", None, b"{}")
    await told(other)
    assert await statuses(other, parent.names) == [RunStatus.CANCELLED] * 4
    assert len(await other.inbox("parent")) == 1
    assert (await get(other, "parent")).status is RunStatus.READY


@steps
@cuts
async def test_a_revival_that_was_cut_off_leaves_the_run_buried_or_ready_with_a_ticket_to_put(
    stores: tuple[RedisRuns, RedisRuns, Proxy], step: int, *, after: bool
) -> None:
    cut_off, other, proxy = stores
    await create(other, "run-1")
    await crash(other, "run-1", max_crashes=1)
    await cut(proxy, step, lambda: cut_off.revive("run-1"), after=after)
    ready = (await get(other, "run-1")).status is RunStatus.READY
    assert run_ids((await sweep(other)).tickets) == ["run-1"] * ready
    assert (await other.revive("run-1") is None) is ready


@steps
@cuts
async def test_a_purge_that_was_cut_off_is_finished_by_the_next(
    stores: tuple[RedisRuns, RedisRuns, Proxy], step: int, *, after: bool
) -> None:
    cut_off, other, proxy = stores
    worker_id, root = await start(other, "root", keep_s=0.0)
    _, child = await start(other, "child", worker_id, parent_id="root", parent_key="child#0")
    for run in (child, root):
        await write_one(other, worker_id, write(run, [entry(1)], release=completed()))
    await cut(proxy, step, lambda: cut_off.purge(10), after=after)
    await other.purge(10)
    assert await other.get(["root", "child"]) == [None, None]
    assert await other.load("child") == []
