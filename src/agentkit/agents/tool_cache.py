"""Results of tools that are kept for a while, where all processes find them, and made once however many ask at the same time.

They lie in the runtime's values, by tool, tenant and arguments. A hit is the result of the step as any other and is journalled, so a
replay does not ask again. The cache is a help and no need: when the store does not answer, the tool does.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import RunVar
from pydantic_core import to_jsonable_python

from agentkit import telemetry
from agentkit.errors import NotSerialisable, StoreError
from agentkit.resilience.settings import above_zero

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from agentkit.durable.codec import Codec
    from agentkit.ports.values import ValueStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """How long the results of a tool are kept, and what makes two calls the same.

    Whose call it is does not count within a tenant: a tool that answers one principal so and another otherwise takes who it is as an
    argument, or is not cached.

    Args:
        ttl_s: seconds that a result is used.
        key: the arguments that matter; default: all. A secret cannot be one of them.
        across_tenants: one tenant's results serve the others: for what is the same to everybody.
    """

    ttl_s: float
    _: KW_ONLY
    key: Sequence[str] | None = None
    across_tenants: bool = False

    def __post_init__(self) -> None:
        above_zero("Cache.ttl_s", self.ttl_s)

    def address(self, tool: str, tenant: str, arguments: Mapping[str, Any]) -> str:
        """Where the result of that call lies."""
        counts = {name: arguments[name] for name in (arguments if self.key is None else self.key)}
        try:
            text = json.dumps([None if self.across_tenants else tenant, to_jsonable_python(counts)], sort_keys=True)
        except (TypeError, ValueError) as exc:
            raise NotSerialisable(f"the arguments of cached tool {tool!r}", "", str(exc)) from exc
        return f"tool/{tool}/{hashlib.sha256(text.encode()).hexdigest()}"


_under_way: RunVar[dict[tuple[int, str], Flight]] = RunVar("agentkit_tool_flights")


class Flight:
    """A result that is being made. Who wants it meanwhile waits; `value` is there when it was made well."""

    def __init__(self) -> None:
        self.landed = anyio.Event()
        self.value: tuple[Any] | None = None


class Kept:
    """The cache of one call.

    Args:
        tool: its name; `values`: where results are kept.
        address: of this call's.
        codec: how they are written.
    """

    def __init__(self, tool: str, values: ValueStore, address: str, codec: Codec, ttl_s: float) -> None:
        self._tool, self._values, self._address, self._codec, self._ttl_s = tool, values, address, codec, ttl_s

    async def or_made(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """The kept result, or the one that is being made, or a new one. Of those who wait the next makes it when the first has failed."""
        flights = _flights()
        at = (id(self._values), self._address)
        while (flight := flights.get(at)) is not None:
            await flight.landed.wait()
            if flight.value is not None:
                self._say("shared")
                return flight.value[0]
        flight = flights[at] = Flight()
        try:
            flight.value = await self._look() or (await self._made(make),)
            return flight.value[0]
        finally:
            del flights[at]
            flight.landed.set()

    def _say(self, outcome: str) -> None:
        telemetry.TOOL_CACHE.say({telemetry.TOOL: self._tool, telemetry.OUTCOME: outcome})

    async def _made(self, make: Callable[[], Awaitable[Any]]) -> Any:
        self._say("made")
        value = await make()
        try:
            await self._values.put(self._address, self._codec.encode(value, self._address), ttl_s=self._ttl_s)
        except NotSerialisable:
            pass  # the step says so
        except StoreError:
            logger.warning("the result of %s was not kept", self._address, exc_info=True)
        return value

    async def _look(self) -> tuple[Any] | None:
        try:
            found = (await self._values.get([self._address])).get(self._address)
            if found is None:
                return None
            value = self._codec.decode(found.value, self._address)
        except NotSerialisable:  # of an older version of the tool
            return None
        except StoreError:
            logger.warning("no look for %s: the store of values does not answer", self._address, exc_info=True)
            return None
        self._say("hit")
        return (value,)


def _flights() -> dict[tuple[int, str], Flight]:
    found = _under_way.get(None)
    if found is None:
        _under_way.set(found := dict[tuple[int, str], Flight]())
    return found
