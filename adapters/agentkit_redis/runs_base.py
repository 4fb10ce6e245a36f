"""What the operations of the run store share: keys, hints, and reading rows."""

from __future__ import annotations

from itertools import chain, count
from secrets import token_hex
from typing import TYPE_CHECKING, Any, TypeVar

from agentkit.clock import SYSTEM
from agentkit.errors import StoreUnavailable
from agentkit_redis.connection import Call, RedisPort, Script, command
from agentkit_redis.rows import to_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agentkit.clock import Clock
    from agentkit_redis.connection import Client
    from agentkit_redis.rows import Row
    from agentkit_redis.settings import RedisSettings

T = TypeVar("T")

AT_ONCE = 500  # runs in one script: a millisecond or two, in which the server answers nobody else
GRACE_S = 60.0  # a hint younger than this may be of a change still on its way; no call takes so long
HINTS = "hints"  # the hash tag of all lists of hints
READY_HINTS, PUT, DUE, UNTOLD, EXPIRING = "ready", "put", "due", "untold", "expiring"
ALL, LIVE, WORKERS, DEAD = "all", "live", "workers", "dead"
WHOLE, BRIEF = ("fixed", "input", "result"), ("fixed",)
_look = Script("look")
_change = Script("clock", "run", "change")
_hints = Script("clock", "hints")

Hint = tuple[str, str, Any, str]
"""`add`, `ensure` or `rem`, the list, a score (empty: now), the member."""


def add(name: str, member: str, score: Any = "") -> Hint:
    return "add", name, score, member


def ensure(name: str, member: str, score: Any = "") -> Hint:
    """Add a member unless it is there already."""
    return "ensure", name, score, member


def rem(name: str, member: str, until: Any = "") -> Hint:
    """Remove a member; with `until` only if its score is not higher, since a later one has a right of its own."""
    return "rem", name, until, member


def settled(run_id: str) -> tuple[Hint, ...]:
    """What is to be forgotten of a run that has ended, once nobody is to be told."""
    return rem(LIVE, run_id), rem(UNTOLD, run_id)


