"""What both type checkers must reject: every line marked so, and no other. Read by test_typing.py, never run."""

from functools import partial
from typing import assert_type

from branches import Buy, Offer
from compliance_reviewer import Approval, Clause, Document, Report, Review, ReviewClause, Verdict, judge

from agentkit import Agent, Context, Need, Outcomes, RunHandle, Runtime, Signal, StepContext, tool


async def inferred(rt: Runtime, ctx: Context, doc: Document, clause: Clause) -> None:
    assert_type(await rt.run(Review, doc), Report)
    assert_type(await rt.submit(Review, doc), RunHandle[Report])
    assert_type(rt.sync(rt.run, Review, doc), Report)
    assert_type(await ctx.map("m", ReviewClause, [clause]), list[Verdict])
    assert_type(await ctx.map("m", ReviewClause, [clause], need=Need.all()), Outcomes[Verdict])
    assert_type(await ctx.join({"a": ReviewClause.of(clause)}), dict[str, Verdict])
    assert_type(await ctx.wait_for(Review.approval), Approval)
    assert_type(await ctx.step("s", judge, clause), Verdict)
    assert_type(await ctx.step("s", partial(judge, clause=clause)), Verdict)
    assert_type(await ctx.run("b", Buy, ["eu"]), Offer)


async def rejected(rt: Runtime, ctx: Context, doc: Document) -> None:
    await rt.run(Review, "not a document")  # rejected
    await rt.run(Review(), doc)  # rejected
    await rt.submit(Review, doc, priority="urgent")  # rejected
    await rt.handle("x", Review).signal(Review.approval, "yes")  # rejected
    await rt.handle("x", Review).resolve("file", "maybe")  # rejected
    await ctx.map("m", ReviewClause, ["x"])  # rejected
    await ctx.run("x", Review, 3)  # rejected
    await ctx.step("s", judge, 3)  # rejected
    await ctx.step("s", judge, Clause(id="1", text=""), effect=True)  # rejected
    number: int = await ctx.wait_for(Review.approval)  # rejected
    print(number)


class Bad(Agent[str, int]):
    go = Signal(Approval)

    async def run(self, ctx: Context, x: int) -> int:  # rejected
        return x


@tool
async def pay(step: StepContext, order: str, cents: int) -> str:
    return f"{order}:{cents}"


async def rejected_tools(ctx: Context, step: StepContext) -> None:
    assert_type(await ctx.step("s", pay, "17", 3), str)
    await ctx.step("s", pay, 17, 3)  # rejected
    await ctx.step("s", pay, "17")  # rejected
    await pay(step, "17", "3")  # rejected
    await pay("17", 3)  # rejected
    tool(effect=True)(pay.fn)  # rejected
    tool(executor="cloud")(pay.fn)  # rejected
    pay.requires.add("more")  # rejected
