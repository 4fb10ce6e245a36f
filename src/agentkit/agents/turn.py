"""One turn of a session as its run takes it: wait in the line, learn what was said before, add what was said, wake the next."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from agentkit import telemetry
from agentkit.agents.base import Signal
from agentkit.agents.meta import meta_of
from agentkit.agents.services import services_of
from agentkit.agents.turns import ABSENT_S
from agentkit.errors import RunEnded, RunError, RunNotFound
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.agents.context import Context
    from agentkit.agents.session import Session
    from agentkit.agents.turns import Head, Standing
    from agentkit.agents.turns import Turn as Ended
    from agentkit.ports.messages import Message

LOOK_S = 10.0  # after so long one who waits looks for himself, for a wake is lost with the process that would send it
MAX_LOOK_S = 3_600.0  # and then each time he has waited twice as long, up to this: a turn may wait for a human for days
NEXT = Signal(bool)
NEXT.name = "agentkit-turn"
WOKEN = "turn"  # the journal's key for wakes that were taken


def look_s(standing: Standing, waited_s: float) -> float:
    """When one who waits looks again, seconds. Whether the first in the line is still without a run is known soon."""
    if standing.head.line[0].absent_since is not None:
        return ABSENT_S
    return min(max(LOOK_S, waited_s), MAX_LOOK_S)


class Turn:
    """A run's turn. What a run does again because it goes on elsewhere changes nothing.

    Args:
        run_id: the run that stands in the line: this one, or the one above it that handed the conversation over.
    """

    def __init__(self, ctx: Context, session: Session[Any], run_id: str) -> None:
        self._ctx, self._ex, self._turns, self._run_id = ctx, ctx.execution, session.turns, run_id
        self.mine = self._ex.run.run_id == run_id
        self._waited = self._ex.run.fence > 1

    async def begin(self) -> Standing | None:
        """Wait in the line, parked, until nobody is ahead. None in a replay in which nothing starts."""
        ex = self._ex
        if ex.leaving is not None:
            return None
        ex.journal.known(WOKEN)
        while True:
            ex.check_open()
            while (message := ex.message(NEXT.topic(""))) is not None:
                ex.take(message, EntryKind.VOID, WOKEN, b"")
            with ex.working():
                standing = await self._turns.stand(self._run_id, ex.host.store.get, ex.store_now())
            if not standing.ahead:
                return standing
            now, self._waited = ex.store_now(), True
            await ex.wait("the messages before it", topic=NEXT.topic(""), until=now + look_s(standing, now - ex.run.created_at))

    def begun(self) -> None:
        """Tell metrics and the trace how long it waited."""
        if not telemetry.enabled():
            return
        run = self._ex.run
        waited_s, agent = max(0.0, self._ex.store_now() - run.created_at), {telemetry.AGENT: run.kind}
        telemetry.SESSION_SECONDS.record(waited_s, agent)
        if self._waited:
            began_ns = time.time_ns() - int(waited_s * 1e9)
            telemetry.span_of_the_past(telemetry.TURN, began_ns, {telemetry.RUN_ID: run.run_id, telemetry.WAIT: waited_s, **agent})

    async def history(self, head: Head) -> list[Message]:
        """What was said before. Nobody adds to it while it is this run's turn."""
        with self._ex.working():
            return await self._turns.messages(head)

    async def answer(self, ended: Ended) -> str:
        """The answer of this turn, which an earlier run of it has given. Raises `RunError` where it gave none, or it has expired."""
        with self._ex.working():
            said = await self._turns.said(ended) if ended.answered else []
        if not said:
            raise RunError("TurnOver", "an earlier run of this turn failed and is not kept any more; send the message under a new id")
        return said[-1].content

    async def end(self, said: Sequence[Message], *, in_charge: str | None = None, answered: bool = True) -> None:
        """Add what was said, once it is durable, leave the line, and wake the next."""
        if self._ex.leaving is not None:
            return
        async with self._ctx.shield():
            await self._ctx.durable()
            with self._ex.working():
                await self._wake(await self._turns.end(self._run_id, said, in_charge=in_charge, answered=answered))

    async def _wake(self, head: Head) -> None:
        """Those who never come to take the wake are passed over; the line is cleared of them by whoever looks next."""
        for place in head.line:
            try:
                await self._ex.host.handle(place.run_id, None).signal(NEXT, True, id=self._run_id)
            except (RunEnded, RunNotFound):
                continue
            return


def turn_of(ctx: Context, *, handed_over: bool) -> Turn | None:
    """The turn that a run takes; None outside of a session, and for children that only work for one."""
    turn = meta_of(ctx.execution).turn
    if not turn or not (handed_over or turn == ctx.execution.run.run_id):
        return None
    session = services_of(ctx.execution).sessions.of(ctx.execution)
    return None if session is None else Turn(ctx, session, turn)
