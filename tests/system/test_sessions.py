"""Sessions over processes that are killed and frozen: messages are answered in order, each once, by whoever is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from agentkit import Runtime, Session, Settings
from agentkit.testing.crash import Crew, until
from tests.system import proof
from tests.system.app import Effects
from tests.system.conftest import LEASE_S, MARKS
from tests.system.session_app import AGENTS, Talks, models
from tests.system.stores import SERVERS

pytestmark = MARKS

MESSAGES = 50
KILLS = 6
POINTS = [
    "inside tool note",
    "before turn",
    "after turn",
    "before head",
    "after head",
    "after signal",
    "before write COMPLETED",
    "after write COMPLETED",
]


@pytest.fixture(params=["sqlite", *SERVERS])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    kind = request.param
    return f"sqlite:///{tmp_path}/agents.db" if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")


@pytest.fixture
def here(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


def crew_at(url: str, folder: Path) -> Crew:
    return Crew(folder, "tests.system.session_app:runtime", url, lease_s=LEASE_S)


@asynccontextmanager
async def opened(url: str, *, worker: bool = False) -> AsyncGenerator[Runtime]:
    given = Settings(lease_s=LEASE_S, grace_s=2.0)
    runtime = Runtime(state=url, agents=AGENTS, models=models(), worker=worker, settings=given)
    runtime.store.min_lease_s = LEASE_S
    async with runtime:
        yield runtime


async def keeps_the_laws(session: Session[str], texts: list[str]) -> None:
    """Every message was answered once, knowing all that was said before it and nothing else, and nobody waits any more."""
    said = await session.history()
    asked = [message.content for message in said if message.role == "user"]
    assert sorted(asked) == sorted(texts)
    answers = [message.content for message in said if message.role == "assistant" and not message.tool_calls]
    assert answers == [f"{n}: {text}" for n, text in enumerate(asked, 1)]
    assert [message.role for message in said] == ["user", "assistant", "tool", "assistant"] * len(texts)
    assert (await session.turns.head()).line == ()


async def test_fifty_messages_at_once_are_answered_one_after_the_other_by_workers_that_are_killed(
    where: str, tmp_path: Path, effects: Effects
) -> None:
    texts = [f"message {n}" for n in range(MESSAGES)]
    async with opened(where) as runtime, crew_at(where, tmp_path) as crew:
        session = runtime.session(Talks, "ann")
        workers = [await crew.start(), await crew.start()]
        async with anyio.create_task_group() as tasks:
            for text in texts:
                tasks.start_soon(partial(session.send, text, message_id=text))
        for kill in range(KILLS):
            await until("some turns more", partial(_noted, effects, (kill + 1) * 5))
            workers[kill % 2].kill()
            workers[kill % 2] = await crew.start()
        for text in texts:
            assert (await proof.result_of(runtime, session.run_id(text), Talks, patience_s=60.0)).endswith(f": {text}")
        await keeps_the_laws(session, texts)
        order = [message.content for message in await session.history() if message.role == "user"]
        assert list(dict.fromkeys(line["value"] for line in effects.lines())) == order


async def _noted(effects: Effects, at_least: int) -> bool:
    return len({line["value"] for line in effects.lines()}) >= at_least


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_killed_there_is_taken_over_and_nothing_is_said_twice(
    point: str, here: str, tmp_path: Path, effects: Effects
) -> None:
    async with opened(here) as runtime, crew_at(here, tmp_path) as crew:
        session = runtime.session(Talks, "ann")
        for text in ("one", "two", "three"):
            await session.send(text, message_id=text)
        worker = await crew.start(f"kill@{point}")
        assert await worker.ended() == -9, worker.log()
        async with opened(here, worker=True):
            for text in ("one", "two", "three"):
                await proof.result_of(runtime, session.run_id(text), Talks)
        await keeps_the_laws(session, ["one", "two", "three"])


@pytest.mark.parametrize("point", ["inside tool note", "before turn", "before head", "after head", "before write COMPLETED"])
async def test_a_worker_frozen_there_longer_than_a_lease_says_nothing_more_when_it_thaws(
    point: str, here: str, tmp_path: Path, effects: Effects
) -> None:
    async with opened(here) as runtime, crew_at(here, tmp_path) as crew:
        session = runtime.session(Talks, "ann")
        for text in ("one", "two"):
            await session.send(text, message_id=text)
        worker = await crew.start(f"stop@{point}")
        await worker.reached(point)
        await worker.stopped()
        async with opened(here, worker=True):
            for text in ("one", "two"):
                await proof.result_of(runtime, session.run_id(text), Talks)
            await session.send("three", message_id="three")
            await proof.result_of(runtime, session.run_id("three"), Talks)
            worker.go_on()
            await anyio.sleep(LEASE_S)
            await (await session.send("four", message_id="four")).result()
        await keeps_the_laws(session, ["one", "two", "three", "four"])


async def test_a_sender_killed_between_its_place_in_the_line_and_its_run_holds_nobody_up(
    here: str, tmp_path: Path, effects: Effects
) -> None:
    async with opened(here, worker=True) as runtime, crew_at(here, tmp_path) as crew:
        sender = await crew.start("kill@before create", act="tests.system.session_app:send_one")
        assert await sender.ended() == -9, sender.log()
        session = runtime.session(Talks, "ann")
        assert len((await session.turns.head()).line) == 1
        await session.send("one", message_id="one")  # it repeats what it does not know to be done
        await session.send("two", message_id="two")
        for text in ("one", "two"):
            await proof.result_of(runtime, session.run_id(text), Talks)
        await keeps_the_laws(session, ["one", "two"])
