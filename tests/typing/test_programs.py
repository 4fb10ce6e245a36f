"""Programs of users do what they say."""

from collections.abc import Mapping

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from branches import Buy, Offer
from gpu_embedding import Batch, Embed, Ingest, VectorDb
from wrap_langgraph import Question, Wrapped, outside_any_run

from agentkit.inmemory.inference import ScriptedInference
from agentkit.ports.inference import Array
from agentkit.testing import runtime

pytestmark = pytest.mark.anyio


async def test_a_wrapped_agent_of_another_framework_runs_as_one_durable_step() -> None:
    async with runtime(agents=[Wrapped]) as rt:
        answer = await rt.run(Wrapped, Question(text="Hello", user="ann"), run_id="r")
        assert answer.text == "You said: Hello"
        assert await rt.steps("r") == ["graph#1"]


async def test_the_same_policy_bounds_a_call_outside_of_any_run() -> None:
    state = await outside_any_run(Question(text="Hello", user="ann"))
    assert state["messages"][-1].content == "You said: Hello"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_branches_the_first_answer_and_clean_up(anyio_backend: str) -> None:
    async with runtime(agents=[Buy]) as rt:
        handle = await rt.submit(Buy, ["a", "b"], run_id="r")
        await rt.clock.advance(60)
        assert await handle.result() == Offer(vendor="a", cents=1)
        assert "on_end/release=1" in await rt.steps("r")


async def test_tensors_go_to_the_engine_and_back_and_the_journal_holds_their_count() -> None:
    running = most = 0

    def encode(model: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"embedding": np.asarray(inputs["input_ids"], dtype=np.float32) / 2}

    class Counting(ScriptedInference):
        async def infer(self, model: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await anyio.lowlevel.checkpoint()
                return await super().infer(model, inputs)
            finally:
                running -= 1

    vectors = VectorDb()
    batches = [Batch(id=str(n), texts=["a" * n]) for n in range(1, 9)]
    async with runtime(agents=[Ingest, Embed], models={"encoder": Counting(infer=encode)}, resources={VectorDb: vectors}) as rt:
        handle = await rt.submit(Ingest, batches, run_id="r")
        await rt.clock.advance(30)  # who waits for a permit that others share asks again by the clock
        assert await handle.result() == 8
    assert {name: row.tolist() for name, row in vectors.rows.items()} == {str(n): [n / 2] for n in range(1, 9)}
    assert most == 2, "each takes two of the four permits"
