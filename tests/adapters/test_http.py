"""`sse`: what a client is told of a run, what a browser makes of it, and what happens when one of the two goes away."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, get_args

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message

import agentkit
from agentkit import Agent, Context, RunNotFound, Signal, StepContext, StoreUnavailable
from agentkit.testing import LocalRuntime, runtime
from agentkit_http import EventType, sse
from tests.servers.http import Serve


class Waits(Agent[int, str]):
    """Tells how far it is, then waits for a word."""

    word = Signal(str)

    async def run(self, ctx: Context, steps: int, /) -> str:
        for n in range(steps):
            await ctx.step("tell", self.tell, n)
        return await ctx.wait_for(self.word)

    async def tell(self, step: StepContext, n: int) -> None:
        await step.progress({"line": f"{n}\n"})


@pytest.fixture
async def rt() -> AsyncGenerator[LocalRuntime]:
    async with runtime(agents=[Waits]) as made:
        yield made


def app(rt: LocalRuntime, **options: Any) -> Starlette:
    """As an app of users has it, with the one handler that most need."""

    async def events(request: Request) -> Response:
        after = int(request.headers.get("Last-Event-ID", 0))
        return sse(rt.handle(request.path_params["run_id"]).events(after=after), **options)

    async def missing(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=404)

    return Starlette(routes=[Route("/runs/{run_id}/events", events)], exception_handlers={RunNotFound: missing})


def fields(text: str) -> list[dict[str, str]]:
    """The server-sent events of a body, comments left out."""
    blocks = [[line for line in block.split("\n") if line and not line.startswith(":")] for block in text.split("\n\n")]
    return [dict(line.split(": ", 1) for line in block) for block in blocks if block]  # pyright: ignore[reportReturnType]


@asynccontextmanager
async def client(app: Starlette) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as made:
        yield made


async def ended(rt: LocalRuntime, run_id: str = "r", steps: int = 2) -> list[agentkit.RunEvent]:
    handle = await rt.submit(Waits, steps, run_id=run_id)
    await handle.signal(Waits.word, "done", id="w")
    await handle.result()
    return [event async for event in handle.events()]


class Wire:
    """A client by hand: it takes frames as slowly as it likes, and leaves when it likes."""

    def __init__(self, spec_version: str = "2.3") -> None:
        self.scope: Message = {"type": "http", "method": "GET", "asgi": {"version": "3.0", "spec_version": spec_version}, "headers": []}
        self.start: Message = {}
        self.body = ""
        self.taking, self.gone, self.changed = anyio.Event(), anyio.Event(), anyio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.taking.wait()
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += bytes(message["body"]).decode()
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something that follows from what was sent holds."""
        with anyio.fail_after(10):
            while not holds():
                self.changed = anyio.Event()
                await self.changed.wait()

    async def ask(self, response: Response) -> None:
        self.taking.set()
        await response(self.scope, self.receive, self.send)


