"""SQS that is away, slow, forgetful or strict, and workers that die."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from agentkit import Agent, Context, Runtime
from agentkit.errors import InvalidLimit, InvalidSetting, StoreUnavailable
from agentkit.ports.queue import Lease, Ticket
from agentkit.runtime.settings import Settings
from agentkit_sqs import SqsQueue, SqsSettings
from agentkit_sqs.faults import NoSuchQueue
from agentkit_sqs.messages import Message
from tests.adapters.opening import opened
from tests.servers.process import private
from tests.servers.proxy import Proxy
from tests.servers.sqs import REGION, Sqs

ROOT = Path(__file__).resolve().parents[2]
KIND = "reviewer@3"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The driver runs on asyncio alone."""
    return "asyncio"


class Double(Agent[int, int]):
    async def run(self, ctx: Context, n: int) -> int:
        return await ctx.step("double", _double, n)


def _double(n: int) -> int:
    return 2 * n


def ticket(number: int) -> Ticket:
    return Ticket(f"run-{number}", "reviewer", "3")


def client(url: str) -> SqsQueue:
    return SqsQueue(SqsSettings.from_url(url))


@pytest.fixture
async def queue(sqs_url: str) -> AsyncIterator[SqsQueue]:
    async with opened(client(sqs_url)) as queue:
        yield queue


async def take(queue: SqsQueue, n: int = 10, *, wait_s: float = 0.0, lease_s: float = 30.0) -> list[Lease]:
    return await queue.lease(n, wait_s=wait_s, lease_s=lease_s, kinds={KIND})


async def test_a_worker_serves_what_was_submitted(sqs_url: str) -> None:
    async with Runtime(state="memory://", queue=sqs_url, agents=[Double], worker=True, values="memory://", limits="memory://") as runtime:
        handles = await runtime.submit_many(Double, {f"r{n}": n for n in range(15)})
        with anyio.fail_after(30):
            assert [await handle.result() for handle in handles] == [2 * n for n in range(15)]


@pytest.mark.timeout(120)
async def test_a_server_that_forgets_all_in_a_restart_loses_no_run(sqs_url: str) -> None:
    """SQS itself keeps what it acknowledged; this server does not, and so shows that the tickets are hints."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(private(Sqs))
        url = server.queue_url("agents", "look_s=0")
        settings = Settings(lease_s=1.0)
        runtime = Runtime(state="memory://", queue=url, values="memory://", limits="memory://", agents=[Double], settings=settings)
        await stack.enter_async_context(runtime)
        handle = await runtime.submit(Double, 4)
        await anyio.to_thread.run_sync(server.kill)
        with pytest.raises(StoreUnavailable):
            await runtime.tickets.depth()
        await anyio.to_thread.run_sync(server.start)
        worker = Runtime(
            state=runtime.store, queue=url, values="memory://", limits="memory://", agents=[Double], worker=True, settings=settings
        )
        await stack.enter_async_context(worker)
        with anyio.fail_after(60):
            assert await handle.result() == 8


async def test_an_answer_that_is_lost_is_given_again_and_counts_once(sqs_server: Sqs, sqs_url: str) -> None:
    with Proxy(sqs_server.port) as proxy:
        async with opened(client(f"sqs://{REGION}/agents?look_s=0&endpoint_url=http://127.0.0.1:{proxy.port}")) as queue:
            await queue.put([ticket(1)])
            leases = await take(queue)
            lost = proxy.cut_after(b"AmazonSQS.DeleteMessageBatch")
            with pytest.raises(StoreUnavailable):
                await queue.finish(leases)
            assert lost.is_set()
            proxy.heal()
            assert await queue.finish(leases) == [True]
            assert await queue.finish(leases) == [False]
            assert await take(queue) == []


async def test_a_put_whose_answer_is_lost_may_have_happened_and_is_safe_to_repeat(sqs_server: Sqs, sqs_url: str) -> None:
    with Proxy(sqs_server.port) as proxy:
        async with opened(client(f"sqs://{REGION}/agents?look_s=0&endpoint_url=http://127.0.0.1:{proxy.port}")) as queue:
            await queue.put([ticket(0)])
            proxy.cut_after(b"AmazonSQS.SendMessageBatch")
            with pytest.raises(StoreUnavailable):
                await queue.put([ticket(1)])
            proxy.heal()
            await queue.put([ticket(1)])
            assert {lease.ticket.run_id for lease in await take(queue)} == {"run-0", "run-1"}


async def test_a_server_that_does_not_answer_is_given_up_after_the_timeout(sqs_server: Sqs, sqs_url: str) -> None:
    with Proxy(sqs_server.port) as proxy:
        async with opened(client(f"sqs://{REGION}/agents?timeout_s=0.3&endpoint_url=http://127.0.0.1:{proxy.port}")) as queue:
            proxy.blackhole()
            with pytest.raises(StoreUnavailable, match=r"no answer within 0\.3 s"):
                await queue.depth()
            proxy.heal()


CHILD = """
import sys, anyio
from agentkit_sqs import SqsQueue, SqsSettings

