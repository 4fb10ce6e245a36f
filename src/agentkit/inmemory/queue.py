"""A queue in this process's memory: for tests, for tutorials, and for runs that nothing needs to outlive the process."""

from __future__ import annotations

from enum import IntEnum
from itertools import count, product
from threading import Lock
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from agentkit.clock import SYSTEM
from agentkit.errors import QueueFull
from agentkit.inmemory.heap import LazyHeap
from agentkit.inmemory.line import FairLine, WeightedTurns
from agentkit.inmemory.run_changes import Waiter
from agentkit.inmemory.url import whole_numbers
from agentkit.ports.queue import DeadTicket, Depth, Lease, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock

WEIGHTS = {0: 1, 1: 3, 2: 8}  # of the priorities: a low ticket waits for at most 11 others, so it ages without being counted
RETRY_AFTER_S = 1.0  # a full queue is many seconds of work: sooner would only ask again in vain
SLACK_S = 1e-6  # a sleep of (due - now) may end a rounding error before `due`


class State(IntEnum):
    """Where a ticket is."""

    READY = 0
    DELAYED = 1
    LEASED = 2
    DEAD = 3
    GONE = 4


class Entry:
    """A ticket in the queue."""

    __slots__ = ("attempt", "born", "deliveries", "due", "place", "state", "ticket")

    def __init__(self, ticket: Ticket, born: float, due: float) -> None:
        self.ticket, self.born = ticket, born
        self.due = due
        """When a delayed one gets ready, or a leased one's lease runs out."""
        self.place = 0
        """Its number in the line, from when it first got ready; 0 until then."""
        self.attempt = 0
        self.deliveries = 0
        self.state = State.GONE


class KeyLine:
    """The ready tickets of one key: only the first is offered, and none while one is leased."""

    __slots__ = ("busy", "offered", "waiting")

    def __init__(self) -> None:
        self.waiting = LazyHeap[Entry](lambda place, entry: entry.state is State.READY and entry.place == place)
        self.offered: Entry | None = None
        self.busy = False


class LeaseWaiter(Waiter):
    """A `lease` that waits until a ticket of its kinds gets ready, or until `wake_at`."""

    def __init__(self, kinds: AbstractSet[str], wake_at: float) -> None:
        super().__init__()
        self.kinds, self.wake_at = kinds, wake_at


