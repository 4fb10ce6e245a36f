"""The handlers of a function on AWS Lambda: each call continues runs, and leaves nothing at work behind it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from agentkit import Agent, Context, Runtime
from agentkit.errors import InvalidSetting, Misuse
from agentkit.ports.queue import Ticket
from agentkit.ports.records import RunStatus
from agentkit.runtime.settings import Settings
from agentkit_sqs import lambda_handler, tick_handler
from agentkit_sqs.messages import Message
from tests.core.doubling import Double, Parent

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"double@1", "parent@1", "slow@1", "steps@1", "waits@1"}
numbers = itertools.count()
begun = threading.Event()


class Waits(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        await ctx.sleep(1.5)
        return "woken"


class Steps(Agent[None, None]):
    """Never ends by itself, but is between two steps all the time."""

    async def run(self, ctx: Context, _: None, /) -> None:
        while True:
            begun.set()
            await ctx.step("step", anyio.sleep, 0.01)


class Slow(Agent[None, None]):
    """Has one body that does not end."""

    async def run(self, ctx: Context, _: None, /) -> None:
        await ctx.step("hang", self.hang)

    async def hang(self) -> None:
        begun.set()
        await anyio.sleep_forever()


AGENTS: list[type[Agent[Any, Any]]] = [Double, Parent, Slow, Steps, Waits]


class Time:
    """A context of Lambda."""

    def __init__(self, left_s: float = 60.0) -> None:
        self._left_s = left_s

    def get_remaining_time_in_millis(self) -> int:
        return round(1000 * self._left_s)


def made(queue: str, *, state: str = "memory://", lease_s: float = 10.0, worker: bool = False) -> Runtime:
    return Runtime(state=state, queue=queue, values=state, limits=state, agents=AGENTS, worker=worker, settings=Settings(lease_s=lease_s))


@contextmanager
def entered(runtime: Runtime) -> Generator[Runtime]:
    """Opened in a thread, as the first call does it, but closed at the end of the test."""
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(runtime):
        yield runtime


@pytest.fixture
def runtime(sqs_url: str) -> Iterator[Runtime]:
    begun.clear()
    with entered(made(sqs_url)) as runtime:
        yield runtime


def event(*tickets: Ticket | str) -> dict[str, Any]:
    """What SQS sends, with a message for each ticket."""
    bodies = [Message(ticket).write() if isinstance(ticket, Ticket) else ticket for ticket in tickets]
    return {"Records": [{"messageId": f"m{next(numbers)}", "body": body, "attributes": {}} for body in bodies]}


def submitted(runtime: Runtime, agent: type[Agent[Any, Any]], value: object = None, run_id: str = "r") -> Ticket:
    """A run, and its ticket, taken from the queue."""
    runtime.sync(runtime.submit, agent, value, run_id=run_id)
    return leased(runtime)[run_id]


def leased(runtime: Runtime) -> dict[str, Ticket]:
    """Take what waits in the queue, as the trigger does; by run, for a sweep may have doubled a ticket."""

    async def take() -> dict[str, Ticket]:
        leases = await runtime.tickets.lease(10, wait_s=0, lease_s=60, kinds=KINDS)
        await runtime.tickets.finish(leases)
        return {lease.ticket.run_id: lease.ticket for lease in leases}

    return runtime.sync(take)


def failed(answer: Mapping[str, Any]) -> list[str]:
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


def status(runtime: Runtime, run_id: str = "r") -> RunStatus:
    (row,) = runtime.sync(runtime.store.get, [run_id])
    assert row is not None
    return row.status


def test_each_message_of_a_batch_goes_on_with_its_run(runtime: Runtime) -> None:
    tickets = [submitted(runtime, Double, n, f"r{n}") for n in range(5)]
    assert lambda_handler(runtime)(event(*tickets), Time()) == {"batchItemFailures": []}
    assert [runtime.sync(runtime.handle(f"r{n}").result) for n in range(5)] == [0, 2, 4, 6, 8]


def test_a_run_that_parks_is_done_with_until_a_tick_rings_its_timer(runtime: Runtime) -> None:
    handler, tick = lambda_handler(runtime), tick_handler(runtime)
    assert failed(handler(event(submitted(runtime, Waits)), Time())) == []
    assert status(runtime) == RunStatus.PARKED
    runtime.sync(anyio.sleep, 1.6)
    tick({}, Time())  # or the sweeper of this process, which is awake as well
    assert failed(handler(event(leased(runtime)["r"]), Time())) == []
    assert runtime.sync(runtime.handle("r").result) == "woken"


def test_a_child_goes_to_the_queue_and_its_parent_holds_no_call(runtime: Runtime) -> None:
    handler = lambda_handler(runtime)
    assert failed(handler(event(submitted(runtime, Parent, 21)), Time())) == []
    assert status(runtime) == RunStatus.PARKED
    (child,) = (ticket for run_id, ticket in leased(runtime).items() if run_id != "r")
    assert failed(handler(event(child), Time())) == []
    assert failed(handler(event(leased(runtime)["r"]), Time())) == []
    assert runtime.sync(runtime.handle("r").result) == 42


@pytest.mark.parametrize("agent", [Steps, Slow])
def test_a_run_that_is_not_done_in_time_is_released_with_a_new_ticket_and_its_message_is_done_with(
    runtime: Runtime, agent: type[Agent[None, None]]
) -> None:
    ticket = submitted(runtime, agent)
    assert failed(lambda_handler(runtime, margin_s=1.0)(event(ticket), Time(1.5))) == []
    assert begun.is_set()
    assert status(runtime) == RunStatus.READY
    assert runtime.engine.active == {}
    assert leased(runtime).keys() == {"r"}


def test_the_ticket_of_a_run_that_ended_is_unknown_or_is_doubled_is_done_with(runtime: Runtime) -> None:
    ticket = submitted(runtime, Double, 1)
    answer = lambda_handler(runtime)(event(ticket, ticket, Ticket("nobody", "double", "1")), Time())
    assert failed(answer) == []
    assert failed(lambda_handler(runtime)(event(ticket), Time())) == []
    assert runtime.sync(runtime.handle("r").result) == 2


def test_only_what_cannot_be_done_here_is_reported_as_failed(runtime: Runtime) -> None:
    batch = event("no ticket at all", submitted(runtime, Double, 4), Ticket("r2", "double", "2"), '{"run_id": 7}')
    answer = lambda_handler(runtime)(batch, Time())
    assert failed(answer) == [batch["Records"][n]["messageId"] for n in (0, 2, 3)]
    assert runtime.sync(runtime.handle("r").result) == 8


def test_without_time_nothing_is_begun_and_all_is_reported_as_failed(runtime: Runtime) -> None:
    batch = event(submitted(runtime, Slow))
    assert failed(lambda_handler(runtime, margin_s=10)(batch, Time(9))) == [batch["Records"][0]["messageId"]]
    assert not begun.is_set()


def test_the_runtime_is_opened_once_and_warm_calls_use_it_again(runtime: Runtime) -> None:
    handler = lambda_handler(runtime)
    handler(event(submitted(runtime, Double, 1, "r1")), Time())
    worker = runtime.engine.worker_id
    handler(event(submitted(runtime, Double, 1, "r2")), Time())
    assert runtime.engine.worker_id == worker


def test_a_process_that_others_took_for_dead_goes_on_with_its_next_call(runtime: Runtime) -> None:
    handler = lambda_handler(runtime)
    ticket = submitted(runtime, Double, 4)
    dead = runtime.engine.worker_id
    runtime.sync(runtime.store.retire, dead)
    assert failed(handler(event(ticket), Time())) == []
    assert runtime.sync(runtime.handle("r").result) == 8
    assert runtime.engine.worker_id != dead


def test_a_tick_stays_until_it_has_seen_who_is_dead(sqs_url: str) -> None:
    with entered(made(sqs_url, lease_s=0.6)) as runtime:

        async def die() -> None:
            await runtime.store.register("silent", "", "elsewhere")
            await runtime.submit(Double, 1, run_id="r")
            await runtime.store.claim("silent", ["r"], {"double": frozenset("1")})

        runtime.sync(die)
        assert leased(runtime).keys() == {"r"}
        tick_handler(runtime)({}, Time())
        assert leased(runtime).keys() == {"r"}
        assert "silent" not in workers(runtime)


def test_a_tick_that_has_nothing_to_do_answers_with_a_zero(runtime: Runtime) -> None:
    assert tick_handler(runtime)({}, Time()) == {"tickets": 0}


def test_a_store_that_is_away_fails_the_first_call_and_not_those_after_it(sqs_url: str) -> None:
    away = True

    class Shy(Runtime):
        async def __aenter__(self) -> Self:
            if away:
                raise ConnectionError("no store")
            return await super().__aenter__()

    runtime = Shy(state="memory://", queue=sqs_url, values="memory://", limits="memory://", agents=AGENTS)
    handler = lambda_handler(runtime)
    unknown = event(Ticket("nobody", "double", "1"))
    with pytest.raises(ConnectionError):
        handler(unknown, Time())
    away = False
    assert failed(handler(unknown, Time())) == []
    runtime.sync(runtime.drain, grace_s=1.0)


def test_a_runtime_of_another_queue_or_without_a_margin_is_refused_before_any_call(sqs_url: str) -> None:
    with pytest.raises(InvalidSetting, match="queue='sqs://REGION/PREFIX'"):
        lambda_handler(Runtime(agents=AGENTS))
    with pytest.raises(InvalidSetting, match="margin_s"):
        lambda_handler(Runtime(queue=sqs_url, agents=AGENTS), margin_s=0)


def test_a_worker_is_no_function(sqs_url: str) -> None:
    with entered(made(sqs_url, worker=True)) as runtime, pytest.raises(Misuse, match="worker=False"):
        lambda_handler(runtime)(event(Ticket("nobody", "double", "1")), Time())


CHILD = """
import json, sys
from tests.adapters.test_sqs_handlers import Time, made
from agentkit_sqs import lambda_handler

