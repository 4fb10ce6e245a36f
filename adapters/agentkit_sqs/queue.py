"""The queue on Amazon SQS, standard queues. What SQS cannot promise is told in docs/how-to/operate-sqs.md.

A lease is a visibility timeout, and its fence is kept here: SQS lets an old receipt handle do what it likes, so a lease is answered only
by the client that took it, once, and not after it has run out by this process's own clock. An answer that overtakes its own timeout on
the way is a doubled ticket at worst, which the claim refuses.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from agentkit.clock import SYSTEM
from agentkit.errors import InvalidLimit, QueueFull, StoreCorrupt, StoreError, StoreUnavailable
from agentkit.ports.queue import DeadTicket, Depth, Lease, Ticket
from agentkit_sqs import names
from agentkit_sqs.client import Client, side_by_side
from agentkit_sqs.counts import WAITING, Counts
from agentkit_sqs.driver import POLL_S
from agentkit_sqs.messages import MAX_BATCH, Message, batches, read
from agentkit_sqs.settings import SqsSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock

log = logging.getLogger("agentkit.sqs")

MAX_DELAY_S = 900.0
MAX_VISIBILITY_S = 43_200  # 12 h from its receipt, whatever is renewed
RETRY_AFTER_S = 5.0  # a full queue is many seconds of work, and SQS's counts are late
PEEK_S = 30  # for which a dead letter that somebody looks at is nobody else's
GIVEN_UP = "received too often without an answer (the redrive policy of its queue)"
UNREADABLE = "?"  # the agent of a dead letter that is no ticket; no agent may be called so
GROUP = re.compile(r"[!-~]{1,128}")


class Held(NamedTuple):
    """A message that this client has received."""

    queue: str
    handle: str
    message: Message
    deliveries: int
    until: float
    """By the monotonic clock of this process."""


class SqsQueue:
    """A `Queue` on SQS: one queue for each version of an agent, and one for its dead letters."""

    supports_keys = False
    supports_delay = True
    holds_leases = True

    def __init__(self, settings: SqsSettings) -> None:
        self.settings = settings
        self._client = Client(settings)
        self._counts = Counts(self._client)
        self._held: dict[int, Held] = {}
        self._attempt = 0
        self._turn = 0

    async def open(self) -> None:
        """Find credentials and ask for the queues. Raises `InvalidSetting` (no credentials, no rights, trio), `StoreUnavailable`."""
        await self._client.open()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        """Put tickets. Raises `QueueFull` (by counts that are late), `InvalidLimit` for a delay over 900 s: nothing was written."""
        if not tickets:
            return
        _check_delay(delay_s)
        unique = list({ticket.id: Message(ticket) for ticket in tickets}.values())
        if await self._counts.waiting() + len(unique) > self.settings.max_depth:
            raise QueueFull("queue", self.settings.max_depth, RETRY_AFTER_S)
        await self._send(unique, delay_s)

    async def _send(self, messages: Iterable[Message], delay_s: float = 0.0, *, dead: bool = False) -> None:
        """Put messages into their queues. Raises `StoreUnavailable` when one was not taken: some of the others were."""
        bodies: dict[tuple[str, str], list[str]] = {}
        for message in messages:
            served_by = message.ticket.served_by
            queue = names.dead(self.settings.prefix, served_by) if dead else names.live(self.settings.prefix, served_by)
            bodies.setdefault((queue, message.ticket.tenant), []).append(message.write())
        works = [
            partial(self._send_batch, queue, tenant, batch, math.ceil(delay_s))
            for (queue, tenant), all_of_it in bodies.items()
            for batch in batches(all_of_it)
        ]
        await side_by_side(works)

    async def _send_batch(self, queue: str, tenant: str, bodies: Sequence[str], delay_s: int) -> None:
        more: dict[str, Any] = {"DelaySeconds": delay_s} if delay_s else {}
        if tenant:
            more["MessageGroupId"] = _group(tenant)  # in a standard queue: SQS itself then sees to fair shares
        faults = await self._client.each(queue, "send_message_batch", [{"MessageBody": body, **more} for body in bodies])
        if any(faults):
            problem = f"{sum(map(bool, faults))} of {len(faults)} tickets were not taken by {queue}: {max(faults)}"
            raise StoreUnavailable(self.settings.url, problem)

    async def lease(self, n: int, *, wait_s: float, lease_s: float, kinds: AbstractSet[str]) -> list[Lease]:
        """Up to `n` tickets whose `served_by` is in `kinds`; waits up to `wait_s` (whole seconds) for the first. Empty when none came.

        Cancelled while it waits, it may have been given tickets: they are delivered again when the lease has run out.
        """
        self._forget()
        queues = [names.live(self.settings.prefix, kind) for kind in sorted(kinds)]
        give_up = time.monotonic() + wait_s
        leases = await self._collect(n, lease_s, queues) if len(queues) > 1 or wait_s <= 0 else []
        while n > 0 and queues and not leases and (left_s := give_up - time.monotonic()) > 0:
            leases = await self._await(n, lease_s, self._shares(n, queues), min(POLL_S, math.ceil(left_s)))
        return leases

    async def _collect(self, n: int, lease_s: float, queues: Sequence[str]) -> list[Lease]:
        """What is there, in batches, from each queue its share."""
        leases: list[Lease] = []
        left: list[str] = [*queues]
        while left and len(leases) < n:
            asked = self._shares(n - len(leases), left)
            got = await side_by_side([partial(self._receive, queue, count, lease_s, 0) for queue, count in asked.items()])
            spent = {queue for (queue, count), found in zip(asked.items(), got, strict=True) if len(found) < count}
            leases += [lease for found in got for lease in found]
            left = [queue for queue in left if queue not in spent]
        return leases

    async def _await(self, n: int, lease_s: float, asked: dict[str, int], wait_s: float) -> list[Lease]:
        """The first that come; a queue that is asked alone may have more than one request holds."""
        leases: list[Lease] = []
        errors: list[StoreError] = []

        async def poll(queue: str, count: int) -> None:
            try:
                leases.extend(await self._receive(queue, count, lease_s, wait_s))
            except StoreError as exc:
                errors.append(exc)
            if leases or errors:
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for queue, count in asked.items():
                group.start_soon(poll, queue, count)
        if errors and not leases:
            raise errors[0]
        if len(leases) == MAX_BATCH < n:
            leases += await self._collect(n - len(leases), lease_s, list(asked))
        return leases

    def _shares(self, n: int, queues: Sequence[str]) -> dict[str, int]:
        """How many to ask each queue for: together `n` at most, another queue first each time."""
        self._turn += 1
        start = self._turn % len(queues)
        share, more = divmod(n, len(queues))
        rotated = [*queues[start:], *queues[:start]]
        counts = {queue: min(MAX_BATCH, share + (number < more)) for number, queue in enumerate(rotated)}
        return {queue: count for queue, count in counts.items() if count}

    async def _receive(self, queue: str, count: int, lease_s: float, wait_s: float) -> list[Lease]:
        visible_s = min(MAX_VISIBILITY_S, math.ceil(lease_s))
        leases: list[Lease] = []
        for raw in await self._raw_messages(queue, count, visible_s, wait_s):
            try:
                message = read(raw["Body"])
            except StoreCorrupt as exc:
                log.error("%s; it is left in %s, whose redrive policy gives it up", exc, queue)
                continue
            deliveries = message.had + int(raw["Attributes"]["ApproximateReceiveCount"])
            attempt = self._next_attempt()
            self._held[attempt] = Held(queue, raw["ReceiptHandle"], message, deliveries, time.monotonic() + visible_s)
            leases.append(Lease(message.ticket, attempt, deliveries))
        return leases

    async def _raw_messages(self, queue: str, count: int, visible_s: int, wait_s: float) -> list[Any]:
        answer = await self._client.on(
            queue,
            "receive_message",
            wait_s=wait_s,
            MaxNumberOfMessages=count,
            VisibilityTimeout=visible_s,
            WaitTimeSeconds=int(wait_s),
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        return list(answer.get("Messages", ()))

    def _next_attempt(self) -> int:
        """Microseconds, so that the attempts of a ticket grow also from one process to the next."""
        self._attempt = max(self._attempt + 1, int(SYSTEM.time() * 1e6))
        return self._attempt

    def _forget(self) -> None:
        """Drop leases that nobody answered in time."""
        now = time.monotonic()
        self._held = {attempt: held for attempt, held in self._held.items() if held.until > now}

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> list[bool]:
        """Keep leases for `lease_s` from now, up to 12 h from their receipt. False: it has run out, or is another client's."""
        visible_s = min(MAX_VISIBILITY_S, math.ceil(lease_s))

        async def act(held: Sequence[Held]) -> list[bool]:
            return await self._on_messages(held, "change_message_visibility_batch", VisibilityTimeout=visible_s)

        until = time.monotonic() + visible_s
        return await self._answer(leases, act, until=until)

    async def finish(self, leases: Sequence[Lease]) -> list[bool]:
        """Delete delivered tickets. False: the lease has run out, or is another client's."""
        return await self._answer(leases, self._delete)

    async def give_back(self, leases: Sequence[Lease], *, delay_s: float = 0.0) -> list[bool]:
        """Put them anew as they were, and delete the old ones: to make one visible again would count as a delivery."""
        _check_delay(delay_s)

        async def act(held: Sequence[Held]) -> list[bool]:
            await self._send([Message(one.message.ticket, had=one.deliveries - 1) for one in held], delay_s)
            return await self._delete(held)

        return await self._answer(leases, act)

    async def retry(self, leases: Sequence[Lease], delay_s: float) -> list[bool]:
        """As `give_back`: SQS has no place in a line that could be kept."""
        return await self.give_back(leases, delay_s=delay_s)

    async def bury(self, leases: Sequence[Lease], reason: str) -> list[bool]:
        """Move them to the dead letters."""

        async def act(held: Sequence[Held]) -> list[bool]:
            died_at = SYSTEM.time()
            await self._send([Message(h.message.ticket, reason=reason, deliveries=h.deliveries, died_at=died_at) for h in held], dead=True)
            return await self._delete(held)

        return await self._answer(leases, act)

    async def _answer(
        self, leases: Sequence[Lease], act: Callable[[Sequence[Held]], Awaitable[list[bool]]], *, until: float | None = None
    ) -> list[bool]:
        """Do `act` with the leases that this client holds; they end with it, unless they are kept `until`."""
        self._forget()
        mine = {lease.attempt: held for lease in leases if (held := self._held.pop(lease.attempt, None)) is not None}
        try:
            told = dict(zip(mine, await act(list(mine.values())), strict=True)) if mine else {}
        except BaseException:
            self._held |= mine  # it may not have happened
            raise
        if until is not None:
            self._held |= {attempt: mine[attempt]._replace(until=until) for attempt, done in told.items() if done}
        return [told.pop(lease.attempt, False) for lease in leases]

    async def _delete(self, held: Sequence[Held]) -> list[bool]:
        return await self._on_messages(held, "delete_message_batch")

    async def _on_messages(self, held: Sequence[Held], operation: str, **more: Any) -> list[bool]:
        """One request for ten messages of a queue; whether each was done."""
        by_queue: dict[str, list[Held]] = {}
        for one in held:
            by_queue.setdefault(one.queue, []).append(one)
        chunks = [(queue, ones[i : i + MAX_BATCH]) for queue, ones in by_queue.items() for i in range(0, len(ones), MAX_BATCH)]
        told = await side_by_side(
            [partial(self._client.each, queue, operation, [{"ReceiptHandle": h.handle, **more} for h in chunk]) for queue, chunk in chunks]
        )
        done = {
            h.handle: not fault for (_, chunk), faults in zip(chunks, told, strict=True) for h, fault in zip(chunk, faults, strict=True)
        }
        return [done[h.handle] for h in held]

    async def depth(self) -> dict[str, Depth]:
        """How much waits, as SQS counts it: approximately. `oldest_s` is a bound: no ticket that waits is older."""
        return await self._counts.depth()

    async def dead(self, *, kind: str | None = None, limit: int = 100) -> list[DeadTicket]:
        """The dead letters of an agent (`name` or `name@version`; None: all), the longest dead first. Meanwhile nobody else sees them."""
        found = await self._dead_letters(kind, limit)
        await self._on_messages(found, "change_message_visibility_batch", VisibilityTimeout=0)
        letters = [DeadTicket(m.ticket, m.reason or GIVEN_UP, m.deliveries or h.deliveries, m.died_at) for h in found for m in [h.message]]
        return sorted(letters, key=lambda letter: letter.died_at)[:limit]

    async def _dead_letters(self, kind: str | None, limit: float = math.inf) -> list[Held]:
        found: list[Held] = []
        for queue, place in (await self._client.queues()).items():
            if place.dead and kind in (None, place.served_by, place.served_by.rpartition("@")[0]):
                found += await self._letters_in(queue, limit - len(found))
        return found

    async def _letters_in(self, queue: str, limit: float) -> list[Held]:
        """A request that does not wait asks some of SQS's servers only: as long as there should be more, it is given time to ask all."""
        there = int((await self._client.attributes(queue)).get(WAITING, 0))
        found: list[Held] = []
        while len(found) < limit and (raws := await self._raw_messages(queue, MAX_BATCH, PEEK_S, 1 if len(found) < there else 0)):
            found += [_letter(queue, raw) for raw in raws]
        return found

    async def redrive(self, run_ids: Sequence[str] | None = None, *, kind: str | None = None) -> list[str]:
        """Put dead letters back as new; returns their run ids. What is no ticket stays where it is."""
        wanted = None if run_ids is None else frozenset(run_ids)
        chosen: list[Held] = []
        others: list[Held] = []
        for held in await self._dead_letters(kind):
            ticket = held.message.ticket
            back = ticket.kind != UNREADABLE and (wanted is None or ticket.run_id in wanted)
            (chosen if back else others).append(held)
        await self._on_messages(others, "change_message_visibility_batch", VisibilityTimeout=0)
        await self._send([Message(held.message.ticket) for held in chosen])
        await self._delete(chosen)
        return list(dict.fromkeys(held.message.ticket.run_id for held in chosen))

    async def cancel(self, run_ids: Sequence[str]) -> int:
        """Nothing: SQS finds no message by what is in it. The tickets of a run that has ended are deleted when they come."""
        return 0


