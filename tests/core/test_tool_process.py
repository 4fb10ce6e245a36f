"""Tools in a process of their own: a cancelled one is really gone, a crash in it is one failed call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import Agent, Context, StepError
from agentkit.agents import process
from agentkit.agents.tool import Tool, tool
from agentkit.errors import EntryTooLarge, RunError, ToolDied
from agentkit.resilience.policy import Policy
from agentkit.testing import runtime
from tests.core import tool_functions as functions

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


async def test_it_runs_in_another_process_and_gives_its_answer_back() -> None:
    assert await functions.double(4, plus=1) == 9
    assert await functions.own_pid() != os.getpid()


async def test_each_call_has_a_process_of_its_own() -> None:
    assert await functions.own_pid() != await functions.own_pid()


class Calls(Agent[str, Any]):
    async def run(self, ctx: Context, name: str, /) -> Any:
        one: Tool[..., Any] = getattr(functions, name)
        return await one.perform(ctx, {"n": 4} if name == "double" else {"how": "signal"})


async def test_as_a_step_its_result_is_journalled_and_its_death_is_an_error_of_the_step() -> None:
    async with runtime(agents=[Calls]) as rt:
        assert await rt.run(Calls, "double") == 8
        with pytest.raises(StepError) as caught:
            await rt.run(Calls, "die")
    assert caught.value.kind == "ToolDied"
    assert caught.value.message == "tool 'die': its process ended without an answer (signal 9)"


async def test_what_it_raises_is_raised_here_with_its_type() -> None:
    with pytest.raises(ValueError, match="no luck") as caught:
        await functions.fail("luck")
    assert "tool_functions.py" in caught.value.__notes__[0]


async def test_an_exception_that_cannot_be_read_here_keeps_its_name_and_text() -> None:
    with pytest.raises(RunError) as caught:
        await functions.fail("picky")
    assert (caught.value.kind, caught.value.message) == ("Picky", "a and b")


async def test_an_exit_is_a_failure_and_no_exit_of_ours() -> None:
    with pytest.raises(RunError, match="SystemExit: 3"):
        await functions.fail("exit")


async def test_a_process_that_ends_without_an_answer_is_told_by_how_it_ended() -> None:
    with pytest.raises(ToolDied, match=r"\(signal 9\)"):
        await functions.die("signal")
    with pytest.raises(ToolDied, match=r"\(exit code 7\)"):
        await functions.die("exit")


async def test_an_answer_over_the_limit_does_not_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_BYTES", 10_000)
    assert len(await functions.big(9_000)) == 9_000
    with pytest.raises(EntryTooLarge, match="answer of the process of tool 'big'"):
        await functions.big(2_000_000)


async def test_what_it_prints_is_no_part_of_its_answer_and_it_has_no_input() -> None:
    assert await functions.talk() == ""


async def test_an_argument_that_cannot_travel_is_told_before_anything_starts() -> None:
    anything: Any = functions.double
    with pytest.raises(TypeError, match="tool 'double': an argument cannot go to another process"):
        await anything(lambda: None)


@pytest.mark.parametrize("with_child", [False, True])
async def test_a_cancelled_call_leaves_no_process_behind_nor_what_it_had_started(tmp_path: Path, with_child: bool) -> None:
    file, pids = tmp_path / "pids", list[int]()
    async with anyio.create_task_group() as group:
        group.start_soon(call_hang, str(file), with_child)
        pids = await pids_in(file)
        assert len(pids) == 1 + with_child
        assert all(alive(pid) for pid in pids)
        group.cancel_scope.cancel()
    await gone(pids)


async def call_hang(file: str, with_child: bool) -> None:
    await functions.hang(file, with_child=with_child)


async def call_lock_up(file: str) -> None:
    await functions.lock_up(file)


async def test_a_process_that_computes_without_a_pause_is_ended_too(tmp_path: Path) -> None:
    file, pids = tmp_path / "pid", list[int]()
    async with anyio.create_task_group() as group:
        group.start_soon(call_lock_up, str(file))
        pids = await pids_in(file)
        group.cancel_scope.cancel()
    await gone(pids)


async def test_a_call_may_be_cancelled_at_any_moment_of_its_start() -> None:
    before = children()
    for moment in range(12):
        with anyio.move_on_after(moment * 0.01):
            await functions.double(1)
    await gone(list(children() - before))


class Hangs(Agent[str, None]):
    async def run(self, ctx: Context, file: str, /) -> None:
        await functions.hang.perform(ctx, {"file": file})


async def test_a_run_that_is_cancelled_ends_the_process_of_its_tool(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    async with runtime(agents=[Hangs]) as rt:
        handle = await rt.submit(Hangs, str(file))
        pids = await pids_in(file)
        await handle.cancel()
        await gone(pids)
        await rt.settle()
        assert (await handle.info()).status == "cancelled"


limited = tool(name="limited", executor="process", policy=Policy(timeout_s=30))(functions.hang.fn)


class OutOfTime(Agent[str, None]):
    async def run(self, ctx: Context, file: str, /) -> None:
        await limited.perform(ctx, {"file": file})


async def test_a_time_limit_ends_the_process(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    async with runtime(agents=[OutOfTime]) as rt:
        handle = await rt.submit(OutOfTime, str(file))
        pids = await pids_in(file)
        rt.clock.jump(31)
        with pytest.raises(StepError, match="DeadlineExceeded"):
            await handle.result()
        await gone(pids)


PARENT = """
import sys, anyio
from tests.core import tool_functions
anyio.run(tool_functions.hang, sys.argv[1], backend=sys.argv[2])
"""


async def test_when_its_parent_is_killed_it_ends(tmp_path: Path, anyio_backend: str) -> None:
    file = tmp_path / "pids"
    command = [sys.executable, "-c", PARENT, str(file), anyio_backend]
    async with await anyio.open_process(command, stdout=subprocess.DEVNULL) as parent:
        pids = await pids_in(file)
        parent.send_signal(signal.SIGKILL)
        await parent.wait()
    await gone(pids)


MAIN = """
import anyio
from agentkit.agents.tool import tool
from pydantic import BaseModel

class Point(BaseModel):
    x: int

@tool(executor="process")
def moved(point: Point) -> Point:
    return Point(x=point.x + 1)

print("started")
if __name__ == "__main__":
    print(anyio.run(moved, Point(x=1)).x)
"""


async def test_a_function_of_the_main_program_can_be_called_and_the_program_is_not_started_again(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    done = await anyio.run_process([sys.executable, str(tmp_path / "main.py")])
    assert done.stdout.decode().split() == ["started", "2"]


async def pids_in(file: Path) -> list[int]:
    while not await anyio.Path(file).exists():  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.01)
    return [int(pid) for pid in (await anyio.Path(file).read_text()).split()]


async def gone(pids: list[int]) -> None:
    while any(alive(pid) for pid in pids):  # noqa: ASYNC110 - of other processes nobody tells us
        await anyio.sleep(0.01)


def alive(pid: int) -> bool:
    """A zombie is not: nothing of it runs, and whoever started it (init, once its parent is gone) has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children() -> set[int]:
    """Of this process, dead or alive."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found |= set(map(int, (task / "children").read_text().split()))
    return found