async def main():
    queue = SqsQueue(SqsSettings.from_url(sys.argv[1]))
    await queue.open()
    (lease,) = await queue.lease(10, wait_s=5, lease_s=2.0, kinds={"reviewer@3"})
    print(lease.deliveries, flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


async def test_the_ticket_of_a_killed_worker_comes_back_when_its_visibility_timeout_is_over(queue: SqsQueue, sqs_url: str) -> None:
    await queue.put([ticket(1)])
    async with await anyio.open_process([sys.executable, "-c", CHILD, sqs_url], cwd=ROOT) as worker:
        assert worker.stdout is not None
        assert (await worker.stdout.receive())[:1] == b"1"
        worker.kill()
    assert await take(queue) == []
    (again,) = await take(queue, wait_s=10)
    assert (again.ticket, again.deliveries) == (ticket(1), 2)


async def test_what_a_cancelled_request_was_given_comes_back_with_its_lease(queue: SqsQueue) -> None:
    with anyio.move_on_after(0.2):
        await take(queue, wait_s=10, lease_s=1.0)
    await queue.put([ticket(1)])
    found: list[Lease] = []
    with anyio.fail_after(20):
        while not found:
            found = await take(queue, wait_s=1)
    assert found[0].ticket == ticket(1)


async def test_a_lease_that_waits_for_several_agents_gets_the_first_ticket_of_any(queue: SqsQueue) -> None:
    kinds = {KIND, "reviewer@4", "writer@1"}
    found: list[Lease] = []
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                while not found:
                    found.extend(await queue.lease(10, wait_s=2, lease_s=30, kinds=kinds))

            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await queue.put([Ticket("r", "writer", "1")])
    assert [lease.ticket.served_by for lease in found] == ["writer@1"]


async def test_a_message_that_is_no_ticket_stays_until_sqs_gives_it_up_and_hides_nobody_else(queue: SqsQueue) -> None:
    await queue.put([ticket(1)])
    await queue._client.each("agents__reviewer__3", "send_message_batch", [{"MessageBody": "hello"}])  # pyright: ignore[reportPrivateUsage]
    assert [lease.ticket for lease in await take(queue)] == [ticket(1)]
    assert (await queue.depth())[KIND].leased == 2


async def test_a_message_of_sqs_own_redrive_policy_is_a_dead_letter_like_any_other(queue: SqsQueue) -> None:
    await queue.put([ticket(1)])
    body = Message(ticket(2)).write()
    await queue._client.each("agents__reviewer__3__dead", "send_message_batch", [{"MessageBody": body}])  # pyright: ignore[reportPrivateUsage]
    (letter,) = await queue.dead(kind="reviewer")
    assert letter.ticket == ticket(2)
    assert "redrive policy" in letter.reason
    assert await queue.redrive(kind="reviewer") == ["run-2"]
    assert {lease.ticket.run_id for lease in await take(queue)} == {"run-1", "run-2"}


async def test_a_dead_letter_that_is_no_ticket_is_shown_and_stays_where_it_is(queue: SqsQueue) -> None:
    await queue.put([ticket(1)])
    bodies = [{"MessageBody": body} for body in ("hello", Message(ticket(2)).write())]
    await queue._client.each("agents__reviewer__3__dead", "send_message_batch", bodies)  # pyright: ignore[reportPrivateUsage]
    assert await queue.redrive() == ["run-2"]
    (letter,) = await queue.dead()
    assert "hello" in letter.reason
    assert {lease.ticket.run_id for lease in await take(queue)} == {"run-1", "run-2"}


async def test_a_delay_over_what_sqs_holds_is_refused(queue: SqsQueue) -> None:
    with pytest.raises(InvalidLimit, match="900"):
        await queue.put([ticket(1)], delay_s=901)


async def test_a_missing_queue_that_may_not_be_made_is_named(sqs_url: str) -> None:
    async with opened(client(f"{sqs_url}&create=false")) as queue:
        with pytest.raises(NoSuchQueue, match=r"agents__reviewer__3'.*create=true"):
            await queue.put([ticket(1)])


async def test_a_queue_that_was_deleted_is_made_again_by_a_put_and_not_by_a_look(queue: SqsQueue, sqs_server: Sqs) -> None:
    await queue.put([ticket(1)])
    await anyio.to_thread.run_sync(sqs_server.reset)
    assert await queue.depth() == {}
    await queue.put([ticket(2)])
    assert [lease.ticket for lease in await take(queue)] == [ticket(2)]


async def test_without_credentials_it_does_not_open_and_says_what_to_set(
    sqs_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InvalidSetting, match="AWS_ACCESS_KEY_ID"):
        await client(sqs_url).open()


async def test_a_server_that_is_not_there_is_unavailable(sqs_url: str) -> None:
    with pytest.raises(StoreUnavailable):
        await client(f"sqs://{REGION}/agents?endpoint_url=http://127.0.0.1:1").open()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_is_refused_in_words(anyio_backend: str) -> None:
    with pytest.raises(InvalidSetting, match="needs asyncio and this is trio"):
        await client("sqs://eu-central-1/agents").open()
