"""How processes tell each other of changes: NOTIFY and LISTEN, on connections and in a thread of their own.

Not in the transactions themselves: commits with a NOTIFY wait for each other in the whole database, their syncs included. What is told
here is told at most fifty times a second, however much changes. What is lost with a process or a connection costs its listeners one
look, which they take once a second anyway.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import anyio

from agentkit.errors import AgentKitError
from agentkit_sql.news import QUEUE, RUNS, News, call_in
from agentkit_sql.server import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

log = logging.getLogger("agentkit.postgresql")

PAUSE_S = 0.02  # after each NOTIFY: what changes meanwhile is told together, and nobody waits longer than one sees
ALIVE_S = 10.0  # a connection that died silently is found within it
FIRST_WAIT_S, LAST_WAIT_S = 0.1, 5.0  # before a lost connection is opened anew
STOP_S = 5.0  # for the thread to end: a server that does not answer shall not hold up a process
CHANNELS = {"agentkit_runs": RUNS, "agentkit_queue": QUEUE}
RING = "SELECT pg_notify(channel, ?) FROM unnest(?::text[]) AS channel"


class Listening(Connection, Protocol):
    """A connection that can listen."""

    async def hear(self, channels: Collection[str], heard: Callable[[str, str], None], alive_s: float) -> None:
        """Call `heard(channel, payload)` for each notification until the connection is lost; it is tried every `alive_s`."""
        ...


class Listener(Protocol):
    """A driver whose connections can listen."""

    async def connect(self) -> Listening: ...

    def translated(self, exc: BaseException) -> BaseException: ...


class PostgresBell:
    """One for each process and database. Its thread starts when it is needed first."""

    def __init__(self, driver: Listener, news: News) -> None:
        self._driver, self._news = driver, news
        self._name = uuid4().hex
        self._lock = threading.Lock()
        self._due: set[str] = set()
        self._waits = True  # for something to tell
        self._listening = self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def listen(self) -> None:
        """Begin to hear, unless it has begun."""
        if not self._listening:
            self._listening = True
            self._wake()

    def ring(self, topic: str) -> None:
        """Tell, soon."""
        with self._lock:
            self._due.add(f"agentkit_{topic}")
            waits, self._waits = self._waits, False
        if waits:
            self._wake()

    def stop(self) -> None:
        """Blocks until it is silent for ever."""
        self._stopped = True
        if self._thread is not None:
            self._wake()
            self._thread.join(STOP_S)

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), name="agentkit-postgresql-bell", daemon=True)
                self._thread.start()
            loop = self._loop
        if loop is not None:  # else it looks at everything when it comes up
            call_in(loop, self._set_woken)

    def _set_woken(self) -> None:
        self._woken.set()
        self._rung.set()

    async def _serve(self) -> None:
        self._woken, self._rung = anyio.Event(), anyio.Event()
        with self._lock:
            self._loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_telling)
            hears = False
            while not self._stopped:
                if self._listening and not hears:
                    hears = True
                    tasks.start_soon(self._keep_hearing)
                await self._woken.wait()
                self._woken = anyio.Event()
            tasks.cancel_scope.cancel()

    async def _keep_telling(self) -> None:
        while True:
            await self._something()
            async with self._connected() as connection:
                while True:
                    await self._tell(connection)
                    await self._something()

    async def _something(self) -> None:
        """Wait until there is something to tell, as a rule."""
        with self._lock:
            if self._due:
                return
            self._waits, self._rung = True, anyio.Event()
        await self._rung.wait()

    async def _tell(self, connection: Listening) -> None:
        with self._lock:
            due, self._due = self._due, set()
        if not due:
            return
        try:
            await connection.rows(RING, (self._name, sorted(due)))
        except BaseException:
            with self._lock:
                self._due |= due
            raise
        await anyio.sleep(PAUSE_S)

    async def _keep_hearing(self) -> None:
        while True:
            async with self._connected() as connection:
                for topic in CHANNELS.values():  # whatever came while nobody listened
                    self._news.note(topic)
                await connection.hear(CHANNELS, self._heard, ALIVE_S)

    def _heard(self, channel: str, name: str) -> None:
        if name != self._name:
            self._news.note(CHANNELS[channel])

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Listening]:
        """A connection until it fails; that is logged, and its user goes on and asks for another."""
        connection = await self._connect()
        try:
            yield connection
        except Exception as exc:
            told = self._driver.translated(exc)
            if not isinstance(told, AgentKitError):
                raise
            log.info("a connection for notifications was lost: %s", told)
            await anyio.sleep(FIRST_WAIT_S)
        finally:
            connection.terminate()

    async def _connect(self) -> Listening:
        wait_s = FIRST_WAIT_S
        while True:
            try:
                return await self._driver.connect()
            except AgentKitError as exc:
                log.warning("changes are told late: %s", exc)
                await anyio.sleep(wait_s)
                wait_s = min(2 * wait_s, LAST_WAIT_S)
