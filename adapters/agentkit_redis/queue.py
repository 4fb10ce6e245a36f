"""The queue on Redis Streams. What the scripts in `lua/queue*.lua` do is told in docs/explanation/redis-queue.md."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import anyio

from agentkit.clock import SYSTEM, SystemClock
from agentkit.errors import InvalidKey, QueueFull
from agentkit.ports.queue import DeadTicket, Depth, Lease, Ticket
from agentkit_redis.connection import RedisPort, Script, command
from agentkit_redis.settings import RedisSettings
from agentkit_redis.together import Together

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from collections.abc import Set as AbstractSet

    from agentkit.clock import Clock

PUT = Script("queue", "queue_line", "queue_enter", "queue_put")
LEASE = Script("queue", "queue_lease")
DUE = Script("queue", "queue_line", "queue_enter", "queue_moves", "queue_due")
FINISH = Script("queue", "queue_line", "queue_finish")
RENEW = Script("queue", "queue_renew")
ANSWER = Script("queue", "queue_line", "queue_enter", "queue_moves", "queue_answer")
CANCEL = Script("queue", "queue_line", "queue_enter", "queue_moves", "queue_cancel")
REDRIVE = Script("queue", "queue_line", "queue_enter", "queue_redrive")
DEPTH = Script("queue", "queue_depth")
TIDY = Script("queue", "queue_tidy")

SOMETHING_IS_DUE = -2
FIRST = 10_000_000_000_000  # the numbers of tickets begin here, so that they have the same length for ever
TRIES_BITS = 24
AT_ONCE = 1000  # tickets of one script: a few milliseconds in which the server does nothing else
PAGE = 500  # dead letters of one read
RETRY_AFTER_S = 1.0  # a full queue is many seconds of work: sooner would only ask again in vain
LOOKS_A_LEASE = 4  # while waiting: an expired lease is then given out within 1.25 leases, whatever was not heard of
SHORTEST_WAIT_S = 0.001
CONSUMER_KEPT_S = 3600.0  # for those who look into the group what a worker did last

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class _Put(NamedTuple):
    delay_ms: int
    tickets: list[bytes]


class RedisQueue(RedisPort):
    """A `Queue` in Redis 7 or newer. How much of what `put` acknowledged a crash of the server can lose is the server's setting."""

    supports_keys = True
    supports_delay = True
    holds_leases = True

    def __init__(self, settings: RedisSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self._key = self.key("queue")
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"  # of the consumer, for those who look
        self._puts = Together[_Put, int](self._send_puts, lambda put: len(put.tickets), AT_ONCE)
        self._finishes = Together["Sequence[Lease]", "list[bool]"](self._send_finishes, len, AT_ONCE)

    async def open(self) -> None:
        """Connect, load the scripts, and forget the names of workers that are gone. Raises as the port says, and `InvalidSetting`."""
        await super().open()
        try:
            await self._call(TIDY, _ms(CONSUMER_KEPT_S))
        except BaseException:
            await self.aclose()
            raise

    async def put(self, tickets: Sequence[Ticket], *, delay_s: float = 0.0) -> None:
        """Put tickets; those whose id is still undelivered are dropped. Raises `QueueFull`: nothing of the call was written."""
        if not tickets:
            return
        if not await self._puts(_Put(_ms(delay_s), [_body(ticket) for ticket in tickets])):
            raise QueueFull("queue", self.settings.max_depth, RETRY_AFTER_S)

    async def _send_puts(self, puts: Sequence[_Put]) -> Sequence[int]:
        words: list[Any] = []
        for put in puts:
            words += (len(put.tickets), put.delay_ms, *put.tickets)
        answers: list[int] = await self._call(PUT, self.settings.max_depth, *words)
        return answers

    async def lease(self, n: int, *, wait_s: float, lease_s: float, kinds: AbstractSet[str]) -> list[Lease]:
        """Up to `n` tickets whose `served_by` is in `kinds`; waits up to `wait_s` for the first. Empty when none came."""
        if n < 1:
            return []
        served = sorted(kinds)
        give_up = self.clock.monotonic() + wait_s
        answer = await self._call(LEASE, *self._terms(n, lease_s, served))
        while len(answer) == 1:
            left_s = give_up - self.clock.monotonic()
            if answer[0] == SOMETHING_IS_DUE:
                answer = await self._lease_what_is_due(n, lease_s, served)
            elif left_s <= 0:
                break
            else:
                bound_s = min(left_s, lease_s / LOOKS_A_LEASE, answer[0] / 1000 if answer[0] >= 0 else left_s)
                answer = await self._lease_later(max(bound_s, SHORTEST_WAIT_S), n, lease_s, served)
        return _leases(answer)

    def _terms(self, n: int, lease_s: float, kinds: Sequence[str]) -> tuple[Any, ...]:
        return min(n, AT_ONCE), _ms(lease_s), self._name, *kinds

    async def _lease_what_is_due(self, n: int, lease_s: float, kinds: Sequence[str]) -> list[Any]:
        client = await self.client()
        now = self.now()
        [[_], [answer]] = await client.phases([DUE([self._key], now)], [LEASE([self._key], now, *self._terms(n, lease_s, kinds))])
        return list(answer)

    async def _lease_later(self, wait_s: float, n: int, lease_s: float, kinds: Sequence[str]) -> list[Any]:
        """Lease as soon as there is something, or after `wait_s`: the server does so by itself when its wait has ended."""
        answer: list[Any]
        client = await self.client()
        signs = [f"{self._key}:wake:{kind}" for kind in kinds] or [f"{self._key}:wake:"]
        if isinstance(self.clock, SystemClock):
            wait = command("BZPOPMIN", *signs, round(wait_s, 3))
            then = LEASE([self._key], self.now(), *self._terms(n, lease_s, kinds))
            answer = await client.block_then(wait, then, self._key, wait_s)
            return answer
        async with anyio.create_task_group() as group:
            group.start_soon(self._stop_after, wait_s, group.cancel_scope)
            await client.block(command("BZPOPMIN", *signs, 0), self._key, 3600.0)
            group.cancel_scope.cancel()
        answer = await self._call(LEASE, *self._terms(n, lease_s, kinds))
        return answer

    async def _stop_after(self, wait_s: float, scope: anyio.CancelScope) -> None:
        await self.clock.sleep(wait_s)
        scope.cancel()

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> list[bool]:
        """Keep leases for `lease_s` from now. False: another has it, or nobody."""
        return await self._in_chunks(leases, RENEW, _ms(lease_s), self._name)

    async def finish(self, leases: Sequence[Lease]) -> list[bool]:
        """Take delivered tickets out of the queue. False: another has it, or nobody."""
        return await self._finishes(leases) if leases else []

    async def _send_finishes(self, asked: Sequence[Sequence[Lease]]) -> list[list[bool]]:
        words: list[str] = []
        for leases in asked:
            for lease in leases:
                words += (_member(lease), lease.ticket.served_by, lease.ticket.key)
        told = iter(await self._call(FINISH, *words))
        return [[bool(next(told)) for _ in leases] for leases in asked]

    async def give_back(self, leases: Sequence[Lease], *, delay_s: float = 0.0) -> list[bool]:
        """Make them ready again as they were: the delivery does not count, the place in the line is kept."""
        return await self._in_chunks(leases, ANSWER, "give_back", _ms(delay_s), "")

    async def retry(self, leases: Sequence[Lease], delay_s: float) -> list[bool]:
        """Put them at the end of their lines, after a delay; the delivery does not count."""
        return await self._in_chunks(leases, ANSWER, "retry", _ms(delay_s), "")

    async def bury(self, leases: Sequence[Lease], reason: str) -> list[bool]:
        """Move them to the dead letters."""
        return await self._in_chunks(leases, ANSWER, "bury", 0, reason)

    async def _in_chunks(self, leases: Sequence[Lease], script: Script, *terms: Any) -> list[bool]:
        told: list[int] = []
        for i in range(0, len(leases), AT_ONCE):
            told += await self._call(script, *terms, *map(_member, leases[i : i + AT_ONCE]))
        return [bool(one) for one in told]

    async def depth(self) -> dict[str, Depth]:
        """How much waits, for each `name@version`."""
        found: list[tuple[bytes, int, int, int, int, int]] = await self._call(DEPTH)
        return {
            kind.decode(): Depth(waiting - delayed, delayed, leased, dead, oldest_ms / 1000)
            for kind, waiting, delayed, leased, dead, oldest_ms in found
        }

    async def dead(self, *, kind: str | None = None, limit: int = 100) -> list[DeadTicket]:
        """The dead letters of an agent (`name` or `name@version`; None: all), the longest dead first."""
        found: list[DeadTicket] = []
        async for _, letter in self._dead_letters(kind):
            if len(found) >= limit:
                break
            found.append(letter)
        return found

    async def _dead_letters(self, kind: str | None) -> AsyncIterator[tuple[str, DeadTicket]]:
        """Each with its number, in pages."""
        after = "-"
        while True:
            page: list[Any] = await (await self.client()).call(command("XRANGE", f"{self._key}:dead", after, "+", "COUNT", PAGE))
            for entry, fields in page:
                letter = _dead_letter(fields)
                if kind is None or kind in (letter.ticket.kind, letter.ticket.served_by):
                    yield entry.decode().partition("-")[0], letter
            if len(page) < PAGE:
                return
            after = f"({page[-1][0].decode()}"

    async def redrive(self, run_ids: Sequence[str] | None = None, *, kind: str | None = None) -> list[str]:
        """Put dead letters back as new; returns their run ids."""
        wanted = None if run_ids is None else frozenset(run_ids)
        found = [(number, letter.ticket.run_id) async for number, letter in self._dead_letters(kind)]
        chosen = [one for one in found if wanted is None or one[1] in wanted]
        revived: list[str] = []
        for i in range(0, len(chosen), PAGE):
            page = chosen[i : i + PAGE]
            told = await self._call(REDRIVE, *(number for number, _ in page))
            revived += [run_id for (_, run_id), there in zip(page, told, strict=True) if there]
        return list(dict.fromkeys(revived))

    async def cancel(self, run_ids: Sequence[str]) -> int:
        """Drop undelivered tickets of these runs; returns how many."""
        asked = list(set(run_ids))
        return sum([await self._call(CANCEL, *asked[i : i + AT_ONCE]) for i in range(0, len(asked), AT_ONCE)])

    async def _call(self, script: Script, *words: Any) -> Any:
        client = await self.client()
        return await client.call(script([self._key], self.now(), *words))


def from_url(url: str, *, clock: Clock = SYSTEM) -> RedisQueue:
    """The queue of the deployment that a Redis URL names; `?max_depth=` bounds it. Raises `InvalidSetting`."""
    return RedisQueue(RedisSettings.from_url(url), clock)


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _body(ticket: Ticket) -> bytes:
    """A ticket as the scripts read it, and anybody who looks into the stream."""
    if ticket.priority not in (0, 1, 2):
        ticket = ticket._replace(priority=min(max(ticket.priority, 0), 2))
    try:
        return _encode(ticket).encode()
    except UnicodeEncodeError as exc:
        raise InvalidKey(ticket.run_id, f"a ticket must be text that UTF-8 can write: {exc.reason}") from exc


def _ticket(body: bytes) -> Ticket:
    return Ticket(*_decode(body.decode()))


def _leases(answer: Sequence[Any]) -> list[Lease]:
    """From an answer of the script: in how long there may be more, then number, try, deliveries and ticket of each."""
    words = iter(answer[1:])
    return [
        Lease(_ticket(body), (int(number) - FIRST) << TRIES_BITS | tries, deliveries)
        for number, tries, deliveries, body in zip(words, words, words, words, strict=True)
    ]


def _member(lease: Lease) -> str:
    """A lease as the scripts know it: its attempt names the ticket's number and the try."""
    number, tries = divmod(lease.attempt, 1 << TRIES_BITS)
    return f"{lease.ticket.priority}:{number + FIRST}:{tries}:{lease.ticket.id}"


def _dead_letter(fields: Sequence[bytes]) -> DeadTicket:
    known = dict(zip(fields[::2], fields[1::2], strict=True))
    return DeadTicket(_ticket(known[b"t"]), known[b"reason"].decode(), int(known[b"deliveries"]), int(known[b"died_at"]) / 1000)
