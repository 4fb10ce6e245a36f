"""Creates of concurrent callers in one round trip: while one is under way, what is asked meanwhile gathers and goes next, together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from agentkit.errors import StoreRefused
from agentkit.tasks import Home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.ports.records import Created, NewRun
    from agentkit.ports.runs import RunStore

MAX_ROWS = 500  # of one create: near the time of one commit


class _Asked:
    """One caller's runs, and what came of them."""

    __slots__ = ("answer", "error", "gate", "runs")

    def __init__(self, runs: Sequence[NewRun]) -> None:
        self.runs = runs
        self.gate = Home().gate()
        self.answer: list[Created] | None = None
        self.error: Exception | None = None


class Creation:
    """`create` as the store has it, for callers that come at the same time."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._waiting: list[_Asked] = []
        self._busy = False

    async def create(self, runs: Sequence[NewRun]) -> list[Created]:
        """Create runs, or find them. What the store refuses fails its own caller alone; a cancelled caller's runs may be created."""
        asked = _Asked(runs)
        self._waiting.append(asked)
        while asked.answer is None and asked.error is None:
            if self._busy or asked not in self._waiting:
                await self._wait(asked)
            else:
                with anyio.CancelScope(shield=True):  # it is on behalf of others too
                    await self._lead()
        if asked.error is not None:
            raise asked.error
        return asked.answer or []

    async def _wait(self, asked: _Asked) -> None:
        """Until it is answered, or its turn to lead. A caller that is cancelled hands its turn on."""
        asked.gate = Home().gate()
        try:
            await asked.gate.wait()
        except BaseException:
            if asked in self._waiting:
                self._waiting.remove(asked)
                if self._waiting and not self._busy:
                    self._waiting[0].gate.set()
            raise

    async def _lead(self) -> None:
        """Send what is waiting, on behalf of all; then wake them, and one who came meanwhile to lead the next."""
        self._busy = True
        batch: list[_Asked] = []
        try:
            await anyio.lowlevel.checkpoint()  # who asks in the same turn of the event loop goes with it, not after its commit
            batch, self._waiting = _fitting(self._waiting)
            await self._send(batch)
        finally:
            self._busy = False
            for asked in [*batch, *self._waiting[:1]]:
                asked.gate.set()

    async def _send(self, batch: Sequence[_Asked]) -> None:
        try:
            created = await self._store.create([run for asked in batch for run in asked.runs])
        except StoreRefused as refused:
            if len(batch) == 1:
                batch[0].error = refused
                return
            for asked in batch:
                await self._send([asked])
        except Exception as exc:  # noqa: BLE001 - each caller raises it
            for asked in batch:
                asked.error = exc
        else:
            for asked in batch:
                asked.answer, created = created[: len(asked.runs)], created[len(asked.runs) :]


def _fitting(waiting: list[_Asked]) -> tuple[list[_Asked], list[_Asked]]:
    """Those that go together, at least one, and the rest."""
    rows = 0
    for i, asked in enumerate(waiting):
        rows += len(asked.runs)
        if rows > MAX_ROWS and i:
            return waiting[:i], waiting[i:]
    return waiting, []
