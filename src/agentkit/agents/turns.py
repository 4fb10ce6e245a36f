"""Whose turn it is in a session, and what was said in it: one small value, the head, changed only by compare-and-set.

The head holds the line of runs that wait for their turn, and the list of turns that have ended. A turn's messages lie beside it, under the
digest of its run. They are written before the head names them: a turn is there whole or not at all, and a long conversation rewrites some
bytes for each turn, never itself. Only the first in the line may add to the conversation. That is the fence: a run that was taken for dead
and went on all the same is not in the line any more, or adds the very same turn, for what it says comes from its journal.

What becomes of the head is decided by pure functions; `Turns` reads, lets them decide, and writes.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import anyio
from pydantic import BaseModel, ConfigDict, Field

from agentkit.durable.functions import codec_of
from agentkit.durable.identity import digest
from agentkit.errors import Overloaded, StoreUnavailable, ValueConflict
from agentkit.inference.tokens import conversation_tokens
from agentkit.ports.messages import Message

if TYPE_CHECKING:
    from agentkit.durable.codec import Codec
    from agentkit.ports.records import Run
    from agentkit.ports.values import ValueStore

DAY_S = 86_400.0
ABSENT_S = 30.0  # a sender that died between its place in the line and its run; one that is only slow gets a new place at the end
RETRY_AFTER_S = 5.0  # told to who is refused: about a turn
TRIES = 60  # with the waits below about ten seconds; somebody always wins, so longer means that the store lies
FIRST_WAIT_S, MAX_WAIT_S = 0.002, 0.25
PAGE = 100  # of keys to delete at a time


class SessionSettings(BaseModel):
    """How much of a session is kept, and for how long. Times run from the last write of what they are about."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    max_waiting: int = Field(default=100, ge=0, le=1_000)  # messages of one session at a time: more is a client gone wild
    keep_messages: int = Field(default=1_000, ge=1, le=20_000)  # far more than a model is shown; more than the most do not fit a head
    keep_tokens: int | None = Field(default=None, ge=1)  # what a model is shown is bounded by the agent; this bounds what is stored
    history_s: float | None = Field(default=90 * DAY_S, gt=0)  # of each turn: nobody comes back to a conversation of last season
    preferences_s: float | None = Field(default=365 * DAY_S, gt=0)  # what a user set should outlive the conversation
    scratchpad_s: float | None = Field(default=DAY_S, gt=0)  # notes of the work at hand
    secrets_s: float | None = Field(default=DAY_S / 3, gt=0)  # a login's working day


class Place(NamedTuple):
    """A run in the line. `absent_since`: store time at which somebody first saw that there is no such run."""

    run_id: str
    absent_since: float | None = None


class Turn(NamedTuple):
    """A turn that has ended. `parts`: in so many values its messages lie. `answered`: not by an error."""

    id: str
    messages: int
    tokens: int
    parts: int
    answered: bool = True


class Head(BaseModel):
    """What is known of a session without reading what was said."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    line: tuple[Place, ...] = ()
    turns: tuple[Turn, ...] = ()
    in_charge: str = ""
    """The agent that a handoff left the conversation to; empty: the session's own."""


class Standing(NamedTuple):
    """How a run stands: `ahead` of it are so many in the line; `ended`: its turn is in the history already."""

    head: Head
    ahead: int
    ended: Turn | None = None


def entered(head: Head, run_id: str, most: float = inf) -> Head:
    """With the run in the line: once, at its end. Raises `Overloaded` when `most` wait there."""
    if standing(head, run_id) is not None:
        return head
    if len(head.line) >= most:
        raise Overloaded("the line of this session", len(head.line), RETRY_AFTER_S)
    return head.model_copy(update={"line": (*head.line, Place(run_id))})


