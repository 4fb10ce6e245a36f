"""What runs tell each other: messages, and the ends of children counted for their parents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.ports.records import RunStatus, Signalled
from agentkit_redis.connection import Script, command
from agentkit_redis.rows import utf8, woken
from agentkit_redis.runs_base import AT_ONCE, BRIEF, DUE, EXPIRING, READY_HINTS, UNTOLD, RunsBase, add, rem, settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.ports.queue import Ticket
    from agentkit_redis.connection import Call, Client
    from agentkit_redis.rows import Row

CANCEL = "cancel"
_signal = Script("clock", "run", "signal")
_settle = Script("clock", "run", "settle")


class Joining(RunsBase):
    """The verbs `signal`, `cancel_children` and `tell`."""

    async def signal(self, run_id: str, message_id: str, topic: str, body: bytes) -> Signalled:
        """Put a message in the inbox and wake a parked run. Topic `cancel` ends a run that never started."""
        client = await self.client()
        [signalled] = await self._signal(client, [run_id], message_id, topic, body)
        return signalled

    async def _signal(self, client: Client, run_ids: Sequence[str], message_id: str, topic: str, body: bytes) -> list[Signalled]:
        """The same message to each of these runs."""
        hint = self.hint()
        id_, topic_ = utf8(message_id), utf8(topic)
        lists = [READY_HINTS, UNTOLD, EXPIRING] if topic == CANCEL else [READY_HINTS]
        before = [add(name, hint + run_id if name == READY_HINTS else run_id) for run_id in run_ids for name in lists]

        def signal(some: Sequence[str]) -> Call:
            keys = [self.run_key(run_id, rest) for run_id in some for rest in ("", ":body", ":inbox")]
            return _signal(keys, self.now(), hint, id_, topic_, body)

        answers = await self.on_runs(client, run_ids, signal, before=before, note=True, sync=True)
        return [self._signalled(run_id, answer, hint, lists) for run_id, answer in zip(run_ids, answers, strict=True)]

    def _signalled(self, run_id: str, answer: Sequence[Any], hint: str, lists: Sequence[str]) -> Signalled:
        said, what, *rest = answer if len(answer) > 1 else (answer[0], b"")
        if what == b"woken":
            self._woken_of(run_id, rest[2])
            return Signalled(said.decode(), woken(rest[0], rest[1]))
        self.forget(rem(READY_HINTS, hint + run_id))
        if what == b"ended":
            self._woken_of(run_id, rest[2])
            self.forget(*(() if rest[0] == b"1" else settled(run_id)))
        return Signalled(said.decode(), ended_now=what == b"ended")

    def _woken_of(self, run_id: str, fence: bytes) -> None:
        """Forget the timer that a run no longer waits for."""
        if fence:
            self.forget(rem(DUE, f"{fence.decode()}:{run_id}"))

    async def cancel_children(self, run_id: str, join_key: str | None, body: bytes) -> list[Ticket]:
        """Cancel the live children of a run. Those that never started end at once and are counted in their join at once."""
        client = await self.client()
        groups = [join_key] if join_key is not None else await self.groups(client, run_id)
        tickets: list[Ticket] = []
        for group in groups:
            children = [child.decode() for child in await client.call(command("ZRANGE", self.run_key(run_id, f":children:{group}"), 0, -1))]
            for i in range(0, len(children), AT_ONCE):
                page = children[i : i + AT_ONCE]
                answers = await self._signal(client, page, f"{CANCEL}:{run_id}", CANCEL, body)
                tickets += [answer.ticket for answer in answers if answer.ticket]
                tickets += await self.tell([child for child, answer in zip(page, answers, strict=True) if answer.ended_now])
        return tickets

    async def tell(self, child_ids: Sequence[str]) -> list[Ticket]:
        """Count ended children in their parents' joins, once each."""
        client = await self.client()
        rows = await self.look(client, list(dict.fromkeys(child_ids)), BRIEF)
        joins: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if row is not None and row.run.notify and row.run.parent_id is not None:
                joins.setdefault((row.run.parent_id, row.run.parent_key), []).append(row)
        tickets: list[Ticket] = []
        for (parent_id, group), children in sorted(joins.items()):
            started, whole = await self._settle(client, parent_id, group, children)
            tickets += started
            if whole:
                names = [child.run.run_id for child in children]
                await self.change(client, "told", [(name, "") for name in names])
                self.forget(*(hint for name in names for hint in settled(name)))
        return tickets

    async def _settle(self, client: Client, parent_id: str, group: str, children: Sequence[Row]) -> tuple[list[Ticket], bool]:
        """Count, wake the parent when its condition holds, start the next children. Whether all that were called in have started: one that
        is still being created has not, and the ends that called it in are told again by a sweep.
        """
        tickets: list[Ticket] = []
        words: list[Any] = []
        for child in children:
            good = child.run.status == RunStatus.COMPLETED
            words += ["end", child.run.idx, child.run.run_id, int(good), int(child.window)]
        while True:
            ticket, starting = await self._count(client, parent_id, group, words)
            tickets += [ticket] if ticket else []
            if not starting:
                return tickets, True
            hint = self.hint()
            before = [add(READY_HINTS, hint + name) for name, _ in starting]
            answers = await self.change(client, "start", [(name, "") for name, _ in starting], hint=hint, before=before, note=True)
            words = []
            for (name, idx), (what, *ticketed) in zip(starting, answers, strict=True):
                if what == b"woken":
                    tickets.append(woken(*ticketed))
                else:
                    self.forget(rem(READY_HINTS, hint + name))
                if what != b"missing":
                    words += ["back" if what == b"back" else "started", idx, name, "", ""]
            if not words:
                return tickets, False

    async def _count(self, client: Client, parent_id: str, group: str, words: Sequence[Any]) -> tuple[Ticket | None, list[tuple[str, int]]]:
        """One step of a join: the parent's ticket if this woke it, and the children that are to be started now."""
        hint = self.hint()
        rests = ("", ":body", ":inbox", ":joins", f":counted:{group}", f":waiting:{group}", f":starting:{group}")
        call = _settle([self.run_key(parent_id, rest) for rest in rests], self.now(), hint, group, *words)
        [[told, starting]] = await self.steps(client, [call], before=[add(READY_HINTS, hint + parent_id)], note=True)
        called = [(child.decode(), int(float(idx))) for child, idx in zip(starting[::2], starting[1::2], strict=True)]
        if not told:
            self.forget(rem(READY_HINTS, hint + parent_id))
            return None, called
        self._woken_of(parent_id, told[2])
        return woken(told[0], told[1]), called
