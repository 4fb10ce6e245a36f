"""Tools: async and sync, with and without a context; called, stepped and performed, each with the types of the function."""

from functools import partial
from typing import assert_type

from pydantic import BaseModel, SecretStr

from agentkit import Agent, AnyTool, Cache, Context, Done, Secret, StepContext, Tool, tool
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Retry


class Order(BaseModel):
    id: str
    status: str


async def cancel(step: StepContext, result: str) -> None: ...


async def find(order_id: str, cents: int) -> Done[str] | None:
    return Done(order_id) if cents else None


@tool
async def look_up_order(step: StepContext, order_id: str) -> Order:
    """Status of one order."""
    return Order(id=order_id, status="sent")


@tool(effect="ask", probe=find, undo=cancel, requires={"orders:refund"}, policy=Policy("crm", timeout_s=10, retry=Retry(attempts=3)))
async def refund(step: StepContext, order_id: str, cents: int) -> str:
    """Refund part of an order."""
    return f"{order_id}:{cents}"


@refund.undo
async def take_back(step: StepContext, result: str, cents: int) -> None: ...


@tool
def convert(amount: float, to: str = "EUR") -> float:
    return amount


@tool(name="rates", cache=Cache(60, key=["currency"], across_tenants=True), executor="process", approve=True)
def rates(currency: str) -> dict[str, float]:
    return {currency: 1.0}


@tool
async def sign_in(user: str, password: SecretStr, key: Secret[str]) -> bool:
    return password.get_secret_value() == key.get_secret_value()


TOOLS: tuple[AnyTool, ...] = (look_up_order, refund, convert, rates, sign_in)


class Shop(Agent[str, float]):
    async def run(self, ctx: Context, order_id: str) -> float:
        assert_type(await ctx.step("look", look_up_order, order_id), Order)
        assert_type(await ctx.step("pay", refund, order_id, 3), str)
        assert_type(await ctx.step("pay", refund, order_id, 3, key="a"), str)
        assert_type(await ctx.step("pay", partial(refund, cents=3), order_id), str)
        assert_type(await ctx.step("convert", convert, 3.0, "USD"), float)
        assert_type(await refund.perform(ctx, refund.parse('{"order_id": "a", "cents": 1}')), str)
        return await convert(3.0, to="USD")


async def inside(step: StepContext) -> str:
    order: Order = await look_up_order(step, "17")
    return await refund(step, order.id, cents=5)


def one(name: str) -> Tool[..., object]:
    return {tool.name: tool for tool in TOOLS}[name]
