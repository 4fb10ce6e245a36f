"""The ports on SQL databases: SQLite, which needs no server, PostgreSQL and MariaDB.

| URL | options after a `?` |
|---|---|
| `sqlite:///agents.db`; four slashes begin an absolute path | `SqliteSettings` |
| `postgresql://user:password@host/database`, `postgresql+psycopg://…` | `PostgresSettings` |
| `mysql://user:password@host/database`, `mariadb://…` | `MariadbSettings` |

An operation is a script (`dialect.py`): a generator that yields statements and holds the decisions. SQLite's own thread (`sqlite.py`) or an
async driver's connection (`server.py`) carries it out. Where a server deserves statements of its own, its port is a subclass.
"""

from agentkit_sql.database import SqliteSettings
from agentkit_sql.limits import SqlLimits
from agentkit_sql.mariadb import MariadbSettings
from agentkit_sql.postgresql import PostgresSettings
from agentkit_sql.queue import SqlQueue
from agentkit_sql.runs import SqlRuns
from agentkit_sql.sql import Sql
from agentkit_sql.values import SqlValues

__all__ = ["MariadbSettings", "PostgresSettings", "Sql", "SqlLimits", "SqlQueue", "SqlRuns", "SqlValues", "SqliteSettings"]
