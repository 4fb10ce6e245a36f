"""How much waits, by SQS's own counts, which are approximate and late."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from agentkit.clock import SYSTEM
from agentkit.ports.queue import Depth
from agentkit_sqs.client import side_by_side
from agentkit_sqs.faults import NoSuchQueue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentkit_sqs.client import Client

WAITING, DELAYED, LEASED = "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed", "ApproximateNumberOfMessagesNotVisible"


class Counts:
    """The depths of all queues of a deployment, looked at once in `look_s`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._looked_at: float | None = None
        self._depths: dict[str, Depth] = {}
        self._empty_at: dict[str, float] = {}

    async def waiting(self) -> int:
        """Undelivered tickets of all agents."""
        return sum(depth.ready + depth.delayed for depth in (await self.depth()).values())

    async def depth(self) -> dict[str, Depth]:
        """By `name@version`."""
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at >= self._client.settings.look_s:
            self._depths = await self._look(now)
            self._looked_at = now
        return dict(self._depths)

    async def _look(self, now: float) -> dict[str, Depth]:
        queues = await self._client.queues()
        found = dict(zip(queues, await side_by_side([partial(self._attributes, queue) for queue in queues]), strict=True))
        depths: dict[str, Depth] = {}
        for queue, place in queues.items():
            counts = {name: int(found[queue].get(name, 0)) for name in (WAITING, DELAYED, LEASED)}
            depth = depths.get(place.served_by, Depth())
            if place.dead:
                depths[place.served_by] = depth._replace(dead=sum(counts.values()))
                continue
            if not counts[WAITING] + counts[DELAYED]:
                self._empty_at[queue] = now
            oldest_s = oldest_bound(self._empty_at.get(queue), now, SYSTEM.time(), found[queue])
            depths[place.served_by] = Depth(counts[WAITING], counts[DELAYED], counts[LEASED], depth.dead, oldest_s)
        return depths

    async def _attributes(self, queue: str) -> Mapping[str, str]:
        try:
            return await self._client.attributes(queue)
        except NoSuchQueue:
            return {}  # deleted since the list was made


def oldest_bound(empty_at: float | None, now: float, today: float, attributes: Mapping[str, str]) -> float:
    """No ticket that waits is older than this, in seconds: SQS does not tell its age, but when was none there is known.

    A sweep puts a ticket again that must be lost since older ones are gone. Were the age guessed too low, it would double a backlog.

    Args:
        empty_at, now: when the queue was last seen empty, by the monotonic clock; None: never by this process.
        today: seconds since the epoch, as those of the queue's attributes.
    """
    if empty_at is not None:
        return now - empty_at
    made_at, retention_s = float(attributes.get("CreatedTimestamp", 0)), float(attributes.get("MessageRetentionPeriod", "inf"))
    return max(0.0, min(today - made_at, retention_s))
