"""Programs of users do what they say."""

import pytest
from branches import Buy, Offer
from wrap_langgraph import Question, Wrapped, outside_any_run

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
