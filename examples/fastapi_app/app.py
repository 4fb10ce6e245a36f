"""The app: the support agent of `examples.support_agent` behind HTTP. ``uvicorn --factory examples.fastapi_app.app:create``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import ceil
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, StreamingResponse

from agentkit import Overloaded, Principal, RunNotFound, Runtime, Session
from agentkit_http import EventType, sse
from examples.support_agent import rules
from examples.support_agent.agents import Support
from examples.support_agent.app import AGENTS, TENANT, resources
from examples.support_agent.shop import Shop

MAY_REFUND = frozenset({"ann"})  # an app asks its own table of users
SHOWN: frozenset[EventType] = frozenset({"text", "tool", "approval", "status"})  # the steps of a run are nobody's business outside

router = APIRouter()


class Ask(BaseModel):
    """A message. The same id again is the same message, so a client may send it again when it heard nothing."""

    text: str
    message_id: str


class Said(BaseModel):
    """A message of the conversation as the client shows it."""

    role: str
    text: str


async def running(request: Request) -> Runtime:
    """The runtime of the app."""
    found: Runtime = request.app.state.runtime
    return found


async def user(x_user: Annotated[str, Header()]) -> Principal:
    """Who asks. An app has its own sign-in here."""
    return Principal(id=x_user, permissions=frozenset({"orders:refund"}) if x_user in MAY_REFUND else frozenset())


async def conversation(
    conversation_id: str, runtime: Annotated[Runtime, Depends(running)], who: Annotated[Principal, Depends(user)]
) -> Session[str]:
    """The user's own conversation of that id: nobody else can name it."""
    return runtime.session(Support, f"{who.id}:{conversation_id}", tenant=TENANT, principal=who)


Conversation = Annotated[Session[str], Depends(conversation)]


@router.post("/chat/{conversation_id}")
async def chat(session: Conversation, ask: Ask) -> StreamingResponse:
    """Say something; the answer streams. The run goes on if the client leaves: it finds the rest under `…/events`."""
    try:
        handle = await session.send(ask.text, message_id=ask.message_id)
    except Overloaded as error:
        raise HTTPException(503, str(error), headers={"Retry-After": str(ceil(error.retry_after_s))}) from error
    return sse(handle.events(), only=SHOWN)


@router.get("/chat/{conversation_id}/{message_id}/events")
async def resume(
    session: Conversation,
    message_id: str,
    runtime: Annotated[Runtime, Depends(running)],
    last_event_id: Annotated[int, Header()] = 0,
) -> StreamingResponse:
    """Go on listening after the last event that came; what browsers do by themselves."""
    return sse(runtime.handle(session.run_id(message_id)).events(after=last_event_id), only=SHOWN)


@router.get("/chat/{conversation_id}")
async def history(session: Conversation) -> list[Said]:
    """What was said, without calls of tools."""
    said = await session.history(last=50)
    return [Said(role=message.role, text=message.content) for message in said if message.role in ("user", "assistant") and message.content]


@router.delete("/chat/{conversation_id}", status_code=204)
async def forget(session: Conversation) -> None:
    """Forget the conversation."""
    await session.delete()


async def missing(request: Request, error: Exception) -> JSONResponse:
    """A message that was never sent in this conversation, or one so old that it was forgotten."""
    return JSONResponse({"detail": str(error)}, status_code=404)


def create(runtime: Runtime | None = None) -> FastAPI:
    """The app around a runtime, which opens and closes with it. Any number of pods may share one state."""
    embedded = runtime or local()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with embedded:
            app.state.runtime = embedded
            yield

    app = FastAPI(title="Support", lifespan=lifespan, exception_handlers={RunNotFound: missing})
    app.include_router(router)
    return app


def local(directory: Path = Path(".examples"), state: str | None = None, models: Path | None = None, pace_s: float = 0.0) -> Runtime:
    """A runtime on a SQLite file that needs no server. Elsewhere: Runtime(state="postgresql://…", models="models.toml", …)."""
    directory.mkdir(parents=True, exist_ok=True)
    return Runtime(
        state=state or f"sqlite:///{directory.absolute() / 'support.db'}",
        agents=AGENTS,
        models=models or rules.models(pace_s),
        lifespan=resources(Shop(directory.absolute() / "refunds.json")),
        worker=True,
    )
