"""The end of a run: who is told of a failure, and what comes in the moment in which it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import pytest

from agentkit import Agent, Context, RunError
from agentkit.testing import runtime

ENDINGS = 50  # a turn of trio's loop takes its tasks in random order, so one run would meet the moment every other time


class Fails(Agent[None, None]):
    async def run(self, ctx: Context, _: None, /) -> None:
        raise LookupError("a fault in run()")


class Expects(Agent[None, str]):
    async def run(self, ctx: Context, _: None, /) -> str:
        try:
            await ctx.run("try", Fails, None)
        except RunError as error:
            return error.kind
        return "well"


class Ends(Agent[None, str]):
    """Calls the test in the last turn in which its own frames are there."""

    async def run(self, ctx: Context, _: None, /) -> str:
        ctx.get(Last).call(ctx.run_id)
        return "ended"


class Last:
    call: Callable[[str], object]


def faults(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """The tracebacks in the log, each with its level."""
    return [(record.levelno, repr(record.exc_info[1])) for record in caplog.records if record.exc_info]


async def test_a_fault_in_run_is_an_error_in_the_log_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with runtime(agents=[Fails]) as rt:
        with pytest.raises(RunError, match="a fault in run"):
            await (await rt.submit(Fails, None, run_id="r")).result()
    assert faults(caplog) == [(logging.ERROR, "LookupError('a fault in run()')")]
    assert "run r failed" in caplog.text


async def test_a_fault_of_a_child_is_a_warning_for_its_parent_may_have_counted_on_it(caplog: pytest.LogCaptureFixture) -> None:
    async with runtime(agents=[Expects, Fails]) as rt:
        assert await (await rt.submit(Expects, None)).result() == "LookupError"
    assert faults(caplog) == [(logging.WARNING, "LookupError('a fault in run()')")]


async def test_a_message_that_comes_in_the_turn_in_which_a_run_ends_hurts_nobody() -> None:
    last = Last()
    async with runtime(agents=[Ends], resources={Last: last}) as rt, anyio.create_task_group() as tasks:

        async def message(run_id: str) -> None:
            rt.engine.poke(run_id)

        last.call = lambda run_id: tasks.start_soon(message, run_id)
        for n in range(ENDINGS):
            assert await (await rt.submit(Ends, None, run_id=str(n))).result() == "ended"
