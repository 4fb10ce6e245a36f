"""The ports on SQL databases: today on SQLite, which needs no server.

`sqlite:///agents.db` names a file, in the working directory; four slashes begin an absolute path. Options follow a `?`:
`busy_timeout_s` (5: how long to wait for another process's transaction) and `max_depth` (1,000,000 undelivered tickets).
"""

from agentkit_sql.database import SqliteSettings
from agentkit_sql.limits import SqlLimits
from agentkit_sql.queue import SqlQueue
from agentkit_sql.runs import SqlRuns
from agentkit_sql.sql import Sql
from agentkit_sql.values import SqlValues

__all__ = ["Sql", "SqlLimits", "SqlQueue", "SqlRuns", "SqlValues", "SqliteSettings"]
