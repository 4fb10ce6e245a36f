"""FastAPI support chat: a session for each user, tokens by SSE, any pod may continue."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from math import ceil
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from agentkit import ChatAgent, Message, Overloaded, Policy, Principal, Retry, Runtime, StepContext, UserMessage, tool
from agentkit_http import sse


class Crm:
    async def order(self, order_id: str) -> dict[str, str]:
        return {"status": f"{order_id} is on its way"}

    async def refund(self, order_id: str, cents: int, *, idempotency_key: str) -> str:
        return f"{order_id}:{cents}:{idempotency_key}"

    async def find_refund(self, order_id: str) -> str | None:
        return None


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


@asynccontextmanager
async def resources() -> AsyncGenerator[Mapping[type[Any], object]]:
    yield {Crm: Crm()}


runtime = Runtime(
    state="postgresql://app@db/agents",
    queue="redis://cache/0",
    agents=[Support],
    models="models.toml",
    lifespan=resources,
    worker=True,
    concurrency=32,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with runtime:
        yield


app = FastAPI(lifespan=lifespan)


class Mood(BaseModel):
    angry: bool


class Listener(ChatAgent[Mood]):
    """Says how somebody feels."""

    handoffs = (Support,)


class Ask(BaseModel):
    text: str
    message_id: str


async def user(x_user: Annotated[str, Header()]) -> Principal:
    return Principal(id=x_user, permissions=frozenset({"orders:read"}))


@app.post("/chat/{session_id}")
async def chat(session_id: str, ask: Ask, who: Annotated[Principal, Depends(user)]) -> StreamingResponse:
    session = runtime.session(Support, session_id, tenant="shop", principal=who)
    try:
        handle = await session.send(ask.text, message_id=ask.message_id)
    except Overloaded as e:
        raise HTTPException(503, headers={"Retry-After": str(ceil(e.retry_after_s))}) from e
    return sse(handle.events())


@app.get("/runs/{run_id}/events")
async def resume(run_id: str, last_event_id: Annotated[int, Header()] = 0) -> StreamingResponse:
    return sse(runtime.handle(run_id).events(after=last_event_id))


@app.get("/chat/{session_id}")
async def history(session_id: str, who: Annotated[Principal, Depends(user)]) -> list[str]:
    s = runtime.session(Support, session_id, tenant="shop", principal=who)
    return [m.content for m in await s.history(last=20)]


async def preferences() -> Mood | None:
    s = runtime.session(Support, "s1")
    await s.append([Message(role="assistant", content="A colleague will call you.")], key="call-17")
    await s.set("mood", Mood(angry=False), ttl_s=60)
    mood = await s.get("mood", Mood)
    await s.delete()
    return mood


async def typed() -> bool:
    handle = await runtime.session(Listener, "s1").send(UserMessage(text="hm"))
    return (await handle.result()).angry and (await runtime.run(Listener, "hm")).angry


async def by_hand(text: str) -> str:
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
