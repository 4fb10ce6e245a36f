"""The cache of a tool: what is kept, for whom, for how long, and that it is a help and no need."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from pydantic import BaseModel, SecretStr

from agentkit import Agent, Cache, Context, InvalidSetting, StepContext, StepError, StoreUnavailable, telemetry, tool
from agentkit.ports.records import EntryKind
from agentkit.testing import LocalRuntime, runtime
from tests.core.spans import exported

pytestmark = pytest.mark.anyio


class Shelf:
    """What the tools look things up in, and how often they did."""

    def __init__(self) -> None:
        self.looked: list[tuple[Any, ...]] = []
        self.gate: anyio.Event | None = None
        self.broken = 0

    async def look(self, *what: Any) -> None:
        self.looked.append(what)
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            self.broken -= 1
            raise ConnectionError("shelf")


class Article(BaseModel):
    id: str
    words: list[str]


@tool(cache=Cache(60))
async def find(step: StepContext, id: str, limit: int = 3, *, lang: str = "en") -> Article:
    await step.get(Shelf).look(id, limit, lang)
    return Article(id=id, words=["a"] * limit)


@tool(cache=Cache(60, key=["id"]))
async def by_id(step: StepContext, id: str, limit: int = 3) -> str:
    await step.get(Shelf).look(id, limit)
    return id


@tool(cache=Cache(60, across_tenants=True))
async def for_all(step: StepContext, id: str) -> str:
    await step.get(Shelf).look(id)
    return id


TOOLS = {one.name: one for one in (find, by_id, for_all)}


class Ask(BaseModel):
    use: str = "find"
    arguments: dict[str, Any] = {"id": "a"}


class Reader(Agent[Ask, Any]):
    async def run(self, ctx: Context, ask: Ask, /) -> Any:
        found = await TOOLS[ask.use].perform(ctx, ask.arguments)
        return found.model_dump() if isinstance(found, BaseModel) else found


class Library:
    def __init__(self, rt: LocalRuntime, shelf: Shelf) -> None:
        self.rt, self.shelf = rt, shelf

    async def ask(self, use: str = "find", /, *, tenant: str = "", **arguments: Any) -> Any:
        return await self.rt.run(Reader, Ask(use=use, arguments={"id": "a"} | arguments), tenant=tenant)


@pytest.fixture
async def library() -> Any:
    shelf = Shelf()
    async with runtime(agents=[Reader], resources={Shelf: shelf}) as rt:
        yield Library(rt, shelf)


async def test_the_same_call_in_another_run_is_answered_from_the_cache(library: Library) -> None:
    assert await library.ask() == await library.ask() == {"id": "a", "words": ["a"] * 3}
    assert library.shelf.looked == [("a", 3, "en")]


@pytest.mark.parametrize("other", [{"id": "b"}, {"limit": 4}, {"lang": "de"}])
async def test_another_argument_is_another_call(library: Library, other: dict[str, Any]) -> None:
    await library.ask()
    await library.ask(**other)
    assert len(library.shelf.looked) == 2


async def test_a_default_that_is_written_out_is_the_same_call(library: Library) -> None:
    await library.ask()
    await library.ask(limit=3, lang="en")
    assert len(library.shelf.looked) == 1


async def test_only_the_arguments_in_its_key_count(library: Library) -> None:
    await library.ask("by_id")
    await library.ask("by_id", limit=9)
    assert len(library.shelf.looked) == 1


async def test_one_tenants_results_are_not_another_tenants(library: Library) -> None:
    for tenant in ("acme", "other", "acme"):
        await library.ask(tenant=tenant)
    assert len(library.shelf.looked) == 2


async def test_across_tenants_they_are_when_the_tool_says_so(library: Library) -> None:
    for tenant in ("acme", "other"):
        await library.ask("for_all", tenant=tenant)
    assert len(library.shelf.looked) == 1


async def test_after_its_time_a_result_is_made_again(library: Library) -> None:
    await library.ask()
    await library.rt.clock.advance(59)
    await library.ask()
    assert len(library.shelf.looked) == 1
    await library.rt.clock.advance(2)
    await library.ask()
    assert len(library.shelf.looked) == 2


async def test_a_hit_is_journalled_as_the_result_of_the_step(library: Library) -> None:
    await library.ask()
    await library.rt.run(Reader, Ask(), run_id="second")
    assert await library.rt.steps("second") == ["find#1"]
    (entry,) = [e for e in await library.rt.store.load("second") if e.kind == EntryKind.RESULT]
    assert json.loads(entry.body) == {"id": "a", "words": ["a", "a", "a"]}


async def test_metrics_tell_hits_from_results_that_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    with exported(monkeypatch) as spans:
        async with runtime(agents=[Reader], resources={Shelf: shelf}) as rt:
            library = Library(rt, shelf)
            await library.ask()
            await library.ask()
        said = [event for span in spans.get_finished_spans() for event in span.events if event.name == telemetry.TOOL_CACHE.row.name]
    assert [dict(event.attributes or {}) for event in said] == [
        {telemetry.TOOL: "find", telemetry.OUTCOME: "made"},
        {telemetry.TOOL: "find", telemetry.OUTCOME: "hit"},
    ]


async def test_who_asks_while_a_result_is_made_waits_for_it(library: Library) -> None:
    library.shelf.gate = anyio.Event()
    answers: list[Any] = []

    async def one() -> None:
        answers.append(await library.ask())

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
        await until_looked(library.shelf)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        library.shelf.gate.set()
    assert len(answers) == 20
    assert len(library.shelf.looked) == 1


async def test_when_the_one_who_made_it_fails_the_next_makes_it(library: Library) -> None:
    library.shelf.gate, library.shelf.broken = anyio.Event(), 1
    came: list[Any] = []

    async def one() -> None:
        try:
            came.append((await library.ask())["id"])
        except StepError as exc:
            came.append(exc.kind)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(one)
        await until_looked(library.shelf)
        library.shelf.gate.set()
    assert sorted(came) == ["ConnectionError", "a", "a", "a", "a"]
    assert len(library.shelf.looked) == 2


async def test_when_the_one_who_makes_it_is_cancelled_the_next_makes_it(library: Library) -> None:
    library.shelf.gate = anyio.Event()
    first = await library.rt.submit(Reader, Ask())
    await until_looked(library.shelf)
    second = await library.rt.submit(Reader, Ask())
    await first.cancel()
    await until_looked(library.shelf, 2)
    library.shelf.gate.set()
    assert (await second.result())["id"] == "a"


async def test_an_error_is_not_kept(library: Library) -> None:
    library.shelf.broken = 1
    with pytest.raises(StepError):
        await library.ask()
    assert (await library.ask())["id"] == "a"


@pytest.mark.parametrize("method", ["get", "put"])
async def test_when_the_store_of_values_is_away_the_tool_answers(library: Library, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("values", "away")

    monkeypatch.setattr(library.rt.values, method, away)
    assert (await library.ask())["id"] == "a"


async def test_what_an_older_tool_has_kept_is_made_anew(library: Library) -> None:
    await library.ask()
    (kept,) = await library.rt.values.scan("tool/find/")
    await library.rt.values.put(kept.key, b'{"name": "of another type"}')
    assert (await library.ask())["id"] == "a"
    assert len(library.shelf.looked) == 2


async def test_a_result_that_is_too_large_for_the_store_is_returned_and_not_kept(library: Library) -> None:
    library.rt.values.max_value_bytes = 10
    assert (await library.ask())["id"] == "a"
    assert await library.rt.values.scan("tool/") == []


# What cannot be cached


async def login(user: str, password: SecretStr) -> str:
    return user


class Login(BaseModel):
    password: SecretStr


async def nested(login: Login) -> str:
    return ""


def test_a_secret_cannot_be_part_of_the_key() -> None:
    with pytest.raises(TypeError, match="argument 'password' is secret and cannot tell calls apart"):
        tool(cache=Cache(1))(login)
    with pytest.raises(TypeError, match="argument 'login' is secret"):
        tool(cache=Cache(1))(nested)
    assert tool(cache=Cache(1, key=["user"]))(login).cache is not None


def test_a_key_that_names_no_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="no argument 'usr'"):
        tool(cache=Cache(1, key=["usr"]))(login)


def test_an_effect_cannot_come_from_a_cache() -> None:
    with pytest.raises(TypeError, match="an effect cannot come from a cache"):
        tool(cache=Cache(1, key=["user"]), effect="ask")(login)


def test_a_time_to_live_is_above_zero() -> None:
    with pytest.raises(InvalidSetting):
        Cache(0)


async def until_looked(shelf: Shelf, times: int = 1) -> None:
    while len(shelf.looked) < times:  # noqa: ASYNC110 - one poll for many tests
        await anyio.sleep(0.001)