class InMemoryQueue:
    """A `Queue` in memory, with everything the port offers.

    Its methods take effect at once and whole, and may be called from several threads and event loops. What it holds ends with the process.

    Args:
        clock: the time of delays, leases and ages.
        max_depth: the most undelivered tickets, ready and delayed together.
    """

    supports_keys = True
    supports_delay = True
    holds_leases = True

    # 1,000,000: about 1 GB; far more than a worker drains before anybody looks, and the machine still lives.
    def __init__(self, clock: Clock = SYSTEM, *, max_depth: int = 1_000_000) -> None:
        self._clock = clock
        self._max_depth = max_depth
        self._lock = Lock()
        self._places = count(1)
        self._attempts = 0  # one row for the whole queue: a zombie's never equals that of a later copy of its ticket
        self._undelivered: dict[str, dict[int, Entry]] = {}  # by run and wake, which is `Ticket.id`
        self._leased: dict[tuple[str, int], Entry] = {}  # by the fence: `Ticket.id` and attempt
        self._dead: dict[str, tuple[Entry, DeadTicket]] = {}  # by `Ticket.id`
        self._delays = LazyHeap[Entry](lambda due, entry: entry.state is State.DELAYED and entry.due == due)
        self._leases = LazyHeap[Entry](lambda due, entry: entry.state is State.LEASED and entry.due == due)
        self._ages: dict[str, LazyHeap[Entry]] = {}  # of the undelivered, by kind
        self._counts: dict[str, list[int]] = {}  # by kind, one number a State
        self._keys: dict[str, KeyLine] = {}
        self._turns = WeightedTurns(WEIGHTS)
        self._lines: dict[tuple[int, str], FairLine[Entry]] = {}  # of what may be leased, by priority and kind
        self._taken: dict[tuple[int, str], int] = {}  # the attempt last taken from each line
        self._waiters: set[LeaseWaiter] = set()

    async def open(self) -> None:
        """Nothing to connect to."""

    async def aclose(self) -> None:
        """Nothing to close: the tickets stay until the object goes."""

    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        """Put tickets; those whose id is still undelivered are dropped. Raises `QueueFull`: nothing of the call was written."""
        with self._lock:
            now = self._settle()
            fresh = self._fresh(tickets)
            self._check_room(len(fresh))
            for ticket in fresh:
                self._await(Entry(ticket, now, now + delay_s), now)

    async def lease(self, n: int, *, wait_s: float, lease_s: float, kinds: AbstractSet[str]) -> list[Lease]:
        """Up to `n` tickets whose `served_by` is in `kinds`; waits up to `wait_s` for the first. Empty when none came."""
        await checkpoint()
        give_up = self._clock.monotonic() + wait_s
        while True:
            with self._lock:
                now = self._settle()
                leases = self._take(n, lease_s, kinds, now)
                if leases or n < 1 or now + SLACK_S >= give_up:
                    return leases
                waiter = LeaseWaiter(kinds, min(give_up, self._next_due()))
                self._waiters.add(waiter)
            try:
                await self._until(waiter.event, waiter.wake_at - now)
            finally:
                with self._lock:
                    self._waiters.discard(waiter)

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> list[bool]:
        return self._answer(leases, lambda entry, now: self._renew(entry, now + lease_s))

    async def finish(self, leases: Sequence[Lease]) -> list[bool]:
        return self._answer(leases, lambda entry, _: self._finish(entry))

    async def give_back(self, leases: Sequence[Lease], *, delay_s: float = 0.0) -> list[bool]:
        """Make them ready again as they were: the delivery does not count, the place in the line is kept."""
        return self._answer(leases, lambda entry, now: self._give_back(entry, delay_s, now))

    async def retry(self, leases: Sequence[Lease], delay_s: float) -> list[bool]:
        return self._answer(leases, lambda entry, now: self._retry(entry, delay_s, now))

    async def bury(self, leases: Sequence[Lease], reason: str) -> list[bool]:
        """Move them to the dead letters."""
        return self._answer(leases, lambda entry, _: self._bury(entry, reason))

    async def depth(self) -> dict[str, Depth]:
        with self._lock:
            now = self._settle()
            return {kind: self._depth(kind, now) for kind, counts in self._counts.items() if any(counts)}

    async def dead(self, *, kind: str | None = None, limit: int = 100) -> list[DeadTicket]:
        """The dead letters of an agent (`name` or `name@version`; None: all), the longest dead first."""
        with self._lock:
            return [dead for _, dead in self._dead.values() if _is_of(kind, dead.ticket)][:limit]

    async def redrive(self, run_ids: Sequence[str] | None = None, *, kind: str | None = None) -> list[str]:
        """Put dead letters back as new; returns their run ids."""
        wanted = None if run_ids is None else frozenset(run_ids)
        with self._lock:
            now = self._settle()
            chosen = [entry for entry, _ in self._dead.values() if _is_of(kind, entry.ticket)]
            chosen = [entry for entry in chosen if wanted is None or entry.ticket.run_id in wanted]
            for entry in chosen:
                self._revive(entry, now)
        return list(dict.fromkeys(entry.ticket.run_id for entry in chosen))

    async def cancel(self, run_ids: Sequence[str]) -> int:
        """Drop undelivered tickets of these runs; returns how many."""
        with self._lock:
            self._settle()
            dropped = [entry for run_id in set(run_ids) for entry in self._undelivered.get(run_id, {}).values()]
            for entry in dropped:
                self._drop(entry)
            return len(dropped)

    # From here on the lock is held.

    def _settle(self) -> float:
        """Bring back what time brings back; returns now."""
        now = self._clock.monotonic()
        while (head := self._leases.head()) and head[0] <= now + SLACK_S:
            self._return(head[1], now, now)
        while (head := self._delays.head()) and head[0] <= now + SLACK_S:
            self._await(head[1], now)
        return now

    def _next_due(self) -> float:
        return min(head[0] if (head := heap.head()) else float("inf") for heap in (self._leases, self._delays))

    def _fresh(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        """Those of which no copy waits, each once."""
        fresh: dict[str, Ticket] = {}
        for ticket in tickets:
            if not self._twin(ticket):
                fresh.setdefault(ticket.id, ticket)
        return list(fresh.values())

    def _twin(self, ticket: Ticket) -> Entry | None:
        """The undelivered copy of this ticket."""
        return self._undelivered.get(ticket.run_id, {}).get(ticket.wake)

    def _check_room(self, more: int) -> None:
        waiting = sum(counts[State.READY] + counts[State.DELAYED] for counts in self._counts.values())
        if more and waiting + more > self._max_depth:
            raise QueueFull("queue", self._max_depth, RETRY_AFTER_S)

    def _take(self, n: int, lease_s: float, kinds: AbstractSet[str], now: float) -> list[Lease]:
        leases: list[Lease] = []
        while len(leases) < n and (entry := self._next(kinds)):
            leases.append(self._deliver(entry, now + lease_s))
        return leases

    def _next(self, kinds: AbstractSet[str]) -> Entry | None:
        """The ticket whose turn it is: among priorities, then among the kinds that the caller serves, then among tenants."""
        heads = {where: head for where in product(WEIGHTS, kinds) if (line := self._lines.get(where)) and (head := line.head())}
        if not heads:
            return None
        turn = self._turns.next({priority for priority, _ in heads})
        where = min((where for where in heads if where[0] == turn), key=lambda where: (self._taken.get(where, 0), heads[where].place))
        self._lines[where].next_tenant(heads[where].ticket.stride)
        self._taken[where] = self._attempts + 1
        return heads[where]

    def _deliver(self, entry: Entry, until: float) -> Lease:
        self._leave_undelivered(entry)
        entry.attempt = self._next_attempt(entry)
        entry.deliveries += 1
        self._leased[entry.ticket.id, entry.attempt] = entry
        if key := self._keys.get(entry.ticket.key):
            key.busy, key.offered = True, None
        self._hold(entry, until)
        return Lease(entry.ticket, entry.attempt, entry.deliveries)

    def _next_attempt(self, _entry: Entry) -> int:
        self._attempts += 1
        return self._attempts

    def _hold(self, entry: Entry, until: float) -> None:
        entry.due = until
        self._move(entry, State.LEASED)
        self._leases.push(until, entry)
        self._wake(lambda waiter: until < waiter.wake_at)

    def _answer(self, leases: Sequence[Lease], act: Callable[[Entry, float], None]) -> list[bool]:
        """Do `act` with each lease that its holder still has; the zombies' are left alone and told so."""
        told: list[bool] = []
        with self._lock:
            now = self._settle()
            for lease in leases:
                entry = self._held(lease)
                told.append(entry is not None)
                if entry:
                    act(entry, now)
        return told

    def _held(self, lease: Lease) -> Entry | None:
        return self._leased.get((lease.ticket.id, lease.attempt))

    def _renew(self, entry: Entry, until: float) -> None:
        self._hold(entry, until)

    def _finish(self, entry: Entry) -> None:
        self._drop(entry)

    def _give_back(self, entry: Entry, delay_s: float, now: float) -> None:
        entry.deliveries -= 1
        self._return(entry, now + delay_s, now)

    def _retry(self, entry: Entry, delay_s: float, now: float) -> None:
        entry.deliveries -= 1
        entry.place = 0
        self._return(entry, now + delay_s, now)

    def _return(self, entry: Entry, due: float, now: float) -> None:
        """Make a leased ticket undelivered again; of two copies the one that is due first stays."""
        twin = self._twin(entry.ticket)
        self._drop(entry)
        if twin:
            twin.deliveries = entry.deliveries = max(twin.deliveries, entry.deliveries)
            if twin.due <= due:
                return
            self._drop(twin)
        entry.due = due
        self._await(entry, now)

    def _bury(self, entry: Entry, reason: str) -> None:
        self._drop(entry)
        if entry.ticket.id in self._dead:
            self._move(self._dead.pop(entry.ticket.id)[0], State.GONE)
        self._move(entry, State.DEAD)
        self._dead[entry.ticket.id] = entry, DeadTicket(entry.ticket, reason, entry.deliveries, self._clock.time())

    def _revive(self, entry: Entry, now: float) -> None:
        del self._dead[entry.ticket.id]
        self._move(entry, State.GONE)
        if not self._twin(entry.ticket):
            self._await(Entry(entry.ticket, now, now), now)

    def _await(self, entry: Entry, now: float) -> None:
        """Let a ticket wait: in the line when it is due, else for its time."""
        kind = entry.ticket.served_by
        self._undelivered.setdefault(entry.ticket.run_id, {})[entry.ticket.wake] = entry
        if entry.state is State.GONE:
            self._ages.setdefault(kind, LazyHeap(_is_undelivered)).push(entry.born, entry)
        if entry.due > now + SLACK_S:
            self._move(entry, State.DELAYED)
            self._delays.push(entry.due, entry)
            self._wake(lambda waiter: entry.due < waiter.wake_at)
            return
        entry.place = entry.place or next(self._places)
        self._move(entry, State.READY)
        if entry.ticket.key:
            self._keys.setdefault(entry.ticket.key, KeyLine()).waiting.push(entry.place, entry)
            self._offer(entry.ticket.key)
        else:
            self._line_up(entry)

    def _offer(self, key: str) -> None:
        """Line up the first ticket of a key, unless one of its tickets is leased."""
        line = self._keys[key]
        head = line.waiting.head()
        if line.busy or (head and head[1] is line.offered):
            return
        line.offered = head[1] if head else None
        if line.offered:
            self._line_up(line.offered)
        else:
            del self._keys[key]

    def _line_up(self, entry: Entry) -> None:
        kind = entry.ticket.served_by
        where = min(max(entry.ticket.priority, 0), 2), kind
        if where not in self._lines:
            self._lines[where] = self._new_line()
        self._lines[where].push(entry.ticket.tenant, entry.place, entry, entry.ticket.stride)
        self._wake(lambda waiter: kind in waiter.kinds)

    def _new_line(self) -> FairLine[Entry]:
        return FairLine(self._is_offered)

    def _is_offered(self, place: float, entry: Entry) -> bool:
        if entry.state is not State.READY or entry.place != place:
            return False
        return not entry.ticket.key or self._keys[entry.ticket.key].offered is entry

    def _drop(self, entry: Entry) -> None:
        """Take a ticket out of wherever it is, and free its key."""
        was, key = entry.state, entry.ticket.key
        if was is State.LEASED:
            del self._leased[entry.ticket.id, entry.attempt]
        else:
            self._leave_undelivered(entry)
        self._move(entry, State.GONE)
        if key in self._keys:
            self._keys[key].busy = self._keys[key].busy and was is not State.LEASED
            self._offer(key)

    def _leave_undelivered(self, entry: Entry) -> None:
        wakes = self._undelivered[entry.ticket.run_id]
        del wakes[entry.ticket.wake]
        if not wakes:
            del self._undelivered[entry.ticket.run_id]

    def _move(self, entry: Entry, state: State) -> None:
        counts = self._counts.setdefault(entry.ticket.served_by, [0] * len(State))
        if entry.state is not State.GONE:
            counts[entry.state] -= 1
        if state is not State.GONE:
            counts[state] += 1
        entry.state = state

    def _depth(self, kind: str, now: float) -> Depth:
        counts, head = self._counts[kind], self._ages[kind].head()
        return Depth(
            counts[State.READY], counts[State.DELAYED], counts[State.LEASED], counts[State.DEAD], oldest_s=now - head[0] if head else 0.0
        )

    def _wake(self, whom: Callable[[LeaseWaiter], bool]) -> None:
        for waiter in [waiter for waiter in self._waiters if whom(waiter)]:
            self._waiters.discard(waiter)
            waiter.wake()

    async def _until(self, event: anyio.Event, timeout_s: float) -> None:
        async with anyio.create_task_group() as group:

            async def time_out() -> None:
                await self._clock.sleep(timeout_s)
                group.cancel_scope.cancel()

            group.start_soon(time_out)
            await event.wait()
            group.cancel_scope.cancel()


def from_url(url: str, *, clock: Clock = SYSTEM) -> InMemoryQueue:
    """A queue of its own for each call: `memory://` or `memory://?max_depth=10000`. Raises `InvalidSetting`."""
    return InMemoryQueue(clock, **whole_numbers(url, {"max_depth"}))


def _is_of(kind: str | None, ticket: Ticket) -> bool:
    return kind is None or kind in {ticket.kind, ticket.served_by}


def _is_undelivered(_born: float, entry: Entry) -> bool:
    return entry.state in {State.READY, State.DELAYED}
