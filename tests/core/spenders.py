"""What the tests of budgets share: processes that spend from one account, and crash."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from agentkit.errors import BudgetExceeded, StoreUnavailable
from agentkit.inference.budgets import Account, Budget, Budgets
from agentkit.inference.ledger import Ledger
from agentkit.inference.spend import Spend
from agentkit.inmemory.values import InMemoryValues
from agentkit.ports.values import Value, ValueStore

NOW = 1_700_000_000.0


class YieldingValues(InMemoryValues):
    """Values that give way to others before and after they act, as those behind a network do: there writers collide and are cancelled."""

    puts = 0

    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        await anyio.lowlevel.checkpoint()
        found = await super().get(keys)
        await anyio.lowlevel.checkpoint()
        return found

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        await anyio.lowlevel.checkpoint()
        self.puts += 1
        version = await super().put(key, value, expected=expected, ttl_s=ttl_s)
        await anyio.lowlevel.checkpoint()
        return version


class Mortal:
    """The values as one process reaches them: once it is dead, nothing of what it still does arrives."""

    def __init__(self, values: ValueStore) -> None:
        self._values, self.max_value_bytes = values, values.max_value_bytes
        self.dead = False

    async def open(self) -> None:
        await self._values.open()

    async def aclose(self) -> None:
        await self._values.aclose()

    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        self._check()
        return await self._values.get(keys)

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None) -> int:
        self._check()
        return await self._values.put(key, value, expected=expected, ttl_s=ttl_s)

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        self._check()
        return await self._values.delete(key, expected=expected)

    async def scan(self, prefix: str, *, after: str = "", limit: int = 100) -> list[Value]:
        self._check()
        return await self._values.scan(prefix, after=after, limit=limit)

    def _check(self) -> None:
        if self.dead:
            raise StoreUnavailable("values", "this process is dead")


@dataclass
class Call:
    """A step that calls a model: what it may cost, what it costs, and at which turn of the loop its process dies, if it does."""

    key: str
    expected: int
    cost: int
    dies_at: int | None = None


@dataclass
class Fleet:
    """Several processes that spend tokens from one account."""

    values: ValueStore
    limit: int
    processes: int = 3
    granted: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.account = Account(id="run/shared", limit=Budget(tokens=self.limit))
        self.budgets = [Budgets(self.values) for _ in range(self.processes)]

    async def ledger(self) -> Ledger:
        (found,) = await self.budgets[0].look([self.account], now=NOW)
        return found

    async def spend(self, calls: Sequence[Call], chance: random.Random) -> None:
        """All calls at once, each in some process; one whose process died is made again by another."""
        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(self._call, call, chance.randrange(self.processes))

    async def _call(self, call: Call, process: int) -> None:
        if call.dies_at is not None:
            await self._until_it_dies(call)
        await self._whole(call, self.budgets[process])

    async def _until_it_dies(self, call: Call) -> None:
        there = Mortal(self.values)

        async def perform() -> None:
            with suppress(StoreUnavailable):
                await self._whole(call, Budgets(there))

        async with anyio.create_task_group() as group:
            group.start_soon(perform)
            for _ in range(call.dies_at or 0):
                await anyio.lowlevel.checkpoint()
            there.dead = True
            group.cancel_scope.cancel()

    async def _whole(self, call: Call, budgets: Budgets) -> None:
        """Reserve, call, settle; and settle again, for an answer may be lost."""
        try:
            await budgets.reserve([self.account], call.key, Spend(tokens=call.expected), now=NOW)
        except BudgetExceeded:
            self.refused.append(call.key)
            return
        self.granted.append(call.key)
        await self._check()
        for _ in range(2):
            await budgets.settle([self.account], call.key, Spend(tokens=call.cost), now=NOW)
        await self._check()

    async def _check(self) -> None:
        ledger = await self.ledger()
        assert ledger.spent.plus(ledger.reserved).tokens <= self.limit
