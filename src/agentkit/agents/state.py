"""`ctx.state`: a value that a long-lived run carries from save to save, instead of its whole journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from agentkit.durable.codec import PLAIN, Codec
from agentkit.durable.functions import codec_of
from agentkit.errors import Misuse
from agentkit.ports.records import EntryKind

if TYPE_CHECKING:
    from agentkit.durable.execution import Execution
    from agentkit.durable.identity import Scope

T = TypeVar("T")


class State(Generic[T]):
    """Change `value`, then `save()`: a replay starts at the last save, and nothing older is read again."""

    def __init__(self, execution: Execution, scope: Scope, key: str, value: T, codec: Codec) -> None:
        self.value = value
        self._execution, self._scope, self._key, self._codec = execution, scope, key, codec

    async def save(self) -> None:
        """Journal the value. Durable with the next barrier (an effect, a park, `ctx.durable()`)."""
        ex = self._execution
        body = self._codec.encode(self.value, "ctx.state")
        ex.check_size("ctx.state", body)
        with ex.working():
            await ex.admit()
            counts = PLAIN.encode(self._scope.counts, self._key)
            ex.journal.append(EntryKind.SNAPSHOT, self._key, b'{"counts":' + counts + b',"value":' + body + b"}")


async def restore(ex: Execution, key: str, scope: Scope, initial: T) -> State[T]:
    """The value of the last save, or `initial`. Raises `Misuse` when other verbs came first: a replay would run them again."""
    if scope.path or scope.counts != {"state": 1}:
        raise Misuse("ctx.state() must be the first verb of run(): after a save the journal before it is not read again")
    codec = codec_of(type(initial), "ctx.state")
    snapshot = ex.journal.snapshot
    if snapshot is None:
        first: T = codec.round_trip(initial, "ctx.state")[1]  # as a replay will have it, and not the caller's own object
        return State(ex, scope, key, first, codec)
    saved = PLAIN.decode(snapshot.body, key)
    scope.counts.update(saved["counts"])
    value: T = codec.decode(PLAIN.encode(saved["value"], key), key)
    return State(ex, scope, key, value, codec)