class RunsBase(RedisPort):
    """The state of a run changes in its own hash slot, by one script. Lists over all runs are hints: a run is added before its change and
    removed after it, so a list may name too many runs, never too few; who reads one looks at the runs themselves.
    """

    def __init__(self, settings: RedisSettings, clock: Clock = SYSTEM) -> None:
        super().__init__(settings, clock)
        self._me, self._number = token_hex(4), count()
        self._stale: list[Hint] = []

    def hint(self) -> str:
        """A name, never used before, under which runs are put on the list of those without a ticket."""
        return f"{self._me}{next(self._number) & 0xFFFFFFFF:08x}"

    def hints(self, *changes: Hint) -> list[Call]:
        """The call that changes the lists, if there is anything to change; what is known to be stale goes with it."""
        return [self._hints(changes)] if changes or self._stale else []

    def _hints(self, changes: Sequence[Hint]) -> Call:
        stale, self._stale = self._stale, []
        changes = (*stale, *changes)
        names = list(dict.fromkeys(change[1] for change in changes)) or [LIVE]
        number = {name: i for i, name in enumerate(names, 1)}
        words = chain.from_iterable((verb, number[name], score, member) for verb, name, score, member in changes)
        return _hints([self.list_key(name) for name in names], self.now(), *words)

    def forget(self, *changes: Hint) -> None:
        """Remove these hints with the next call that goes to the lists: a stale one costs a look, nothing else."""
        self._stale += changes

    def _noted(self) -> list[Call]:
        """The call that tells those who wait for a change."""
        return [command("XADD", self.list_key("changes"), "MAXLEN", 1, "*", "x", "")._replace(optional=True)]

    def _kept(self) -> list[Call]:
        """The calls that wait for replicas and for the disk."""
        timeout_ms = int(self.settings.timeout_s * 500)  # half of what the whole exchange may take
        calls = [command("WAIT", self.settings.wait_replicas, timeout_ms)] if self.settings.wait_replicas else []
        return [*calls, command("WAITAOF", 1, 0, timeout_ms)] if self.settings.wait_aof else calls

    def _check_kept(self, answers: Sequence[Any]) -> None:
        for answer in answers:
            on_disk = not isinstance(answer, int)
            have: int = answer[0] if on_disk else answer
            wanted = 1 if on_disk else self.settings.wait_replicas
            if have < wanted:
                where = "the server's disk does not have it" if on_disk else f"{have} of {wanted} replicas have it"
                raise StoreUnavailable(self.settings.url, f"written, but {where} in time: a failover may lose it; sending it again is safe")

    def list_key(self, name: str) -> str:
        return self.key(HINTS, f":{name}")

    async def time(self, client: Client) -> float:
        """The store's clock, seconds since 1970. What is known to be stale leaves the lists with the same call."""
        return float(await client.call(self._hints(())))

    def run_key(self, run_id: str, rest: str = "") -> str:
        return self.key(f"r:{run_id}", rest)

    def worker_keys(self, worker_id: str) -> list[str]:
        return [self.key(f"w:{worker_id}"), self.key(f"w:{worker_id}", ":claims")]

    async def groups(self, client: Client, run_id: str) -> list[str]:
        """The joins and other groups that the children of a run belong to."""
        return sorted(group.decode() for group in await client.call(command("SMEMBERS", self.run_key(run_id, ":groups"))))

    async def steps(
        self, client: Client, calls: Sequence[Call], *, before: Iterable[Hint] = (), note: bool = False, sync: bool = False
    ) -> list[Any]:
        """The answers to calls that change runs.

        Args:
            client: whom to ask.
            calls: they may happen in any order.
            before: hints to set before.
            note: tell those who wait for a change, after.
            sync: wait until replicas and disk have it, if the settings ask for that.
        """
        _, answers, _, kept = await client.phases(self.hints(*before), calls, self._noted() if note else [], self._kept() if sync else [])
        self._check_kept(kept)
        return answers

    async def on_runs(self, client: Client, items: Sequence[T], call: Callable[[Sequence[T]], Call], **how: Any) -> list[Any]:
        """An answer for each of `items`, which are about one run each. `how` as for `steps`."""
        answers = await self.steps(client, split(client, items, call), **how)
        return list(chain.from_iterable(answers))

    async def look(self, client: Client, run_ids: Sequence[str], columns: Sequence[str] = WHOLE) -> list[Row | None]:
        """The rows of these runs, in their order."""
        return [to_row(found) for found in await self.on_runs(client, run_ids, lambda some: _look(self.rows_of(some), *columns))]

    async def change(
        self, client: Client, verb: str, runs: Sequence[tuple[str, Any]], argument: Any = "", *, hint: str = "", **how: Any
    ) -> list[Any]:
        """One change of state for each run: its id, and the word that the verb needs. `how` as for `steps`."""

        def change(some: Sequence[tuple[str, Any]]) -> Call:
            return _change(self.rows_of([run[0] for run in some]), self.now(), hint, verb, argument, *(run[1] for run in some))

        return await self.on_runs(client, runs, change, **how)

    def rows_of(self, run_ids: Iterable[str]) -> list[str]:
        return [key for run_id in run_ids for key in (self.run_key(run_id), self.run_key(run_id, ":body"))]


def split(client: Client, items: Sequence[T], call: Callable[[Sequence[T]], Call]) -> list[Call]:
    """One script for many runs on one server; in a cluster, where each run has a slot, a script for each."""
    size = 1 if client.clustered else AT_ONCE
    return [call(items[i : i + size]) for i in range(0, len(items), size)]


def texts(answer: Sequence[bytes]) -> list[str]:
    return [text.decode() for text in answer]
