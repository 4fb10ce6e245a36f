"""The FastAPI app: a conversation by HTTP, events that resume, and users who do not see each other."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from agentkit import Runtime, SessionSettings
from examples.fastapi_app.app import create, local
from examples.support_agent.agents import Support
from examples.support_agent.app import TENANT


@asynccontextmanager
async def app(tmp_path: Path, runtime: Runtime | None = None) -> AsyncGenerator[httpx.AsyncClient]:
    made = create(runtime or local(tmp_path, state="memory://"))
    transport = httpx.ASGITransport(made)
    async with (
        made.router.lifespan_context(made),
        httpx.AsyncClient(transport=transport, base_url="http://app", headers={"X-User": "ann"}) as client,
    ):
        yield client


def frames(response: httpx.Response) -> list[dict[str, str]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = [[line for line in block.splitlines() if not line.startswith(":")] for block in response.text.split("\n\n")]
    told: list[dict[str, str]] = [dict(line.split(": ", 1) for line in block) for block in blocks]  # pyright: ignore[reportAssignmentType]
    return [frame for frame in told if "data" in frame]


def said(told: list[dict[str, str]]) -> str:
    return "".join(json.loads(frame["data"])["text"] for frame in told if frame["event"] == "text")


def status(told: list[dict[str, str]]) -> str:
    """How the last of the events says that the run has ended."""
    return str(json.loads(told[-1]["data"])["status"])


async def say(client: httpx.AsyncClient, text: str, message_id: str = "m1", who: str = "ann") -> list[dict[str, str]]:
    return frames(await client.post("/chat/c1", json={"text": text, "message_id": message_id}, headers={"X-User": who}))


async def test_an_answer_comes_in_pieces_and_is_then_in_the_history(tmp_path: Path) -> None:
    async with app(tmp_path) as client:
        told = await say(client, "Where is order 17?")
        history = (await client.get("/chat/c1")).json()
    assert said(told) == history[-1]["text"] == "Your order 17, a desk lamp, was sent on Monday."
    assert [json.loads(frame["data"])["phase"] for frame in told if frame["event"] == "tool"] == ["called", "returned"]
    assert status(told) == "done"
    assert "step" not in {frame["event"] for frame in told}


async def test_who_was_cut_off_goes_on_after_the_last_event_that_came(tmp_path: Path) -> None:
    async with app(tmp_path) as client:
        told = await say(client, "Where is order 17?")
        middle = told[len(told) // 2]
        rest = frames(await client.get("/chat/c1/m1/events", headers={"Last-Event-ID": middle["id"]}))
    assert rest == told[len(told) // 2 + 1 :]


async def test_a_message_that_is_sent_again_is_answered_once(tmp_path: Path) -> None:
    async with app(tmp_path) as client:
        first, again = [await say(client, "Please refund order 18.") for _ in range(2)]
        said = (await client.get("/chat/c1")).json()
    assert again == first
    assert [one["role"] for one in said] == ["user", "assistant"]
    assert len(json.loads((tmp_path / "refunds.json").read_text())) == 1


async def test_a_user_sees_nothing_of_anothers_conversation(tmp_path: Path) -> None:
    async with app(tmp_path) as client:
        await say(client, "Where is order 17?")
        assert (await client.get("/chat/c1", headers={"X-User": "ben"})).json() == []
        assert (await client.get("/chat/c1/m1/events", headers={"X-User": "ben"})).status_code == 404
        assert "has no order" in said(await say(client, "Where is order 17?", who="ben"))


async def test_a_deleted_conversation_is_forgotten(tmp_path: Path) -> None:
    async with app(tmp_path) as client:
        await say(client, "Where is order 17?")
        assert (await client.delete("/chat/c1")).status_code == 204
        assert (await client.get("/chat/c1")).json() == []


async def test_a_client_gone_wild_is_told_when_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Support, "session", SessionSettings(max_waiting=1))
    runtime = local(tmp_path, state="memory://")
    async with app(tmp_path, runtime) as client:
        await runtime.session(Support, "ann:c1", tenant=TENANT).turns.enter("a message that is not answered yet")
        response = await client.post("/chat/c1", json={"text": "hello", "message_id": "m1"})
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0


async def test_an_agent_that_fails_says_so_in_its_last_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Support, "max_turns", 1)
    async with app(tmp_path) as client:
        told = await say(client, "Where is order 17?")
    assert status(told) == "failed"
