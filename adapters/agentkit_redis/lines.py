"""Calls, and the connections that carry them to a server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import anyio

from agentkit_redis.driver import Connection, pack
from agentkit_redis.driver import exceptions as driver

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

IDLE_S = 1.0  # after which a connection is looked at before it is used: the server, or something on the way, may have closed it


class Script:
    """A Lua script: one atomic step of the server. Calling it gives the `Call` that runs it.

    Args:
        names: files in the folder `lua`, without their ending; the last is the script, those before it are what it uses.
    """

    known: ClassVar[list[Script]] = []

    def __init__(self, *names: str) -> None:
        folder = files("agentkit_redis") / "lua"
        self.text = "\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names)
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()  # Redis names scripts so
        self.known.append(self)

    def __call__(self, keys: Sequence[Any], *args: Any) -> Call:
        return Call(("EVALSHA", self.sha, len(keys), *keys, *args))


class Call(NamedTuple):
    """A command with its arguments: text, bytes and numbers."""

    command: tuple[Any, ...]
    optional: bool = False
    """When the server refuses it, that is no error of the calls beside it."""

    @property
    def key(self) -> Any:
        """A key that it is about: in a cluster that decides where it goes."""
        return self.command[3 if self.command[0] == "EVALSHA" else 1]


def command(*words: Any) -> Call:
    """A plain command of the server."""
    return Call(words)


class Lines:
    """Connections to one server, kept open and lent out."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._idle: list[tuple[Connection, float]] = []
        self._lent: set[Connection] = set()

    @asynccontextmanager
    async def lend(self) -> AsyncGenerator[Connection]:
        """A connection for one exchange; it is kept when the exchange was whole."""
        line = await self._take()
        self._lent.add(line)
        try:
            yield line
        except BaseException as exc:
            with anyio.CancelScope(shield=True):
                await line.disconnect(nowait=True)
                if isinstance(exc, (driver.ConnectionError, OSError)):
                    await self.drop()  # what one has met, those that lie idle have met too
            raise
        else:
            self._idle.append((line, anyio.current_time()))
        finally:
            self._lent.discard(line)

    async def _take(self) -> Connection:
        if not self._idle:
            line: Connection = self._make()
            return line
        line, since = self._idle.pop()
        if anyio.current_time() - since > IDLE_S:
            try:
                sound = not await line.can_read()
            except (driver.RedisError, OSError):
                sound = False
            if not sound:
                await line.disconnect(nowait=True)
        return line

    async def drop(self) -> None:
        """Close those that nobody uses."""
        idle, self._idle = self._idle, []
        for line, _ in idle:
            await line.disconnect(nowait=True)

    async def aclose(self) -> None:
        await self.drop()
        for line in list(self._lent):
            await line.disconnect(nowait=True)


async def exchange(line: Connection, calls: Sequence[Call]) -> list[Any]:
    """Send all, then read the answers, in order; an error of the server stands in its place. Nothing is sent twice."""
    if not line.is_connected:
        await line.connect()  # type: ignore[no-untyped-call]
    await line.send_packed_command(b"".join([pack(call.command) for call in calls]), check_health=False)
    answers: list[Any] = []
    for _ in calls:
        try:
            answers.append(await line.read_response())
        except driver.ResponseError as exc:
            answers.append(exc)
    return answers


async def ask(lines: Lines, calls: Sequence[Call]) -> list[Any]:
    """An exchange; scripts that the server has forgotten are loaded anew, all of them, and what missed them is sent again in its order."""
    async with lines.lend() as line:
        answers = await exchange(line, calls)
        missed = [i for i, answer in enumerate(answers) if isinstance(answer, driver.NoScriptError)]
        if missed:
            await load_scripts(line)
            for i, answer in zip(missed, await exchange(line, [calls[i] for i in missed]), strict=True):
                answers[i] = answer
        return answers


async def load_scripts(line: Connection) -> None:
    calls = [command("SCRIPT", "LOAD", script.text) for script in Script.known]
    checked(calls, await exchange(line, calls))


def checked(calls: Sequence[Call], answers: list[Any]) -> list[Any]:
    """The answers, or the first error among them."""
    for call, answer in zip(calls, answers, strict=True):
        if isinstance(answer, Exception) and not call.optional:
            raise answer
    return answers


class OneServer:
    """The way to one server, at an address or where Sentinel says."""

    clustered = False

    def __init__(self, name: str, lines: Lines, close: Callable[[], Any] | None = None) -> None:
        self._name, self._lines, self._close = name, lines, close

    async def lines(self, key: str) -> Lines:
        """The connections to the server of a key."""
        return self._lines

    async def ask(self, calls: Sequence[Call]) -> list[Any]:
        """The answers; an error of the server stands in its place."""
        return await ask(self._lines, calls)

    async def everywhere(self, calls: Sequence[Call]) -> dict[str, list[Any]]:
        """The answers of each server."""
        return {self._name: await ask(self._lines, calls)}

    async def open(self) -> None:
        """Load the scripts."""
        async with self._lines.lend() as line:
            await load_scripts(line)

    async def aclose(self) -> None:
        await self._lines.aclose()
        if self._close is not None:
            await self._close()
