"""The run store: rows of runs, their journals and inboxes, and the fence that gives each run one owner at a time.

Laws (each is a test in `agentkit.testing.runs`; a rule marked * has a counterexample in a model checker):

- A run has at most one open claim. `claim` is the only way in*, and it checks in the same statement that the claimer is not dead*.
- Every write checks, in one atomic statement, that the worker is not dead* (locked against a take-over) and that it owns the run
  under that fence*. The verdict is per run: a lost run's rows are absent, its neighbours' rows are there*.
- A write sent twice lands once. No entry lands under an older fence than one already there; no gap, ever.
- A take-over waits for the write in flight; after it the old owner writes nothing, and a load reads all that was acknowledged*.
- Park is a compare-and-set on the inbox that was read*; a signal inserts, counts and wakes in one statement*; taking one is the SIGNAL
  entry and the mark in one write.
- The store's own clock decides timers and expiry; nobody's clock is compared with another's.
- Run ids are compared byte for byte.

An implementation holds no policy: no retry, no timeout, no serialisation of user types. It is safe to call from many tasks at once.
Every method raises `StoreUnavailable` when the store did not answer (a write may then have happened) and `StoreRefused` when the
store refused the data (nothing was written).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.ports.queue import Ticket
    from agentkit.ports.records import (
        Beat,
        Claimed,
        ClaimRefusal,
        Created,
        Entry,
        Message,
        NewRun,
        ParentClaim,
        Run,
        RunQuery,
        RunWrite,
        Signalled,
        Swept,
        WorkerRow,
        Written,
    )


class RunStore(Protocol):
    """Durable runs. See the module for the laws.

    Optional, asked for by name: `remote = True`, where a server writes while this process computes, so that half of the runs shall commit
    while the others go on; `async findings(durability) -> list[Finding]`, what `agentkit doctor` is to say of the server.
    """

    durable: bool
    """Whether what is acknowledged survives the process."""
    min_lease_s: float
    """The shortest lease under which a slow but living worker is never taken for dead here."""

    async def open(self) -> None:
        """Connect and migrate. May be called more than once; each call needs its `aclose`."""
        ...

    async def aclose(self) -> None: ...

    async def register(self, worker_id: str, kinds: str, host: str) -> None:
        """Enter a worker. The id is random and never used again; `kinds` and `host` are for people."""
        ...

    async def beat(self, worker_id: str) -> Beat | None:
        """Say "alive". None: this worker was declared dead, for good. Called from a thread and event loop of its own."""
        ...

    async def retire(self, worker_id: str) -> None:
        """Declare oneself dead: the last act of a worker, after its runs are released."""
        ...

    async def create(self, runs: Sequence[NewRun], *, parent: ParentClaim | None = None) -> list[Created]:
        """Create runs, or find them: the same id, kind and input answers `exists`, another kind or input `conflict`.

        With `parent`, its claim is checked in the same transaction, and at most the join's `window` of its children become READY.
        """
        ...

    async def claim(
        self, worker_id: str, run_ids: Sequence[str], serves: Mapping[str, AbstractSet[str]], *, alone: bool = False
    ) -> list[Claimed | ClaimRefusal]:
        """READY -> RUNNING under the next fence, only for a kind and version in `serves` (kind -> versions)."""
        ...

    async def write(self, worker_id: str, batch: Sequence[RunWrite], *, sync: bool = True) -> list[Written]:
        """Write a batch of runs, each at most once in it, in one transaction; with `sync` it survives a power cut."""
        ...

    async def load(self, run_id: str, *, after: int = 0) -> list[Entry]:
        """The journal in order of seq, in one read: from the newest SNAPSHOT; with `after` from there on, exclusive (-1: everything)."""
        ...

    async def inbox(self, run_id: str) -> list[Message]:
        """All messages in order of arrival, the taken ones too."""
        ...

    async def signal(self, run_id: str, message_id: str, topic: str, body: bytes) -> Signalled:
        """Put a message in the inbox and wake a parked run. Topic `cancel` ends a run that never started."""
        ...

    async def cancel_children(self, run_id: str, join_key: str | None, body: bytes) -> list[Ticket]:
        """Cancel the live children of a run (of one join, or all): those not started end at once. Returns the tickets to put."""
        ...

    async def tell(self, child_ids: Sequence[str]) -> list[Ticket]:
        """Count ended children in their parents' joins, once each; wake parents whose condition holds and siblings in the window."""
        ...

    async def sweep(self, reap: Mapping[str, int], *, max_crashes: int, lost_after_s: float, limit: int) -> Swept:
        """One bounded round of recovery; a crash in it is finished by the next.

        Declares the workers of `reap` dead whose beat is still the number seen, frees dead workers' runs (crashes + 1; BURIED at
        `max_crashes`), makes due timers READY, and finds READY runs without a ticket or with one put more than `lost_after_s` ago.
        """
        ...

    async def ticketed(self, tickets: Sequence[Ticket]) -> None:
        """Note that these tickets were put (a wake since then keeps its own mark)."""
        ...

    async def bury(self, run_id: str, reason: bytes) -> bool:
        """READY or PARKED -> BURIED. False: it was in another state, nothing changed."""
        ...

    async def revive(self, run_id: str) -> Ticket | None:
        """BURIED -> READY with its crashes forgotten. None: it was not buried, nothing changed."""
        ...

    async def workers(self) -> list[WorkerRow]: ...

    async def get(self, run_ids: Sequence[str]) -> list[Run | None]: ...

    async def list(self, query: RunQuery) -> list[Run]: ...

    async def purge(self, limit: int) -> int:
        """Delete at most `limit` expired runs with all that hangs on them, never a child of a run that is still kept."""
        ...

    async def changed(self, seen: int, timeout_s: float) -> int:
        """Wait until something may have changed since the token `seen` (start with 0) or the time is up; return the new token."""
        ...
