"""Calls of concurrent tasks share round trips: what comes while one is on its way goes with the next. No timer, so a single call waits
for nobody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from agentkit.tasks import Gate, Home

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class _Ask(Generic[T, R]):
    """One caller's part of a round trip."""

    __slots__ = ("answer", "error", "gate", "leads", "sent", "what")

    def __init__(self, what: T) -> None:
        self.what = what
        self.gate: Gate | None = None
        self.leads = self.sent = False
        self.answer: R
        self.error: Exception | None = None


class Together(Generic[T, R]):
    """Gathers what concurrent tasks ask for. Who finds nothing on its way sends for all that have gathered, then lets the next one do so.

    Args:
        send: one round trip; answers one by one, in order. What it raises is raised to each caller.
        weigh: how much of a round trip an ask takes.
        most: the weight of a round trip, unless a single ask is heavier.
    """

    def __init__(self, send: Callable[[Sequence[T]], Awaitable[Sequence[R]]], weigh: Callable[[T], int], most: int) -> None:
        self._send, self._weigh, self._most = send, weigh, most
        self._gathered: deque[_Ask[T, R]] = deque()
        self._busy = False

    async def __call__(self, what: T) -> R:
        """Ask, and wait for the answer. A caller that is cancelled before its part was sent takes it back; later it happens anyhow."""
        ask: _Ask[T, R] = _Ask(what)
        self._gathered.append(ask)
        if self._busy:
            ask.gate = Home().gate()
            await self._wait(ask, ask.gate)
        if not ask.sent:
            await self._lead()
        if ask.error is not None:
            raise ask.error
        return ask.answer

    async def _wait(self, ask: _Ask[T, R], gate: Gate) -> None:
        try:
            await gate.wait()
        except BaseException:
            if not ask.sent:
                self._gathered.remove(ask)
                if ask.leads:
                    self._pass_on()
            raise

    async def _lead(self) -> None:
        self._busy = True
        batch = self._next_batch()
        try:
            if len(batch) == 1:
                await self._exchange(batch)
            else:
                # The others' part is in it too: who leads sees it through, for as long as the driver waits.
                with anyio.CancelScope(shield=True):
                    await self._exchange(batch)
        except Exception as exc:  # noqa: BLE001  each caller raises it
            for ask in batch:
                ask.error = exc
        finally:
            self._pass_on()
            for ask in batch:
                _wake(ask)

    async def _exchange(self, batch: Sequence[_Ask[T, R]]) -> None:
        for ask, answer in zip(batch, await self._send([ask.what for ask in batch]), strict=True):
            ask.answer = answer

    def _next_batch(self) -> list[_Ask[T, R]]:
        batch: list[_Ask[T, R]] = []
        weight = 0
        while self._gathered and (not batch or weight + self._weigh(self._gathered[0].what) <= self._most):
            ask = self._gathered.popleft()
            ask.sent = True
            weight += self._weigh(ask.what)
            batch.append(ask)
        return batch

    def _pass_on(self) -> None:
        """Let the one that has waited longest send next."""
        self._busy = bool(self._gathered)
        if self._busy:
            self._gathered[0].leads = True
            _wake(self._gathered[0])


def _wake(ask: _Ask[Any, Any]) -> None:
    if ask.gate is not None:
        ask.gate.set()
