"""Support chat: a session for each user, tools that act on their behalf, text as it comes."""

from pydantic import BaseModel

from agentkit import ChatAgent, Message, Overloaded, Principal, Runtime, StepContext, UserMessage, tool
from agentkit.resilience.policy import Policy
from agentkit.resilience.retry import Retry


class Crm:
    async def order(self, order_id: str) -> dict[str, str]:
        return {"status": order_id}

    async def refund(self, order_id: str, cents: int, *, idempotency_key: str) -> str:
        return f"{order_id}:{cents}:{idempotency_key}"


class Order(BaseModel):
    id: str
    status: str


@tool
async def look_up_order(step: StepContext, order_id: str) -> Order:
    """Status of one order."""
    return Order(id=order_id, status=(await step.get(Crm).order(order_id))["status"])


@tool(effect="ask", requires={"orders:refund"}, policy=Policy("crm", timeout_s=10, retry=Retry(attempts=3)))
async def refund(step: StepContext, order_id: str, cents: int) -> str:
    """Refund part of an order."""
    return await step.get(Crm).refund(order_id, cents, idempotency_key=step.idempotency_key)


class Support(ChatAgent):
    """Answers customers of the shop."""

    model = "chat"
    instructions = "You are the shop's support agent."
    tools = (look_up_order, refund)
    max_history_tokens = 16_000


class Mood(BaseModel):
    angry: bool


class Listener(ChatAgent[Mood]):
    """Says how somebody feels."""

    handoffs = (Support,)


class Ask(BaseModel):
    text: str
    message_id: str


def user(name: str) -> Principal:
    return Principal(id=name, permissions=frozenset({"orders:read"}))


async def chat(runtime: Runtime, session_id: str, ask: Ask) -> str | float:
    session = runtime.session(Support, session_id, tenant="shop", principal=user("ann"))
    try:
        handle = await session.send(ask.text, message_id=ask.message_id)
    except Overloaded as e:
        return e.retry_after_s
    return await handle.result()


async def history(runtime: Runtime, session_id: str) -> list[str]:
    s = runtime.session(Support, session_id, tenant="shop", principal=user("ann"))
    return [m.content for m in await s.history(last=20)]


async def preferences(runtime: Runtime) -> Mood | None:
    s = runtime.session(Support, "s1")
    await s.append([Message(role="assistant", content="A colleague will call you.")], key="call-17")
    await s.set("mood", Mood(angry=False), ttl_s=60)
    mood = await s.get("mood", Mood)
    await s.delete()
    return mood


async def typed(runtime: Runtime) -> bool:
    handle = await runtime.session(Listener, "s1").send(UserMessage(text="hm"))
    return (await handle.result()).angry and (await runtime.run(Listener, "hm")).angry


async def by_hand(runtime: Runtime, text: str) -> str:
    handle = await runtime.session(Support, "s1").send(text)
    async with handle.events() as events:
        async for event in events:
            match event.type:
                case "text":
                    print(event.text, end="")
                case "tool":
                    print(event.tool, event.phase)
                case _:
                    pass
    return await handle.result()
