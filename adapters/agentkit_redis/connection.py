"""A Redis deployment by URL: one client for each process, event loop and settings, shared by all ports that ask for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import anyio

from agentkit.clock import SYSTEM, SystemClock
from agentkit.errors import InvalidSetting, StoreUnavailable
from agentkit_redis.cluster import Cluster
from agentkit_redis.driver import Connection, NoBackoff, Retry, Sentinel, SSLConnection
from agentkit_redis.driver import exceptions as driver
from agentkit_redis.faults import translated
from agentkit_redis.lines import Call, Lines, OneServer, Script, checked, command, exchange

if TYPE_CHECKING:
    from types import TracebackType

    from agentkit.clock import Clock
    from agentkit_redis.settings import RedisSettings

MARGIN_S = 1.0  # that a blocking read is waited for beyond the time it was told to block


class Client:
    """A deployment as seen from one event loop. Everything that the driver raises is translated here."""

    def __init__(self, settings: RedisSettings) -> None:
        self.settings = settings
        self.users = 0
        self._turns = anyio.Semaphore(settings.max_connections, fast_acquire=True)  # who need not wait does not yield either
        self._way = _way(settings)

    @property
    def clustered(self) -> bool:
        """Whether keys of different hash tags lie on different servers."""
        return self._way.clustered

    async def call(self, call: Call) -> Any:
        """The answer to one call."""
        [[answer]] = await self.phases([call])
        return answer

    async def phases(self, *phases: Sequence[Call]) -> list[list[Any]]:
        """The answers to calls of which each phase happens after the one before it; within a phase they may happen in any order.

        On one server that is one round trip, in a cluster one for each phase. When the caller is gone in the middle, what happened is a
        prefix of the phases.

        Raises:
            StoreUnavailable: the server did not answer; each of the calls may have happened.
            StoreBusy: it did not begin.
            StoreRefused: it refused one of the calls.
        """
        if not any(phases):
            return [[] for _ in phases]
        async with self._guarded():
            if self.clustered:
                return [checked(phase, await self._way.ask(phase)) if phase else [] for phase in phases]
            calls = [call for phase in phases for call in phase]
            answers = checked(calls, await self._way.ask(calls))
        rest = iter(answers)
        return [[next(rest) for _ in phase] for phase in phases]

    async def block(self, call: Call, key: str, timeout_s: float) -> Any:
        """The answer to a call that blocks for up to `timeout_s` on `key`, on a connection of its own."""
        async with self._guarded(timeout_s + MARGIN_S, bounded=False):
            async with (await self._way.lines(key)).lend() as line:
                [answer] = await exchange(line, [call])
            if isinstance(answer, driver.ResponseError):
                raise answer
            return answer

    async def block_then(self, call: Call, then: Call, key: str, timeout_s: float) -> Any:
        """Let the server do `then` as soon as `call`, which blocks for up to `timeout_s` on `key`, has ended; the answer to `then`."""
        async with self._guarded(timeout_s + MARGIN_S, bounded=False):
            async with (await self._way.lines(key)).lend() as line:
                woken, answer = await exchange(line, [call, then])
            if not isinstance(answer, driver.NoScriptError):
                return checked([call, then], [woken, answer])[1]
        return await self.call(then)

    async def everywhere(self, calls: Sequence[Call]) -> dict[str, list[Any]]:
        """The answers of each server, by its address; what a server refuses stands in the place of the answer."""
        async with self._guarded():
            return await self._way.everywhere(calls)

    async def open(self) -> None:
        """Meet the server and load the scripts. Raises `InvalidSetting` for a wrong account, or an option that the server cannot offer."""
        async with self._guarded(opening=True):
            await self._way.open()
            if self.settings.wait_aof:
                [known] = await self._way.ask([command("COMMAND", "INFO", "WAITAOF")])
                if not isinstance(known, list) or known[0] is None:
                    rule = "needs a server of version 7.2 or newer; on an older one set appendfsync to always, which does as much"
                    raise InvalidSetting("wait_aof", self.settings.wait_aof, rule)

    async def aclose(self) -> None:
        await self._way.aclose()

    def _guarded(self, timeout_s: float | None = None, *, opening: bool = False, bounded: bool = True) -> _Guard:
        return _Guard(self.settings, self._turns if bounded else None, timeout_s or self.settings.timeout_s, opening=opening)


class _Guard:
    """Around an exchange: a turn, a deadline, and the one place where what the driver raises is translated.

    A class with the event loop's own timeout: a generator with a cancel scope takes three times as long, a tenth of a whole call.
    """

    __slots__ = ("_deadline", "_opening", "_settings", "_turns")

    def __init__(self, settings: RedisSettings, turns: anyio.Semaphore | None, timeout_s: float, *, opening: bool) -> None:
        self._settings, self._turns, self._opening = settings, turns, opening
        self._deadline = asyncio.timeout(timeout_s)  # noqa: TID251  the driver runs on asyncio alone

    async def __aenter__(self) -> None:
        await self._deadline.__aenter__()
        turns, self._turns = self._turns, None
        try:
            if turns is not None:
                await turns.acquire()
        except BaseException as exc:
            await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        self._turns = turns

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if self._turns is not None:
            self._turns.release()
        try:
            await self._deadline.__aexit__(kind, exc, trace)
        except TimeoutError as late:
            exc = late
        if isinstance(exc, Exception):
            told = translated(exc, self._settings, opening=self._opening)
            if told is not exc:
                raise told from exc


def _way(settings: RedisSettings) -> Cluster | OneServer:
    kinds = _connection_kinds(settings)
    if settings.mode == "cluster":
        return Cluster(settings, kinds)
    if settings.mode == "sentinel":
        return _by_sentinel(settings, kinds)
    host, port = settings.addresses[0]
    kind = SSLConnection if settings.tls else Connection
    return OneServer(settings.url, Lines(lambda: kind(host=host, port=port, db=settings.db, **kinds)))


def _by_sentinel(settings: RedisSettings, kinds: dict[str, Any]) -> OneServer:
    password = settings.sentinel_password
    account = {"username": settings.sentinel_username, "password": password.get_secret_value() if password else None}
    common = {**kinds, "ssl": settings.tls}
    sentinels = {**common, **account, "socket_timeout": settings.connect_timeout_s}
    sentinel: Any = Sentinel(settings.addresses, sentinel_kwargs=sentinels, **common, db=settings.db)  # type: ignore[no-untyped-call]
    primary: Any = sentinel.master_for(settings.service)

    def connect() -> Connection:
        pool = primary.connection_pool
        line: Connection = pool.connection_class(**pool.connection_kwargs)
        return line

    async def close() -> None:
        for client in (primary, *sentinel.sentinels):
            await client.aclose()

    return OneServer(settings.url, Lines(connect), close)


def _connection_kinds(settings: RedisSettings) -> dict[str, Any]:
    """What the driver is told for each connection: never to send anything twice by itself, since only the caller knows what may be."""
    kinds: dict[str, Any] = {
        "username": settings.username,
        "password": settings.password.get_secret_value() if settings.password else None,
        "socket_timeout": None,  # one deadline for the whole exchange instead, which costs less than one for each read
        "socket_connect_timeout": settings.connect_timeout_s,
        "driver_info": None,  # the driver would look its own version up on disk for each connection
        "protocol": 2,  # both sides know it since always, and the shape of answers is the same everywhere
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.tls:
        kinds |= {
            "ssl_ca_certs": settings.ca_file or None,
            "ssl_certfile": settings.cert_file or None,
            "ssl_keyfile": settings.key_file or None,
        }
    return kinds


class RedisPort:
    """What the adapters of all ports have in common: settings, a clock, and the client of the event loop they are called in."""

    _clients: ClassVar[dict[tuple[int, RedisSettings, asyncio.AbstractEventLoop], tuple[Client, AsyncGenerator[None]]]] = {}

    def __init__(self, settings: RedisSettings, clock: Clock = SYSTEM) -> None:
        self.settings, self.clock = settings, clock
        self._opened: list[Client] = []

    async def open(self) -> None:
        """Connect and load the scripts. May be called more than once; each call needs its `aclose`.

        Raises:
            InvalidSetting: not on asyncio, or the server refuses this user.
            StoreUnavailable: the server does not answer.
        """
        client = await self._here()
        client.users += 1
        self._opened.append(client)
        try:
            await client.open()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Disconnect with the last user of the client."""
        if not self._opened:
            return
        client = self._opened.pop()
        client.users -= 1
        if not client.users:
            with anyio.CancelScope(shield=True):
                await self._close(client)

    async def client(self) -> Client:
        """The client of this event loop. Raises `StoreUnavailable` when the port is not open."""
        if not self._opened:
            raise StoreUnavailable(self.settings.url, "it is not open: use it between open() and aclose()")
        return await self._here()

    def now(self) -> str:
        """The time that scripts are given: empty, so that they ask the server's clock, unless tests keep a clock of their own."""
        return "" if isinstance(self.clock, SystemClock) else repr(self.clock.time())

    def key(self, tag: str, rest: str = "") -> str:
        """A key of this deployment. Keys of one `tag` lie on one server of a cluster."""
        return f"{self.settings.prefix}:{{{tag}}}{rest}"

    async def _here(self) -> Client:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as exc:
            rule = "the Redis driver needs asyncio and this is trio: run on asyncio, or choose a sqlite:// store"
            raise InvalidSetting("url", self.settings.url, rule) from exc
        # A child of fork() has the table, but not the connections.
        key = (os.getpid(), self.settings, loop)
        found = self._clients.get(key)
        if found is None:
            client = Client(self.settings)
            life = self._while_the_loop_lasts(client, key)
            found = self._clients[key] = client, life
            await anext(life)
        return found[0]

    @classmethod
    async def _while_the_loop_lasts(cls, client: Client, key: tuple[Any, ...]) -> AsyncGenerator[None]:
        """A generator, since those are what an event loop closes when it ends: the beats have a loop of their own that nobody closes."""
        try:
            yield
        finally:
            cls._clients.pop(key, None)
            await client.aclose()

    @classmethod
    async def _close(cls, client: Client) -> None:
        for found, life in list(cls._clients.values()):
            if found is client:
                await life.aclose()


__all__ = ["Call", "Client", "RedisPort", "Script", "command"]
