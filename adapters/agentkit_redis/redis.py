"""All ports on one deployment of Redis, as one object."""

from __future__ import annotations

from agentkit.clock import SYSTEM, Clock
from agentkit_redis.limits import RedisLimits
from agentkit_redis.queue import RedisQueue
from agentkit_redis.runs import RedisRuns
from agentkit_redis.settings import RedisSettings
from agentkit_redis.values import RedisValues


class Redis:
    """The four ports on one Redis, as `Runtime` takes them: `Runtime(state=redis.runs, queue=redis.queue, …)`. By URL it makes them itself.

    Args:
        url: of one server, of Sentinels or of a cluster.
        clock: the time of timers, leases and expiry; by default the server's own.

    Raises:
        InvalidSetting: the URL is wrong, or has an option that nobody knows.
    """

    def __init__(self, url: str, *, clock: Clock = SYSTEM) -> None:
        self.settings = RedisSettings.from_url(url)
        self.runs = RedisRuns(self.settings, clock)
        self.queue = RedisQueue(self.settings, clock)
        self.values = RedisValues(self.settings, clock)
        self.limits = RedisLimits(self.settings, clock)