def from_url(url: str, *, clock: Clock = SYSTEM) -> SqsQueue:
    """The queues of a deployment: `sqs://REGION/PREFIX`. SQS keeps its own time, whatever the clock. Raises `InvalidSetting`."""
    return SqsQueue(SqsSettings.from_url(url))


def _check_delay(delay_s: float) -> None:
    if delay_s > MAX_DELAY_S:
        raise InvalidLimit("the delay of a ticket in SQS, in seconds (the run store's timers wait longer)", delay_s, MAX_DELAY_S)


def _group(tenant: str) -> str:
    return tenant if GROUP.fullmatch(tenant) else hashlib.sha256(tenant.encode("utf-8", "replace")).hexdigest()


def _letter(queue: str, raw: Any) -> Held:
    """A dead letter. What is no ticket at all is shown as one, so that somebody sees it."""
    attributes = raw["Attributes"]
    try:
        message = read(raw["Body"])
    except StoreCorrupt as exc:
        message = Message(Ticket(raw["MessageId"], UNREADABLE, UNREADABLE), reason=str(exc))
    if not message.died_at:
        message = message._replace(died_at=int(attributes["SentTimestamp"]) / 1000)
    return Held(queue, raw["ReceiptHandle"], message, int(attributes["ApproximateReceiveCount"]) - 1, math.inf)