def cleared(head: Head, run_id: str, runs: Mapping[str, Run | None], now: float) -> Head:
    """Without those ahead of the run that will never take their turn: they have ended, or nobody has made them for `ABSENT_S`."""
    line: list[Place] = []
    ahead = True
    for place in head.line:
        ahead = ahead and place.run_id != run_id
        found = _still(place, runs[place.run_id], now) if ahead and place.run_id in runs else place
        if found is not None:
            line.append(found)
    return head.model_copy(update={"line": tuple(line)})


def _still(place: Place, run: Run | None, now: float) -> Place | None:
    if run is not None:
        return None if run.status.ended else Place(place.run_id)
    if place.absent_since is None:
        return Place(place.run_id, now)
    return place if now < place.absent_since + ABSENT_S else None


def standing(head: Head, run_id: str) -> Standing | None:
    """None: it neither waits nor has ended."""
    turn = next((turn for turn in head.turns if turn.id == digest(run_id.encode())), None)
    if turn is not None:
        return Standing(head, 0, turn)
    ahead = next((i for i, place in enumerate(head.line) if place.run_id == run_id), None)
    return None if ahead is None else Standing(head, ahead)


def left(head: Head, run_id: str) -> Head:
    """Without the run in the line."""
    return head.model_copy(update={"line": tuple(place for place in head.line if place.run_id != run_id)})


def added(head: Head, turn: Turn, settings: SessionSettings) -> Head:
    """With the turn as the newest, and without the oldest that are too many. A turn that is there is not added again."""
    if any(known.id == turn.id for known in head.turns):
        return head
    turns = [*head.turns, turn]
    messages, tokens = sum(max(1, t.messages) for t in turns), sum(t.tokens for t in turns)
    while len(turns) > 1 and (messages > settings.keep_messages or (settings.keep_tokens is not None and tokens > settings.keep_tokens)):
        oldest = turns.pop(0)
        messages, tokens = messages - max(1, oldest.messages), tokens - oldest.tokens
    return head.model_copy(update={"turns": tuple(turns)})


