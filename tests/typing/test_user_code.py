"""Users' own tests, as they would write them."""

from pathlib import Path

import pytest
from compliance_reviewer import DAY, Approval, Archive, Document, Review, ReviewClause, Verdict
from support_chat import Crm, Support, look_up_order, refund

from agentkit import ChatAgent, Principal, StepError
from agentkit.testing import ScriptedModel, ToolCall, runtime

pytestmark = pytest.mark.anyio


class FakeCrm(Crm):
    async def order(self, order_id: str) -> dict[str, str]:
        return {"status": "sent"}


async def test_chat() -> None:
    model = ScriptedModel([ToolCall("look_up_order", order_id="17"), "It is on its way."])
    async with runtime(agents=[Support], models={"chat": model}, resources={Crm: FakeCrm()}) as rt:
        handle = await rt.session(Support, "s1", principal=Principal(id="u")).send("Where is 17?")
        assert await handle.result() == "It is on its way."
        assert await rt.steps(handle.run_id) == ["model#1", "look_up_order#1", "model#2"]
    assert "sent" in model.prompts[1]


async def test_approval_after_a_crash_and_six_days() -> None:
    legal = ScriptedModel([Verdict(clause="1", risk="high")])
    async with runtime(agents=[Review, ReviewClause], models={"legal": legal}, resources={Archive: Archive()}) as rt:
        handle = await rt.submit(Review, Document(id="1", path=Path("x.pdf")))
        await rt.settle()
        await rt.crash(at="file")
        await rt.clock.advance(6 * DAY)
        await handle.signal(Review.approval, Approval(by="ann", ok=True))
        report = await handle.result()
        assert report.approved_by == "ann"


async def test_error() -> None:
    async with runtime(agents=[Support]) as rt:
        with pytest.raises(StepError) as e:
            await rt.run(Support, "hi")
        assert e.value.kind == "ScriptExhausted"
    assert look_up_order.name == "look_up_order"
    assert refund.name
    assert issubclass(Support, ChatAgent)
