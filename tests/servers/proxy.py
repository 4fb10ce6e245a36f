"""A TCP proxy between a client and a server, that a test breaks at the moment it chooses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

CHUNK_BYTES = 65_536
ANSWERS_S = 10.0  # for the proxy's own thread
QUIET_TURNS = 10  # of its event loop: who was let in at the last moment is among the open ones after four


@dataclass
class _Cut:
    """What ends a connection: words from the client, before they reach the server or after its answer."""

    words: bytes
    skip: int
    answer: bool
    happened: threading.Event = field(default_factory=threading.Event)

    def strikes(self, piece: bytes) -> bool:
        if self.happened.is_set() or self.words not in piece:
            return False
        self.skip -= 1
        return self.skip < 0


class Proxy:
    """Listens on a port of its own and forwards to a server, in a thread of its own: `with Proxy(server.port) as proxy`.

    What is broken stays so until `heal()`.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self.port = 0
        self.connections = 0
        """How many were ever opened."""
        self.delay_s = 0.0
        self.next_cut: _Cut | None = None
        self.flow = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(ANSWERS_S), "the proxy does not listen"
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop.set)
        self._thread.join(ANSWERS_S)

    def cut(self, *, refuse: bool = False) -> None:
        """Close all connections; with `refuse` new ones are closed at once until `heal()`."""

        def close() -> None:
            self._refusing = refuse
            for writer in self._open:
                writer.transport.abort()

        self._call(close)

    def blackhole(self) -> None:
        """Nothing passes any more, in neither direction, on open and on new connections, until `heal()` lets through what has waited."""
        self._call(self.flow.clear)

    def slow(self, delay_s: float) -> None:
        """Each piece waits for `delay_s` in each direction."""
        self.delay_s = delay_s

    def cut_before(self, words: bytes, *, skip: int = 0) -> threading.Event:
        """Close the connection in place of passing on the first piece from a client with these words (after `skip` others with them).

        Returns:
            What is set when that has happened. The server never saw the piece.
        """
        return self._cut_at(_Cut(words, skip, answer=False))

    def cut_after(self, words: bytes, *, skip: int = 0) -> threading.Event:
        """Pass on the first piece from a client with these words (after `skip` others with them), then close in place of the answer to it.

        Returns:
            What is set when that has happened. The server has done it, and the client does not know: the lost answer to a COMMIT.
        """
        return self._cut_at(_Cut(words, skip, answer=True))

    def _cut_at(self, cut: _Cut) -> threading.Event:
        self.next_cut = cut
        return cut.happened

    def heal(self) -> None:
        """All passes again, at once."""
        self.delay_s, self._refusing, self.next_cut = 0.0, False, None
        self._call(self.flow.set)

    def _call(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(ANSWERS_S), "the proxy has stopped"

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        self.flow.set()
        listener = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        self._refusing = True
        quiet = 0
        while quiet < QUIET_TURNS:  # each connection's own task closes it: one that was cancelled would be reported as lost
            quiet = 0 if self._open else quiet + 1
            for writer in self._open:
                writer.transport.abort()
            self.flow.set()
            await asyncio.sleep(0)
        listener.close()  # last: Python 3.11 forgets then whom it is just letting in

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._refusing:
                raise ConnectionRefusedError
            answers, requests = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self.connections += 1
        ends = {writer, requests}
        self._open |= ends
        pair = _Pair(self, ends)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pair.carry(reader, requests, pair.ends_request))
                group.create_task(pair.carry(answers, writer, pair.ends_answer))
        finally:
            self._open -= ends


class _Pair:
    """A connection of a client, and the one to the server that carries it on."""

    def __init__(self, proxy: Proxy, ends: set[asyncio.StreamWriter]) -> None:
        self._proxy, self._ends = proxy, ends
        self._cut: _Cut | None = None

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, ends: Callable[[bytes], bool]) -> None:
        with suppress(OSError):
            while piece := await source.read(CHUNK_BYTES):
                if self._proxy.delay_s:
                    await asyncio.sleep(self._proxy.delay_s)
                await self._proxy.flow.wait()
                if ends(piece):
                    break
                target.write(piece)
                await target.drain()
        for writer in self._ends:
            writer.transport.abort()

    def ends_request(self, piece: bytes) -> bool:
        cut = self._proxy.next_cut
        if cut is None or not cut.strikes(piece):
            return False
        if cut.answer:
            self._cut = cut
            return False
        cut.happened.set()
        return True

    def ends_answer(self, _: bytes) -> bool:
        if self._cut is None:
            return False
        self._cut.happened.set()
        return True
