"""The support chat of a user runs: its own app, with a script for the model and a file for the servers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
import support_chat

from agentkit import Runtime, SessionSettings
from agentkit.testing import Delay, ScriptedModel, ToolCall

pytestmark = pytest.mark.anyio
HEADERS = {"X-User": "ann"}
SCRIPT = [ToolCall("look_up_order", order_id="17"), "It is on its way.", ["You ", Delay(0.1), "are ", Delay(0.1), "welcome."]]
QUESTION, THANKS = ({"text": text, "message_id": text} for text in ("Where is order 17?", "Thanks!"))


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    made = Runtime(
        state=f"sqlite:///{tmp_path}/agents.db",
        agents=[support_chat.Support],
        models={"chat": ScriptedModel(SCRIPT)},
        lifespan=support_chat.resources,
        worker=True,
    )
    monkeypatch.setattr(support_chat, "runtime", made)
    return made


@pytest.fixture
async def http() -> AsyncGenerator[httpx.AsyncClient]:
    """A client of the app, in its process."""
    app = support_chat.app
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://app", headers=HEADERS) as made:
        yield made


def events(body: str) -> list[dict[str, str]]:
    """The `data` of each server-sent event."""
    return [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]


def said(told: list[dict[str, str]]) -> str:
    return "".join(event["text"] for event in told if event["type"] == "text")


async def test_two_messages_of_one_visit_are_answered_by_tokens_and_kept(http: httpx.AsyncClient) -> None:
    first = events((await http.post("/chat/visit", json=QUESTION)).text)
    assert [event["tool"] for event in first if event["type"] == "tool"] == ["look_up_order"] * 2
    assert said(first) == "It is on its way."
    second = events((await http.post("/chat/visit", json=THANKS)).text)
    assert said(second) == "You are welcome."
    assert len([event for event in second if event["type"] == "text"]) > 1, "in pieces, as the model says them"
    assert second[-1]["status"] == "done"
    history = (await http.get("/chat/visit")).json()
    assert [text for text in history if text and not text.startswith("{")] == [
        "Where is order 17?",
        "It is on its way.",
        "Thanks!",
        "You are welcome.",
    ]


async def test_a_message_that_is_sent_again_is_answered_by_the_same_run(http: httpx.AsyncClient) -> None:
    first, again = [(await http.post("/chat/visit", json=QUESTION)).text for _ in range(2)]
    assert events(first) == events(again)


async def test_a_client_that_was_cut_off_asks_for_the_rest(http: httpx.AsyncClient) -> None:
    told = events((await http.post("/chat/visit", json=QUESTION)).text)
    path, seen = f"/runs/{told[0]['run_id']}/events", str(told[1]["offset"])
    assert events((await http.get(path, headers={"Last-Event-ID": seen})).text) == told[2:]
    assert (await http.get(path, headers={"Last-Event-ID": str(told[-1]["offset"])})).status_code == 204


async def test_who_sends_too_much_is_told_when_to_come_back(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_chat.Support, "session", SessionSettings(max_waiting=0))
    response = await http.post("/chat/visit", json=QUESTION)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert (await http.get("/chat/visit")).json() == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"], scope="module")
class TestServed:
    """With uvicorn, which is for asyncio alone."""

    async def test_over_a_socket_that_breaks_nothing_is_lost_and_nothing_told_twice(
        self, serve: Callable[[object], AbstractAsyncContextManager[str]]
    ) -> None:
        async with serve(support_chat.app) as url, httpx.AsyncClient(base_url=url, headers=HEADERS) as http:
            await http.post("/chat/visit", json=QUESTION)
            told: list[dict[str, str]] = []
            async with http.stream("POST", "/chat/visit", json=THANKS) as response:
                async for line in response.aiter_lines():
                    told += events(line)
                    if said(told):
                        break
            assert said(told) != "You are welcome."
            path, seen = f"/runs/{told[-1]['run_id']}/events", str(told[-1]["offset"])
            told += events((await http.get(path, headers={"Last-Event-ID": seen})).text)
        assert said(told) == "You are welcome."
        assert told[-1]["status"] == "done"