async def when(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not holds():
            await anyio.lowlevel.checkpoint()


# What is told


async def test_each_event_has_its_offset_its_type_and_its_json(rt: LocalRuntime) -> None:
    events = await ended(rt)
    async with client(app(rt)) as http:
        response = await http.get("/runs/r/events")
    assert fields(response.text) == [{"id": str(event.offset), "event": event.type, "data": event.model_dump_json()} for event in events]
    assert json.loads(fields(response.text)[0]["data"])["data"] == {"line": "0\n"}


async def test_nobody_keeps_or_holds_back_what_is_told(rt: LocalRuntime) -> None:
    await ended(rt)
    async with client(app(rt)) as http:
        headers = (await http.get("/runs/r/events")).headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"


async def test_who_was_cut_off_anywhere_goes_on_behind_the_last_event_that_came(rt: LocalRuntime) -> None:
    await ended(rt)
    async with client(app(rt)) as http:
        told = fields((await http.get("/runs/r/events")).text)
        for n, last in enumerate(told[:-1], 1):
            rest = await http.get("/runs/r/events", headers={"Last-Event-ID": last["id"]})
            assert fields(rest.text) == told[n:]


async def test_a_browser_that_knows_the_end_is_told_to_ask_no_more(rt: LocalRuntime) -> None:
    events = await ended(rt)
    async with client(app(rt)) as http:
        response = await http.get("/runs/r/events", headers={"Last-Event-ID": str(events[-1].offset)})
    assert (response.status_code, response.content) == (204, b"")


async def test_of_a_type_that_is_not_for_the_client_it_learns_the_offset_alone(rt: LocalRuntime) -> None:
    events = await ended(rt)
    async with client(app(rt, only={"progress"})) as http:
        told = fields((await http.get("/runs/r/events")).text)
        assert [frame["id"] for frame in told] == [str(event.offset) for event in events]
        assert {frame["event"] for frame in told if "event" in frame} == {"progress"}
        assert all(set(frame) == {"id"} for frame in told if "event" not in frame)
        again = await http.get("/runs/r/events", headers={"Last-Event-ID": told[-1]["id"]})
    assert again.status_code == 204


def test_the_types_that_can_be_chosen_are_those_that_there_are() -> None:
    union, _ = get_args(agentkit.RunEvent)
    assert set(get_args(EventType)) == {kind.model_fields["type"].default for kind in get_args(union)}


async def test_a_run_that_is_not_there_is_an_exception_before_the_first_byte(rt: LocalRuntime) -> None:
    async with client(app(rt)) as http:
        response = await http.get("/runs/nobody/events")
    assert response.status_code == 404
    assert "nobody" in response.json()["error"]


async def test_what_the_app_adds_to_the_response_is_kept(rt: LocalRuntime) -> None:
    await ended(rt)
    after: list[str] = []

    async def note() -> None:
        after.append("sent")

    wire, response = Wire(), sse(rt.handle("r").events())
    response.set_cookie("seen", "1")
    response.background = BackgroundTask(note)
    await wire.ask(response)
    assert any(name == b"set-cookie" for name, _ in wire.start["headers"])
    assert after == ["sent"]


async def test_a_unit_test_may_read_the_body_without_a_server(rt: LocalRuntime) -> None:
    events = await ended(rt)
    text = "".join([str(chunk) async for chunk in sse(rt.handle("r").events()).body_iterator])
    assert [frame["id"] for frame in fields(text)] == [str(event.offset) for event in events]


# As it happens


async def test_an_event_is_told_as_it_happens_and_the_end_of_the_run_is_the_end_of_the_stream(rt: LocalRuntime) -> None:
    handle = await rt.submit(Waits, 1, run_id="r")
    wire = Wire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wire.ask, sse(handle.events()))
        await wire.until(lambda: "signal:word" in wire.body)
        await handle.signal(Waits.word, "done")
    assert json.loads(fields(wire.body)[-1]["data"])["status"] == "done"


async def test_while_nothing_comes_comments_keep_the_connection(rt: LocalRuntime) -> None:
    handle = await rt.submit(Waits, 0, run_id="r")
    await rt.settle()
    wire = Wire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wire.ask, sse(handle.events(), heartbeat_s=0.01))
        await wire.until(lambda: wire.body.count(": ") > 3)
        await handle.signal(Waits.word, "done")
    assert fields(wire.body)[-1]["event"] == "status"


async def test_the_answer_begins_although_nothing_has_happened_yet(rt: LocalRuntime) -> None:
    handle = await rt.submit(Waits, 0, run_id="r", delay_s=3600)
    wire = Wire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wire.ask, sse(handle.events()))
        await wire.until(lambda: wire.body.startswith(":"))
        assert wire.start["status"] == 200
        wire.gone.set()


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_client_that_goes_away_closes_the_stream_at_once(rt: LocalRuntime, spec_version: str) -> None:
    handle = await rt.submit(Waits, 0, run_id="r")
    await rt.settle()
    events, wire = handle.events(), Wire(spec_version)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wire.ask, sse(events, heartbeat_s=3600))
        await wire.until(lambda: bool(wire.body))
        wire.gone.set()
    assert await events.read() is None, "it is closed, although the run goes on"
    assert (await handle.info()).status == "waiting"


