"""Queues that each drop one law."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import count

from agentkit.clock import Clock
from agentkit.errors import QueueFull
from agentkit.inmemory.line import FairLine, WeightedTurns
from agentkit.inmemory.queue import Entry, InMemoryQueue, LeaseWaiter, State
from agentkit.ports.queue import DeadTicket, Depth, Lease, Ticket
from agentkit.testing.queue import QueueContract


class SmallQueue(InMemoryQueue):
    """The queue that is right, as the suite wants it opened."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, max_depth=QueueContract.max_depth)


class AnswersWithoutFence(SmallQueue):
    def _held(self, lease: Lease) -> Entry | None:
        return next((entry for entry in self._leased.values() if entry.ticket.id == lease.ticket.id), None)


class TellsZombiesYes(SmallQueue):
    def _answer(self, leases: Sequence[Lease], act: Callable[[Entry, float], None]) -> list[bool]:
        return [True for _ in super()._answer(leases, act)]


class CountsAttemptsByCopy(SmallQueue):
    def _next_attempt(self, entry: Entry) -> int:
        return entry.attempt + 1


class KeepsTheAttempt(SmallQueue):
    def _next_attempt(self, entry: Entry) -> int:
        return 1


class DedupsByRun(SmallQueue):
    def _twin(self, ticket: Ticket) -> Entry | None:
        return next(iter(self._undelivered.get(ticket.run_id, {}).values()), None)


class SwallowsPutsOfLeasedTickets(SmallQueue):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        leased = {entry.ticket.id for entry in self._leased.values()}
        return [ticket for ticket in super()._fresh(tickets) if ticket.id not in leased]


class SwallowsPutsForEver(SmallQueue):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        seen = self.__dict__.setdefault("seen", set[str]())
        fresh = [ticket for ticket in super()._fresh(tickets) if ticket.id not in seen]
        seen.update(ticket.id for ticket in fresh)
        return fresh


