"""The program of a function on AWS Lambda does what it says."""

import importlib
import sys

import anyio.from_thread
import pytest

from agentkit_sqs import SqsQueue
from agentkit_sqs.messages import Message


class Time:
    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def test_a_trigger_goes_on_with_the_run_and_a_schedule_wakes_it(monkeypatch: pytest.MonkeyPatch, sqs_url: str) -> None:
    monkeypatch.setenv("AGENTKIT_QUEUE", sqs_url)
    for port in ("STATE", "VALUES", "LIMITS"):
        monkeypatch.setenv(f"AGENTKIT_{port}", "memory://")
    monkeypatch.delitem(sys.modules, "sqs_lambda", raising=False)
    program = importlib.import_module("sqs_lambda")
    runtime = program.runtime
    assert isinstance(runtime.tickets, SqsQueue)

    async def submit() -> str:
        await runtime.submit(program.Digest, "https://example.org", run_id="r")
        (lease, *_) = await runtime.tickets.lease(1, wait_s=1, lease_s=60, kinds={"digest@1"})
        await runtime.tickets.finish([lease])
        return Message(lease.ticket).write()

    async def waiting() -> str:
        return str((await runtime.handle("r").info()).status)

    with anyio.from_thread.start_blocking_portal() as portal, portal.wrap_async_context_manager(runtime):
        event = {"Records": [{"messageId": "m", "body": runtime.sync(submit)}]}
        assert program.handler(event, Time()) == {"batchItemFailures": []}
        assert runtime.sync(waiting) == "waiting"
        assert program.tick({}, Time()) == {"tickets": 0}
