"""What a run has spent outlives the process that spent it, and whoever goes on adds only what it spends itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import repeat
from pathlib import Path

import anyio

from agentkit import Agent, Context, StepContext
from agentkit.testing import ScriptedModel, runtime

ROOT = Path(__file__).resolve().parents[2]
DIES = "AGENTKIT_TEST_DIES"  # read by no setting: only the process that is to die has it


async def ask_and_die(step: StepContext) -> str:
    """Asks twice; in the process that is to die, only once."""
    await step.models.generate("default", "How is it?")
    if os.environ.pop(DIES, None):
        os.kill(os.getpid(), signal.SIGKILL)
    return (await step.models.generate("default", "How is it now?")).output


class Patient(Agent[None, str]):
    """Asks in a step that is durable, and then in one in which its process dies."""

    async def run(self, ctx: Context, input: None, /) -> str:
        await ctx.generate("How was it?")
        await ctx.durable()
        return await ctx.step("ask", ask_and_die)


async def serve(state: str) -> tuple[int, int]:
    """Work until the run has ended, or this process; returns what it has spent, and how many calls were made here."""
    model = ScriptedModel(repeat("It is well."))
    async with runtime(agents=[Patient], models={"default": model}, state=state) as rt:
        handle = await rt.submit(Patient, None, run_id="r")
        for worker in await rt.store.workers():
            if worker.worker_id != rt.engine.worker_id:
                await rt.store.retire(worker.worker_id)  # the killed one, without the wait for its lease
        await rt.sweep()
        with anyio.fail_after(30):
            await handle.result()
        return (await handle.info()).usage.output_tokens, len(model.requests)


def test_a_run_whose_process_is_killed_in_a_step_counts_each_call_of_that_step_once(tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/agents.db"
    program = f"import anyio; from tests.system.test_usage import serve; anyio.run(serve, {state!r})"
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {DIES: "1"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert anyio.run(serve, state) == (3 * 3, 2)  # three calls of three tokens; the killed process made two, and this one two