class Turns:
    """The turns of one session in a `ValueStore`. Each method is one decision; all raise `StoreUnavailable` when the store is away.

    Args:
        base: what its keys begin with.
        lock: of this process: who changes one head at the same time here queues for it instead of colliding in the store.
    """

    def __init__(self, values: ValueStore, base: str, settings: SessionSettings, lock: anyio.Lock) -> None:
        self._values, self._base, self._settings, self._lock = values, base, settings, lock

    async def head(self) -> Head:
        """As it stands; an empty one for a session nobody has spoken in."""
        return (await self._read())[0]

    async def enter(self, run_id: str) -> int:
        """Take a place at the end of the line, and say how many are in it. Raises `Overloaded`: nothing was written."""
        head = await self._change(lambda head: entered(head, run_id, self._settings.max_waiting))
        return len(head.line)

    async def stand(self, run_id: str, runs: Callable[[Sequence[str]], Awaitable[Sequence[Run | None]]], now: float) -> Standing:
        """How a run stands, after those ahead of it were looked at: `runs` reads their rows. One that lost its place gets a new one."""
        head = await self.head()
        if (found := standing(head, run_id)) is None:
            found = _of(await self._change(lambda head: entered(head, run_id)), run_id)
        if not found.ahead:
            return found
        before = [place.run_id for place in found.head.line[: found.ahead]]
        rows = dict(zip(before, await runs(before), strict=True))
        if cleared(found.head, run_id, rows, now) != found.head:
            found = _of(await self._change(lambda head: cleared(head, run_id, rows, now)), run_id)
        return found

    async def end(self, run_id: str, messages: Sequence[Message] = (), *, in_charge: str | None = None, answered: bool = True) -> Head:
        """Leave the line; what was said is added if it was this run's turn. Done again, it changes nothing."""
        head, _ = await self._read()
        if not head.line or head.line[0].run_id != run_id or not messages:
            return await self._change(lambda head: left(head, run_id))
        turn = (await self._write(run_id, messages))._replace(answered=answered)

        def settled(head: Head) -> Head:
            if not head.line or head.line[0].run_id != run_id:
                return left(head, run_id)
            after = left(added(head, turn, self._settings), run_id)
            return after if in_charge is None else after.model_copy(update={"in_charge": in_charge})

        return await self._forget((*head.turns, turn), await self._change(settled))

    async def append(self, key: str, messages: Sequence[Message]) -> None:
        """Add messages between two turns. The same key again changes nothing."""
        turn = await self._write(f"append:{key}", messages)  # a name space of its own: the key may well be the id of a run
        head, _ = await self._read()
        await self._forget((*head.turns, turn), await self._change(lambda head: added(head, turn, self._settings)))

    async def messages(self, head: Head, *, last: int | None = None) -> list[Message]:
        """What was said, oldest first; with `last` at least so many of the newest, if there are. Turns that have expired are not there."""
        wanted = list(head.turns)
        if last is not None:
            count = 0
            wanted = [turn for turn in reversed(wanted) if (count := count + turn.messages) - turn.messages < last][::-1]
        keys = {turn.id: [self._part(turn.id, i) for i in range(turn.parts)] for turn in wanted}
        found = await self._values.get([key for parts in keys.values() for key in parts]) if keys else {}
        whole = [b"".join(found[key].value for key in parts) for parts in keys.values() if all(key in found for key in parts)]
        return [message for body in whole for message in _codec().decode(body, "the history of a session")]

    async def said(self, turn: Turn) -> list[Message]:
        """What was said in one turn; nothing when it has expired."""
        return await self.messages(Head(turns=(turn,)))

    async def delete(self) -> None:
        """Remove everything under this session's keys."""
        while page := await self._values.scan(self._base, limit=PAGE):
            for value in page:
                await self._values.delete(value.key)

    async def _write(self, key: str, messages: Sequence[Message]) -> Turn:
        """The messages in as many values as they need. Who writes the same turn again writes the same bytes."""
        body, size = _codec().encode(list(messages), "what was said in a turn"), self._values.max_value_bytes
        parts = [body[i : i + size] for i in range(0, len(body), size)]
        turn = Turn(digest(key.encode()), len(messages), conversation_tokens(messages), len(parts))
        for i, part in enumerate(parts):
            await self._values.put(self._part(turn.id, i), part, ttl_s=self._settings.history_s)
        return turn

    async def _forget(self, turns: Sequence[Turn], head: Head) -> Head:
        """Those of the turns that the head does not name: too many, or a session deleted meanwhile. A crash here leaves them to time."""
        kept = {turn.id for turn in head.turns}
        for turn in turns:
            for i in range(turn.parts if turn.id not in kept else 0):
                await self._values.delete(self._part(turn.id, i))
        return head

    def _part(self, id: str, i: int) -> str:
        return f"{self._base}turn/{id}/{i}"

    async def _read(self) -> tuple[Head, int]:
        key = f"{self._base}head"
        value = (await self._values.get([key])).get(key)
        return (Head(), 0) if value is None else (Head.model_validate_json(value.value), value.version)

    async def _change(self, decide: Callable[[Head], Head]) -> Head:
        """Read, decide and write, until nobody came in between. Returns the head as it then stands."""
        async with self._lock:
            for attempt in range(TRIES):
                head, version = await self._read()
                after = decide(head)
                if after == head:
                    return head
                try:
                    body = after.model_dump_json(exclude_defaults=True).encode()
                    await self._values.put(f"{self._base}head", body, expected=version, ttl_s=self._settings.history_s)
                except ValueConflict:
                    await anyio.sleep(random.uniform(0, min(MAX_WAIT_S, FIRST_WAIT_S * 2**attempt)))
                else:
                    return after
        raise StoreUnavailable("values", f"{TRIES} changes of {self._base!r} in a row met another writer")


def _codec() -> Codec:
    return codec_of(list[Message], "what was said")  # made on first use: it takes longer than the rest of the import


def _of(head: Head, run_id: str) -> Standing:
    """Of a run that has just been entered, or is looked at while somebody deletes the session."""
    return standing(head, run_id) or Standing(head, 0)