class DropsBothCopies(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        twin = self._twin(entry.ticket)
        if twin:
            self._drop(twin)
            self._drop(entry)
        else:
            super()._return(entry, due, now)


class LosesTrackOfDoubles(SmallQueue):
    def _leave_undelivered(self, entry: Entry) -> None:
        if self._twin(entry.ticket):
            super()._leave_undelivered(entry)


class PutsTwice(LosesTrackOfDoubles):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        return list(tickets)


class DedupsInsideOnePutOnly(LosesTrackOfDoubles):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        return list({ticket.id: ticket for ticket in tickets}.values())


class LosesEachThousandth(SmallQueue):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        return [ticket for ticket in super()._fresh(tickets) if not ticket.run_id.endswith("999")]


class TakesTicketsAlongWhenCancelled(SmallQueue):
    async def lease(self, n: int, *, wait_s: float, lease_s: float, kinds: AbstractSet[str]) -> list[Lease]:
        try:
            return await super().lease(n, wait_s=wait_s, lease_s=lease_s, kinds=kinds)
        except BaseException:
            self._take(n, float("inf"), kinds, 0.0)
            raise


class HandsOutTwice(SmallQueue):
    def _deliver(self, entry: Entry, until: float) -> Lease:
        lease = super()._deliver(entry, until)
        self._await(Entry(entry.ticket, entry.born, 0.0), self._clock.monotonic())
        return lease


class LosesWhatWasNotAnswered(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        self._drop(entry)


class RedeliversOnTrafficOnly(SmallQueue):
    def _next_due(self) -> float:
        return float("inf")


class RedeliversLate(SmallQueue):
    def _hold(self, entry: Entry, until: float) -> None:
        now = self._clock.monotonic()
        super()._hold(entry, now + 1.5 * (until - now))


class RenewsNothing(SmallQueue):
    def _renew(self, entry: Entry, until: float) -> None:
        pass


class KeepsWhatWasFinished(SmallQueue):
    def _finish(self, entry: Entry) -> None:
        self._return(entry, self._clock.monotonic(), self._clock.monotonic())


class CountsGivenBack(SmallQueue):
    def _give_back(self, entry: Entry, delay_s: float, now: float) -> None:
        entry.deliveries += 1
        super()._give_back(entry, delay_s, now)


class CountsRetries(SmallQueue):
    def _retry(self, entry: Entry, delay_s: float, now: float) -> None:
        entry.deliveries += 1
        super()._retry(entry, delay_s, now)


class CountsNoDelivery(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        entry.deliveries = 0
        super()._return(entry, due, now)


class GivesBackToTheEndOfTheLine(SmallQueue):
    def _give_back(self, entry: Entry, delay_s: float, now: float) -> None:
        entry.place = 0
        super()._give_back(entry, delay_s, now)


class LosesThePlaceWithTheLease(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        entry.place = 0
        super()._return(entry, due, now)


class LastFirst(SmallQueue):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._places = count(-1, -1)


class StrictTurns(WeightedTurns):
    def next(self, present: Iterable[int]) -> int:
        return max(present)


class StrictPriority(SmallQueue):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._turns = StrictTurns({})


class NoPriority(SmallQueue):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._turns = WeightedTurns({0: 1, 1: 1, 2: 1})


class FirstTenantOnly(FairLine[Entry]):
    def next_tenant(self, stride: float = 1.0) -> None:
        pass


class UnfairToTenants(SmallQueue):
    def _new_line(self) -> FairLine[Entry]:
        return FirstTenantOnly(self._is_offered)


class FairBetweenBatches(SmallQueue):
    def _take(self, n: int, lease_s: float, kinds: AbstractSet[str], now: float) -> list[Lease]:
        leases = super()._take(1, lease_s, kinds, now)
        rest = [entry for runs in self._undelivered.values() for entry in runs.values() if entry.state is State.READY]
        for entry in sorted(rest, key=lambda entry: entry.place)[: n - 1]:
            if leases and entry.ticket.tenant == leases[0].ticket.tenant:
                leases.append(self._deliver(entry, now + lease_s))
        return leases


class WeighsNobody(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        await super().put([ticket._replace(weight=1) for ticket in tickets], delay_s=delay_s)


class WeighsWhoComesLateByOne(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        late = bool(self._undelivered)
        await super().put([ticket._replace(weight=1) if late else ticket for ticket in tickets], delay_s=delay_s)


class LineFromTheBeginning(FairLine[Entry]):
    def push(self, tenant: str, rank: float, item: Entry, stride: float = 1.0) -> None:
        self._reached = 0.0
        super().push(tenant, rank, item, stride)


class SavesTurnsUp(SmallQueue):
    def _new_line(self) -> FairLine[Entry]:
        return LineFromTheBeginning(self._is_offered)


class ForgetsTheWeightOfADelay(SmallQueue):
    def _await(self, entry: Entry, now: float) -> None:
        if entry.state is State.DELAYED:
            entry.ticket = entry.ticket._replace(weight=1)
        super()._await(entry, now)


class ForgetsTheWeightOfARetry(SmallQueue):
    def _retry(self, entry: Entry, delay_s: float, now: float) -> None:
        entry.ticket = entry.ticket._replace(weight=1)
        super()._retry(entry, delay_s, now)


class RevivesWithoutTheWeight(SmallQueue):
    def _revive(self, entry: Entry, now: float) -> None:
        entry.ticket = entry.ticket._replace(weight=1)
        super()._revive(entry, now)


class TakesNoWeightForMuch(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        await super().put([ticket._replace(weight=ticket.weight if ticket.weight > 0 else 1000) for ticket in tickets], delay_s=delay_s)


class ShufflesATenant(SmallQueue):
    def _line_up(self, entry: Entry) -> None:
        if entry.ticket.tenant and entry.place > 0:
            entry.place = -entry.place
        super()._line_up(entry)


class ForgetsKeys(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        await super().put([ticket._replace(key="") for ticket in tickets], delay_s=delay_s)


class FreesKeysAtTheLease(SmallQueue):
    def _deliver(self, entry: Entry, until: float) -> Lease:
        lease = super()._deliver(entry, until)
        if key := self._keys.get(entry.ticket.key):
            key.busy = False
            self._offer(entry.ticket.key)
        return lease


class FreesKeysAtTheFinishOnly(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        key = self._keys.get(entry.ticket.key)
        super()._return(entry, due, now)
        if key:
            key.busy, key.offered = True, None


class FreesKeysSilently(SmallQueue):
    def _finish(self, entry: Entry) -> None:
        waiters, self._waiters = self._waiters, set[LeaseWaiter]()
        super()._finish(entry)
        self._waiters = waiters


class WakesNobody(SmallQueue):
    def _wake(self, whom: Callable[[LeaseWaiter], bool]) -> None:
        pass


class WaitsForEver(SmallQueue):
    async def lease(self, n: int, *, wait_s: float, lease_s: float, kinds: AbstractSet[str]) -> list[Lease]:
        return await super().lease(n, wait_s=100 * wait_s, lease_s=lease_s, kinds=kinds)


class DelaysNothing(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        await super().put(tickets)


class RetriesAtOnce(SmallQueue):
    def _retry(self, entry: Entry, delay_s: float, now: float) -> None:
        super()._retry(entry, 0.0, now)


class GivesBackAtOnce(SmallQueue):
    def _give_back(self, entry: Entry, delay_s: float, now: float) -> None:
        super()._give_back(entry, 0.0, now)


class DedupsReadyOnly(SmallQueue):
    def _twin(self, ticket: Ticket) -> Entry | None:
        twin = super()._twin(ticket)
        return twin if twin and twin.state is State.READY else None


class HasNoBound(SmallQueue):
    def _check_room(self, more: int) -> None:
        pass


class WritesUntilItIsFull(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        for ticket in tickets:
            await super().put([ticket], delay_s=delay_s)


class CountsDoublesAgainstTheBound(SmallQueue):
    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        self._check_room(len(list(tickets)))
        return super()._fresh(tickets)


class RefusesWithoutATime(SmallQueue):
    def _check_room(self, more: int) -> None:
        try:
            super()._check_room(more)
        except QueueFull as full:
            raise QueueFull("queue", full.limit, 0.0) from full


class NeverHasRoomAgain(SmallQueue):
    def _check_room(self, more: int) -> None:
        super()._check_room(more + self._attempts)


class CountsDelayedAsReady(SmallQueue):
    def _depth(self, kind: str, now: float) -> Depth:
        depth = super()._depth(kind, now)
        return depth._replace(ready=depth.ready + depth.delayed, delayed=0)


class CountsLeasedAsReady(SmallQueue):
    def _depth(self, kind: str, now: float) -> Depth:
        depth = super()._depth(kind, now)
        return depth._replace(ready=depth.ready + depth.leased, leased=0)


class ForgetsTheDeadInDepth(SmallQueue):
    def _depth(self, kind: str, now: float) -> Depth:
        return super()._depth(kind, now)._replace(dead=0)


class TellsNoAge(SmallQueue):
    def _depth(self, kind: str, now: float) -> Depth:
        return super()._depth(kind, now)._replace(oldest_s=0.0)


class AgesFromTheLastReturn(SmallQueue):
    def _return(self, entry: Entry, due: float, now: float) -> None:
        entry.born = now
        super()._return(entry, due, now)


class BringsBackOnLeaseOnly(SmallQueue):
    """What is due stays counted as delayed until somebody asks for a ticket: a fleet of none is never called."""

    async def depth(self) -> dict[str, Depth]:
        with self._lock:
            return {kind: self._depth(kind, self._clock.monotonic()) for kind in self._counts}


class CountsVersionsTogether(SmallQueue):
    async def depth(self) -> dict[str, Depth]:
        return dict.fromkeys(["reviewer@3"], sum_of(await super().depth()))


def sum_of(depths: dict[str, Depth]) -> Depth:
    return Depth(*(int(sum(column)) for column in list(zip(*depths.values(), strict=True))[:4]))


class ServesEverybody(SmallQueue):
    def _next(self, kinds: AbstractSet[str]) -> Entry | None:
        return super()._next({kind for _, kind in self._lines})


class ServesAnyVersion(SmallQueue):
    def _next(self, kinds: AbstractSet[str]) -> Entry | None:
        names = {kind.partition("@")[0] for kind in kinds}
        return super()._next({kind for _, kind in self._lines if kind.partition("@")[0] in names})


class GivesOneMore(SmallQueue):
    def _take(self, n: int, lease_s: float, kinds: AbstractSet[str], now: float) -> list[Lease]:
        return super()._take(n + 1, lease_s, kinds, now)


class BuriesWithoutATrace(SmallQueue):
    def _bury(self, entry: Entry, reason: str) -> None:
        self._drop(entry)


class BuriesWithoutReason(SmallQueue):
    def _bury(self, entry: Entry, reason: str) -> None:
        super()._bury(entry, "")


class ShowsTheDeadOfAll(SmallQueue):
    async def dead(self, *, kind: str | None = None, limit: int = 100) -> list[DeadTicket]:
        return await super().dead(limit=limit)


class RevivesWithOldDeliveries(SmallQueue):
    def _revive(self, entry: Entry, now: float) -> None:
        super()._revive(entry, now)
        self._undelivered[entry.ticket.run_id][entry.ticket.wake].deliveries = entry.deliveries


class RevivesAgainAndAgain(SmallQueue):
    def _revive(self, entry: Entry, now: float) -> None:
        letter = self._dead[entry.ticket.id]
        super()._revive(entry, now)
        self._dead[entry.ticket.id] = letter


class RevivesAll(SmallQueue):
    async def redrive(self, run_ids: Sequence[str] | None = None, *, kind: str | None = None) -> list[str]:
        return await super().redrive()


class CancelsNothing(SmallQueue):
    async def cancel(self, run_ids: Sequence[str]) -> int:
        return len(run_ids) - 1


class CancelsLeased(SmallQueue):
    async def cancel(self, run_ids: Sequence[str]) -> int:
        for entry in [entry for entry in self._leased.values() if entry.ticket.run_id in run_ids]:
            self._drop(entry)
        return await super().cancel(run_ids)


class CancelsReadyOnly(SmallQueue):
    async def cancel(self, run_ids: Sequence[str]) -> int:
        self._settle()
        return await super().cancel([each for each in run_ids if all(e.state is State.READY for e in self._undelivered[each].values())])


class ForgetsFields(SmallQueue):
    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        await super().put([ticket._replace(trace="") for ticket in tickets], delay_s=delay_s)


class ClosesWithTheFirst(SmallQueue):
    async def aclose(self) -> None:
        self._undelivered.clear()
        self._max_depth = 0

    def _check_room(self, more: int) -> None:
        assert more <= self._max_depth, "closed"


class PromisesKeys(SmallQueue):
    supports_keys = False
