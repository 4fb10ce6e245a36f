"""The ports on Redis 7 without modules: one server, Sentinel or Cluster.

`redis://user:password@host:6379/0`, `redis+sentinel://host1,host2/service`, `redis+cluster://host1,host2`; `rediss` for TLS.
"""

from agentkit_redis.limits import RedisLimits
from agentkit_redis.queue import RedisQueue
from agentkit_redis.redis import Redis
from agentkit_redis.runs import RedisRuns
from agentkit_redis.settings import RedisSettings
from agentkit_redis.values import RedisValues

__all__ = ["Redis", "RedisLimits", "RedisQueue", "RedisRuns", "RedisSettings", "RedisValues"]
