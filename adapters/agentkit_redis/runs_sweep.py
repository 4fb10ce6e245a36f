"""Recovery: workers and their beats, the sweep, and the end of what is kept no longer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from agentkit.errors import WorkerFenced
from agentkit.ports.records import Beat, RunStatus, Swept, TakenOver, WorkerRow
from agentkit_redis.connection import command
from agentkit_redis.rows import ticket_of, woken
from agentkit_redis.runs_base import (
    BRIEF,
    DEAD,
    DUE,
    EXPIRING,
    GRACE_S,
    LIVE,
    PUT,
    READY_HINTS,
    UNTOLD,
    WORKERS,
    add,
    rem,
    settled,
)
from agentkit_redis.runs_create import worker_script
from agentkit_redis.runs_scrub import Scrubbing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentkit.ports.queue import Ticket
    from agentkit_redis.connection import Client
    from agentkit_redis.runs_base import Hint

PAGES = 20  # of a list that a sweep reads when it finds nothing but stale hints
TOKEN = 16  # letters before the id on the list of those without a ticket


class Hinted(NamedTuple):
    """A member of a list, with its score, and the id of the run that it names."""

    member: str
    score: float
    run_id: str


class Sweeping(Scrubbing):
    """The verbs `register`, `beat`, `retire`, `workers`, `sweep`, `ticketed`, `bury` and `revive`."""

    async def register(self, worker_id: str, kinds: str, host: str) -> None:
        """Enter a worker. Raises `WorkerFenced` when that id was declared dead."""
        client = await self.client()
        entered = worker_script(self.worker_keys(worker_id), "register", kinds, host)
        [answer] = await self.steps(client, [entered], before=[add(WORKERS, worker_id)])
        if not answer:
            self.forget(rem(WORKERS, worker_id))
            raise WorkerFenced(worker_id)

    async def beat(self, worker_id: str) -> Beat | None:
        """Say "alive". None: this worker was declared dead, for good."""
        client = await self.client()
        claims = await client.call(worker_script(self.worker_keys(worker_id), "beat"))
        if claims is None:
            return None
        run_ids = sorted({_claimed_run(claim) for claim in claims})
        rows = await self.look(client, run_ids, BRIEF)
        return Beat([row.run.run_id for row in rows if row is not None and row.untaken and row.run.owner == worker_id])

    async def retire(self, worker_id: str) -> None:
        """Declare oneself dead."""
        client = await self.client()
        retired = worker_script(self.worker_keys(worker_id), "retire")
        await self.steps(client, [retired], before=[add(DEAD, worker_id)])
        self.forget(rem(WORKERS, worker_id))

    async def workers(self) -> list[WorkerRow]:
        """The workers that nobody declared dead."""
        client = await self.client()
        return await self._living(client, await self.time(client))

    async def _living(self, client: Client, now: float) -> list[WorkerRow]:
        """Each living worker, in order of ids; the hints of the dead are forgotten."""
        listed = await self._listed_at(client, WORKERS, 0, -1)
        calls = [command("HMGET", self.key(f"w:{one.member}"), "dead", "kinds", "host", "beat") for one in listed]
        [answers] = await client.phases(calls)
        living: list[WorkerRow] = []
        for one, (dead, kinds, host, beat) in zip(listed, answers, strict=True):
            if dead == b"0":
                living.append(WorkerRow(one.member, kinds.decode(), host.decode(), int(beat)))
            elif dead == b"1" or now - one.score > GRACE_S:
                self.forget(rem(WORKERS, one.member))
        return sorted(living)

    async def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Swept:
        """One bounded round of recovery; each step of it stands on its own, so that a crash in it is finished by the next."""
        client = await self.client()
        now = await self.time(client)
        await self._reap(client, reap)
        taken_over = await self._take_over(client, max_crashes, limit, now)
        rung = await self._ring(client, limit, now)
        unticketed = await self._unticketed(client, limit, now)
        lost = await self._lost(client, limit - len(unticketed), now - lost_after_s) if len(unticketed) < limit else []
        untold = await self._untold(client, limit, now)
        beats = {row.worker_id: row.beat for row in await self._living(client, now)}
        await self.scrub(client)
        # Only those to come: one that is overdue was rung above, or is of a park still on its way, which nobody hurries by asking.
        next_due = command("ZRANGEBYSCORE", self.list_key(DUE), f"({now!r}", "+inf", "WITHSCORES", "LIMIT", 0, 1)
        _, [timer] = await client.phases(self.hints(), [next_due])
        return Swept(
            beats=beats,
            taken_over=taken_over,
            tickets=[*unticketed, *lost],
            untold=untold,
            next_timer_s=float(timer[1]) - now if timer else None,
            more=limit <= max(len(taken_over), rung, len(unticketed) + len(lost), len(untold)),
        )

    async def _reap(self, client: Client, reap: Mapping[str, int]) -> None:
        """Declare those dead whose beat is still the one that was seen."""
        if reap:
            calls = [worker_script(self.worker_keys(worker_id), "reap", beat) for worker_id, beat in reap.items()]
            await self.steps(client, calls, before=[add(DEAD, worker_id) for worker_id in reap])

    async def _take_over(self, client: Client, max_crashes: int, limit: int, now: float) -> list[TakenOver]:
        """Free the runs of dead workers, and bury those that were it once too often."""
        taken_over: list[TakenOver] = []
        for one in await self._listed_at(client, DEAD, 0, -1):
            [[dead, claims]] = await client.phases(
                [
                    command("HGET", self.key(f"w:{one.member}"), "dead"),
                    command("SRANDMEMBER", self.worker_keys(one.member)[1], limit - len(taken_over)),
                ]
            )
            if dead == b"1" and claims:
                taken_over += await self._free(client, one.member, claims, max_crashes)
            elif dead == b"1" or now - one.score > GRACE_S:
                self.forget(rem(DEAD, one.member))
            if len(taken_over) >= limit:
                break
        return taken_over

    async def _free(self, client: Client, owner: str, claims: Sequence[bytes], max_crashes: int) -> list[TakenOver]:
        """End these claims of a dead worker, and those it was about to make. They leave its list last."""
        run_ids = sorted({_claimed_run(claim) for claim in claims})
        hint = self.hint()
        before: list[Hint] = []
        for run_id in run_ids:
            before += [add(READY_HINTS, hint + run_id), add(UNTOLD, run_id), add(EXPIRING, run_id)]
        words = [(run_id, owner) for run_id in run_ids]
        answers = await self.change(client, "free", words, f"{max_crashes} {CRASH_LOOP}", hint=hint, before=before, note=True)
        taken_over: list[TakenOver] = []
        for run_id, (what, *crashes) in zip(run_ids, answers, strict=True):
            if what in (b"freed", b"buried"):
                taken_over.append(TakenOver(run_id, owner, int(crashes[0]), what == b"buried"))
            if what != b"freed":
                self.forget(rem(READY_HINTS, hint + run_id))
        await client.call(command("SREM", self.worker_keys(owner)[1], *claims))
        return taken_over

    async def _ring(self, client: Client, limit: int, now: float) -> int:
        """Wake the runs whose timers are due; how many."""
        answer = await client.call(command("ZRANGEBYSCORE", self.list_key(DUE), "-inf", now, "WITHSCORES", "LIMIT", 0, limit))
        due = [one._replace(run_id=one.member.partition(":")[2]) for one in _hinted(answer)]
        if not due:
            return 0
        hint = self.hint()
        before = [add(READY_HINTS, hint + one.run_id) for one in due]
        words = [(one.run_id, one.member.partition(":")[0]) for one in due]
        answers = await self.change(client, "ring", words, hint=hint, before=before, note=True)
        rung = 0
        for one, (what, *more) in zip(due, answers, strict=True):
            if what == b"woken":
                rung += 1
            else:
                self.forget(rem(READY_HINTS, hint + one.run_id))
            if what == b"early":
                self.forget(add(DUE, one.member, more[0]))
            elif what not in (b"missing", b"young") or now - one.score > GRACE_S:
                self.forget(rem(DUE, one.member))
        return rung

    async def _unticketed(self, client: Client, limit: int, now: float) -> list[Ticket]:
        """READY runs without a ticket, those that wait longest first."""
        tickets: dict[str, Ticket] = {}
        for page in range(PAGES):
            listed = await self._listed_at(client, READY_HINTS, page * limit, page * limit + limit - 1)
            listed = [one._replace(run_id=one.member[TOKEN:]) for one in listed]
            for one, row in zip(listed, await self.look(client, [one.run_id for one in listed], BRIEF), strict=True):
                if row is not None and row.run.status == RunStatus.READY and not row.run.ticketed:
                    tickets.setdefault(one.run_id, ticket_of(row.run))
                elif now - one.score > GRACE_S:
                    self.forget(rem(READY_HINTS, one.member))
            if len(tickets) >= limit or len(listed) < limit:
                break
        return list(tickets.values())[:limit]

    async def _lost(self, client: Client, limit: int, before: float) -> list[Ticket]:
        """READY runs whose ticket was put before that moment: none that still waits is so old."""
        answer = await client.call(command("ZRANGEBYSCORE", self.list_key(PUT), "-inf", f"({before!r}", "WITHSCORES", "LIMIT", 0, limit))
        listed = _hinted(answer)
        tickets: list[Ticket] = []
        for one, row in zip(listed, await self.look(client, [one.run_id for one in listed], BRIEF), strict=True):
            if row is None or row.run.status != RunStatus.READY or row.ticketed_at is None:
                self.forget(rem(PUT, one.member, one.score))
            elif row.ticketed_at < before:
                tickets.append(ticket_of(row.run))
            else:
                self.forget(add(PUT, one.member, row.ticketed_at))
        return tickets

    async def _untold(self, client: Client, limit: int, now: float) -> list[str]:
        """Ended children whose parents were not told."""
        untold: list[str] = []
        for page in range(PAGES):
            listed = await self._listed_at(client, UNTOLD, page * limit, page * limit + limit - 1)
            for one, row in zip(listed, await self.look(client, [one.run_id for one in listed], BRIEF), strict=True):
                if row is not None and row.run.status.ended and row.run.notify:
                    untold.append(one.run_id)
                elif (row is not None and row.run.status.ended) or now - one.score > GRACE_S:
                    self.forget(rem(UNTOLD, one.member, one.score))
            if len(untold) >= limit or len(listed) < limit:
                break
        return untold[:limit]

    async def ticketed(self, tickets: Sequence[Ticket]) -> None:
        """Note that these tickets were put."""
        client = await self.client()
        words = [(ticket.run_id, ticket.wake) for ticket in tickets]
        answers = await self.change(client, "ticketed", words, before=[add(PUT, ticket.run_id) for ticket in tickets])
        for ticket, (what, *hint) in zip(tickets, answers, strict=True):
            if what == b"put":
                self.forget(rem(READY_HINTS, hint[0].decode() + ticket.run_id))
        await client.phases(self.hints())

    async def bury(self, run_id: str, reason: bytes) -> bool:
        """READY or PARKED -> BURIED."""
        client = await self.client()
        before = [add(UNTOLD, run_id), add(EXPIRING, run_id)]
        [[what, *notify]] = await self.change(client, "bury", [(run_id, "")], reason, before=before, note=True, sync=True)
        if notify == [b"0"]:
            self.forget(*settled(run_id))
        return bool(what == b"buried")

    async def revive(self, run_id: str) -> Ticket | None:
        """BURIED -> READY with its crashes forgotten."""
        client = await self.client()
        hint = self.hint()
        before = [add(READY_HINTS, hint + run_id)]
        [[what, *more]] = await self.change(client, "revive", [(run_id, "")], hint=hint, before=before, note=True, sync=True)
        if what != b"woken":
            self.forget(rem(READY_HINTS, hint + run_id))
            return None
        self.forget(add(LIVE, run_id, 0))  # after all that was to be forgotten of its end
        await client.phases(self.hints())
        return woken(*more)

    async def _listed_at(self, client: Client, name: str, first: int, last: int) -> list[Hinted]:
        """Part of a list, by rank."""
        return _hinted(await client.call(command("ZRANGE", self.list_key(name), first, last, "WITHSCORES")))


def _hinted(answer: Sequence[Any]) -> list[Hinted]:
    members = [member.decode() for member in answer[::2]]
    return [Hinted(member, float(score), member) for member, score in zip(members, answer[1::2], strict=True)]


def _claimed_run(claim: bytes) -> str:
    """The run that a member of a worker's list of claims names: `fence:run_id`."""
    return claim.decode().partition(":")[2]


CRASH_LOOP = json.dumps({"kind": "RunBuried", "message": "its process ended %d times while it ran; look into the cause, then redrive it"})
"""The result of a run that was buried by a sweep; the script writes the number."""
