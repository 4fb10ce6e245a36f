"""The way of one attempt: through all layers to the backend, and back with everything given up, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from agentkit.errors import NoTimeLeft, PermitLost
from agentkit.resilience.beside import Beside
from agentkit.resilience.deadline import Within, remaining_s
from agentkit.resilience.layer import Outcome, verdict
from agentkit.resilience.rate_limit import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from agentkit.clock import Clock
    from agentkit.resilience.circuit_breaker import Circuit
    from agentkit.resilience.layer import Hold, Layer


class Passage:
    """An async context manager for one attempt.

    Args:
        name: of the policy, for messages.
        layers: what to pass, in order.
        circuit: asked before the layers as well, so that nobody waits in line for a backend that is known to be down.
        within: the deadline of the call.
        metered: some layer wants to know what the call used.
        leased: some layer's hold must be renewed while the attempt runs.
    """

    def __init__(
        self,
        name: str,
        layers: Sequence[Layer],
        clock: Clock,
        within: Within,
        *,
        circuit: Circuit | None = None,
        leased: bool = False,
        metered: bool = False,
    ) -> None:
        self._name, self._layers, self._clock, self._within, self._circuit = name, layers, clock, within, circuit
        self._beside = Beside() if leased else None
        self._usage = Usage() if metered else None
        self._held: list[Hold] = []
        self._sent_at: float | None = None
        self._opened_at: float | None = None

    async def __aenter__(self) -> Self:
        if self._beside is not None:
            await self._beside.__aenter__()
        try:
            await self._enter()
        except BaseException as exc:
            await self._leave(exc)
            raise
        return self

    async def _enter(self) -> None:
        if self._circuit is not None:
            await self._circuit.ready()
        for layer in self._layers:
            hold = await layer.enter()
            self._held.append(hold)
            if hold.keep is not None and self._beside is not None:
                self._beside.start(hold.keep)
        if remaining_s() <= 0:
            raise NoTimeLeft(self._name)
        if self._usage is not None:
            self._usage.__enter__()
        self._sent_at = self._clock.monotonic()
        self._within.sent = True

    def opened(self) -> None:
        """A stream is open: how fast it comes from here on says nothing about its backend."""
        self._opened_at = self._clock.monotonic()

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._usage is not None:
            self._usage.__exit__()
        await self._leave(exc)

    async def _leave(self, exc: BaseException | None) -> None:
        outcome = self._outcome(exc)
        try:
            if self._beside is not None and await self._beside.__aexit__(type(exc) if exc else None, exc, None):
                raise PermitLost(str(self._beside.struck)) from None
        finally:
            await self._give_back(outcome)

    async def _give_back(self, outcome: Outcome) -> None:
        """All that is held, even if one of its stores fails or a `Task.cancel()`, which knows no shield, strikes meanwhile."""
        try:
            while self._held:
                await self._held.pop().leave(outcome)
        finally:
            if self._held:
                await self._give_back(outcome)

    def _outcome(self, exc: BaseException | None) -> Outcome:
        if self._sent_at is None:
            return Outcome(sent=False, verdict="neutral", took_s=0.0)
        ended_at = self._clock.monotonic() if self._opened_at is None else self._opened_at
        tokens = None if self._usage is None else self._usage.tokens
        said = "ok" if exc is None else verdict(exc, timed_out=self._within.struck)
        return Outcome(True, said, ended_at - self._sent_at, tokens)