async def test_a_server_that_says_by_an_error_that_the_client_has_gone_is_understood(rt: LocalRuntime) -> None:
    await ended(rt)
    events, wire = rt.handle("r").events(), Wire()

    async def send(message: Message) -> None:
        raise BrokenPipeError

    await sse(events)(wire.scope, wire.receive, send)
    assert await events.read() is None


async def test_a_slow_client_keeps_the_events_in_the_store(rt: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = await rt.submit(Waits, 1, run_id="r")
    await rt.settle()
    reads = 0
    load = rt.store.load

    async def counting(run_id: str, after: int = -1) -> Any:
        nonlocal reads
        reads += 1
        return await load(run_id, after=after)

    monkeypatch.setattr(rt.store, "load", counting)
    wire, response = Wire(), sse(handle.events(), heartbeat_s=0.001)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(response, wire.scope, wire.receive, wire.send)
        await when(lambda: reads > 0)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert reads == 1, "what was not taken is not followed by more"
        wire.taking.set()
        await handle.signal(Waits.word, "done")
    assert json.loads(fields(wire.body)[-1]["data"])["status"] == "done"


# What goes wrong later


@pytest.fixture
def outage(rt: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and the store answers no read of a journal any more."""

    async def refuse(run_id: str, after: int = -1) -> Any:
        raise StoreUnavailable("db.internal:5432", "it is gone")

    return lambda: monkeypatch.setattr(rt.store, "load", refuse)


async def test_an_outage_before_the_first_byte_is_an_exception(rt: LocalRuntime, outage: Callable[[], None]) -> None:
    await ended(rt)
    outage()
    with pytest.raises(StoreUnavailable):
        await Wire().ask(sse(rt.handle("r").events()))


async def test_an_outage_later_is_an_event_that_names_no_server_and_moves_nothing(
    rt: LocalRuntime, outage: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    handle = await rt.submit(Waits, 1, run_id="r")
    await rt.settle()
    wire = Wire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wire.ask, sse(handle.events()))
        await wire.until(lambda: "signal:word" in wire.body)
        outage()
    last = fields(wire.body)[-1]
    assert set(last) == {"event", "data"}
    assert (last["event"], json.loads(last["data"])) == ("error", {"type": "error", "kind": "StoreUnavailable"})
    assert "db.internal" in caplog.text


# Over a real socket


@pytest.mark.parametrize("anyio_backend", ["asyncio"], scope="module")
class TestServed:
    """With uvicorn, which is for asyncio alone."""

    async def test_a_client_that_hangs_up_closes_the_stream_and_the_run_goes_on(self, rt: LocalRuntime, serve: Serve) -> None:
        handle = await rt.submit(Waits, 1, run_id="r")
        events, over = handle.events(), anyio.Event()

        async def tell(request: Request) -> Response:
            response = sse(events, heartbeat_s=3600)
            response.background = BackgroundTask(note)
            return response

        async def note() -> None:
            over.set()

        async with serve(Starlette(routes=[Route("/", tell)])) as url, httpx.AsyncClient(base_url=url) as http:
            async with http.stream("GET", "/") as response:
                await anext(response.aiter_bytes())
            with anyio.fail_after(10):
                await over.wait()
        assert await events.read() is None
        await rt.settle()
        assert (await handle.info()).status == "waiting"

    async def test_an_answer_that_ends_leaves_the_connection_to_the_next_request(self, rt: LocalRuntime, serve: Serve) -> None:
        events = await ended(rt)
        async with serve(app(rt)) as url, httpx.AsyncClient(base_url=url) as http:
            for after, status in ((0, 200), (events[-1].offset, 204), (0, 200)):
                response = await http.get("/runs/r/events", headers={"Last-Event-ID": str(after)})
                assert response.status_code == status
