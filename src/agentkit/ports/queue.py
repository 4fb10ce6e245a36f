"""The queue: carries tickets, hints that a run wants a worker. The truth of a run is in the `RunStore`.

Laws (each is a test in `agentkit.testing.queue`):

- At least once: nothing that `put` acknowledged is lost by kill -9 of any process; a lease that ran out is delivered again within
  1.25 leases on a silent queue.
- `finish`, `renew`, `retry`, `give_back` and `bury` are fenced by (ticket, attempt): a zombie's call changes nothing and answers False.
- `deliveries` counts deliveries without an answer: `give_back` and `retry` take theirs back.
- Dedup holds while the first copy is undelivered, by `Ticket.id`; it never swallows a put made after that copy was leased.
- Tickets of one `key` are leased in order, one at a time, between lease and answer (`supports_keys`).
- Priority is by weights with ageing, never strict; FIFO inside a priority.
- Tenants take turns: of those that have tickets waiting in a priority, one whose tickets weigh `w` gets `w` turns for each of one whose
  tickets weigh 1, however much either put. Who comes late begins where the others are, and who has nothing waiting saves nothing up.
  A ticket keeps its weight wherever it goes: delayed, retried, redriven.
- `put` is bounded: over `max_depth` it raises `QueueFull`, nothing written.
- `depth` counts ready, delayed, leased and dead apart, with the age of the oldest, in one round trip.

An implementation holds no policy: it counts deliveries, the worker decides when to bury. Every method raises `StoreUnavailable` when
the broker did not answer (the call may then have happened).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet


class Ticket(NamedTuple):
    """A hint that a run is READY."""

    run_id: str
    kind: str
    version: str
    wake: int = 0
    tenant: str = ""
    priority: int = 1
    """0 low, 1 normal, 2 high."""
    key: str = ""
    trace: str = ""
    weight: int = 1
    """Of its tenant, against the other tenants: 1 or more (less counts as 1)."""

    @property
    def id(self) -> str:
        """The dedup key. It holds the wake: by `run_id` alone a wake would be lost while an old ticket waits."""
        return f"{self.run_id}:{self.wake}"

    @property
    def served_by(self) -> str:
        return f"{self.kind}@{self.version}"

    @property
    def stride(self) -> float:
        """How far the ticket moves its tenant's line on, in turns of a tenant of weight 1."""
        return 1 / max(1, self.weight)


class Lease(NamedTuple):
    """A delivered ticket. (`ticket.id`, `attempt`) is the fence of every answer."""

    ticket: Ticket
    attempt: int
    deliveries: int
    """Deliveries without an answer, this one included."""


class Depth(NamedTuple):
    """How much waits, for one `name@version`."""

    ready: int = 0
    delayed: int = 0
    leased: int = 0
    dead: int = 0
    oldest_s: float = 0.0
    """Age of the oldest undelivered ticket."""


class DeadTicket(NamedTuple):
    ticket: Ticket
    reason: str
    deliveries: int
    died_at: float


class Queue(Protocol):
    """A queue of tickets. See the module for the laws."""

    supports_keys: bool
    supports_delay: bool
    holds_leases: bool
    """Whether a lease can be renewed for hours. Where not, the worker finishes a ticket right after the claim."""

    async def open(self) -> None:
        """Connect and migrate. May be called more than once; each call needs its `aclose`."""
        ...

    async def aclose(self) -> None: ...

    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        """Put tickets; those whose id is still undelivered are dropped. Raises `QueueFull`: nothing of the call was written."""
        ...

    async def lease(self, n: int, *, wait_s: float, lease_s: float, kinds: AbstractSet[str]) -> list[Lease]:
        """Up to `n` tickets whose `served_by` is in `kinds`; waits up to `wait_s` for the first. Empty when none came."""
        ...

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> list[bool]: ...

    async def finish(self, leases: Sequence[Lease]) -> list[bool]: ...

    async def give_back(self, leases: Sequence[Lease], *, delay_s: float = 0.0) -> list[bool]:
        """Make them ready again as they were: the delivery does not count, the place in the line is kept."""
        ...

    async def retry(self, leases: Sequence[Lease], delay_s: float) -> list[bool]: ...

    async def bury(self, leases: Sequence[Lease], reason: str) -> list[bool]:
        """Move them to the dead letters."""
        ...

    async def depth(self) -> dict[str, Depth]: ...

    async def dead(self, *, kind: str | None = None, limit: int = 100) -> list[DeadTicket]: ...

    async def redrive(self, run_ids: Sequence[str] | None = None, *, kind: str | None = None) -> list[str]:
        """Put dead letters back as new; returns their run ids."""
        ...

    async def cancel(self, run_ids: Sequence[str]) -> int:
        """Drop undelivered tickets of these runs; returns how many."""
        ...
