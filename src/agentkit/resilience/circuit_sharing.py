"""A circuit that processes share: one small value says that it is open, that somebody probes, or that it has closed.

Nothing is written while all is well, and each process reads at most once in `LOOK_EVERY_S`. No clocks are compared: the value's time to
live, on the store's clock, is how long it holds. When it has run out, the processes race to write that they probe (compare-and-set); the
winner's probes decide for all. While the store is away each process goes on by itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import anyio

from agentkit.errors import StoreError, ValueConflict
from agentkit.resilience.circuit_breaker import Admission, Circuit, CircuitBreaker, Closed, HalfOpen, Open, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentkit.clock import Clock
    from agentkit.ports.values import ValueStore

LOOK_EVERY_S = 1.0  # a process learns so late, at most, that another has opened the circuit
STORE_TIMEOUT_S = 0.5  # longer, and asking how the backend is would cost more than to find out
PREFIX = "agentkit/circuit/"

Word = Literal[b"open", b"probing", b"closed"]
logger = logging.getLogger(__name__)


def adopt(state: State, said: bytes | None, now: float) -> State:
    """The state of a process that has read what others say."""
    if said in {b"open", b"probing"}:
        # Its end is not known here: look again before it is too late, and stay shut until the word is gone.
        return Open(state.era + (not isinstance(state, Open)), now + LOOK_EVERY_S)
    if said == b"closed" and isinstance(state, Open):
        return Closed(state.era + 1)
    return state


def word(settings: CircuitBreaker, state: State) -> tuple[Word, float]:
    """What a process says after a change of its own, and for how many seconds that holds."""
    if isinstance(state, Open):
        return b"open", settings.open_s
    return (b"probing", settings.slow_s) if isinstance(state, HalfOpen) else (b"closed", settings.open_s)


class SharedCircuit(Circuit):
    """The circuit of one name in all processes that use the same values store. All I/O is done on the way in, never on the way out."""

    def __init__(self, name: str, settings: CircuitBreaker, clock: Clock, values: ValueStore) -> None:
        super().__init__(name, settings, clock)
        self._values, self._key = values, f"{PREFIX}{name}"
        self._look_at = 0.0
        self._unsaid = False

    async def ready(self) -> None:
        """As in one process, after a look at what the others say if that is due."""
        now = self._now()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S  # before the wait: one caller looks, the others go on with what is known
            await self._ask(self._look)
        await super().ready()

    async def enter(self) -> Admission:
        """As in one process; only, of all processes one may probe at a time."""
        if isinstance(self.state, Open) and self._now() >= self.state.until:
            await self._ask(self._claim_probing)
        return await super().enter()

    def on_change(self) -> None:
        """Say so here, and to the others at the next look, which is brought forward."""
        super().on_change()
        self._unsaid = True
        self._look_at = 0.0

    async def _ask(self, question: Callable[[], Awaitable[None]]) -> None:
        try:
            with anyio.move_on_after(STORE_TIMEOUT_S):
                await question()
        except StoreError as exc:
            logger.warning("circuit %r goes on by itself: %s", self.name, exc)

    async def _look(self) -> None:
        if self._unsaid:
            await self._say()
        found = (await self._values.get([self._key])).get(self._key)
        if not isinstance(self.state, HalfOpen):  # while this process probes, the word is its own
            self._hear(found.value if found else None)

    async def _say(self) -> None:
        said, ttl_s = word(self.settings, self.state)
        self._unsaid = False  # before the wait: what changes meanwhile is to be said next
        try:
            found = (await self._values.get([self._key])).get(self._key)
            if found is None or found.value != said:
                await self._values.put(self._key, said, expected=found.version if found else 0, ttl_s=ttl_s)
        except ValueConflict:
            self._hear(None)  # another spoke at the same moment: its word is read next
        except BaseException:
            self._unsaid = True  # nobody may have heard it
            raise

    async def _claim_probing(self) -> None:
        try:
            await self._values.put(self._key, b"probing", expected=0, ttl_s=self.settings.slow_s)
        except ValueConflict:
            found = (await self._values.get([self._key])).get(self._key)
            self._hear(found.value if found else b"probing")

    def _hear(self, said: bytes | None) -> None:
        before = self.state
        self.state = adopt(before, said, self._now())
        if self.state.era != before.era:
            super().on_change()