state, queue, lease_s = sys.argv[1:]
handler = lambda_handler(made(queue, state=state, lease_s=float(lease_s)))
for line in sys.stdin:
    print(json.dumps(handler(json.loads(line), Time())), flush=True)
"""


@pytest.mark.timeout(120)
def test_a_process_frozen_for_longer_than_a_lease_goes_on_with_its_next_call(sqs_url: str, redis_url: str) -> None:
    lease_s = 3.0
    function = subprocess.Popen(
        [sys.executable, "-c", CHILD, redis_url, sqs_url, str(lease_s)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with function, entered(made(sqs_url, state=redis_url, lease_s=lease_s)) as runtime:
        try:
            assert called(function, submitted(runtime, Double, 1, "r1")) == {"batchItemFailures": []}
            (frozen,) = workers(runtime) - {runtime.engine.worker_id}
            os.kill(function.pid, signal.SIGSTOP)
            tick_handler(runtime)({}, Time())
            assert workers(runtime) == {runtime.engine.worker_id}
            os.kill(function.pid, signal.SIGCONT)
            assert called(function, submitted(runtime, Double, 2, "r2")) == {"batchItemFailures": []}
            assert runtime.sync(runtime.handle("r2").result) == 4
            assert frozen not in workers(runtime)
        finally:
            function.kill()


def workers(runtime: Runtime) -> set[str]:
    return {worker.worker_id for worker in runtime.sync(runtime.store.workers)}


def called(function: subprocess.Popen[str], ticket: Ticket) -> Any:
    assert function.stdin is not None
    assert function.stdout is not None
    function.stdin.write(json.dumps(event(ticket)) + "\n")
    function.stdin.flush()
    return json.loads(function.stdout.readline())
