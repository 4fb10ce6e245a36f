"""What the URLs of all database servers may say, and what follows from it."""

from __future__ import annotations

from pydantic import Field, SecretStr

from agentkit_sql.port import SqlSettings

TIMEOUTS_PER_LEASE = 4.5  # a process that is stopped in a transaction blocks a take-over as long as the server lets it
ANSWER_AFTER = 2.0  # times the server's own timeout: by then it has answered, unless the line is dead


class ServerSettings(SqlSettings):
    """How a server is reached, and how long it may take."""

    host: str = "localhost"  # the clients' own default; for PostgreSQL a folder names a socket
    user: str | None = None  # the driver's default: PGUSER, or the name of the process's user
    password: SecretStr | None = None  # the driver's default: PGPASSWORD, ~/.pgpass; MariaDB's has none
    connect_timeout_s: float = Field(default=5.0, gt=0)  # a server on the same continent answers in milliseconds
    pool_size: int = Field(default=8, ge=1, le=1000)  # beside the lane's and the beat's; two an idle core keep a server busy
    statement_timeout_s: float = Field(default=2.0, gt=0)  # under a quarter of the default lease of 10 s
    idle_in_transaction_s: float = Field(default=2.0, gt=0)  # the same, for a process that stopped between two statements
    max_depth: int = Field(default=1_000_000, ge=1)  # undelivered tickets: about 1 GB, far more than is drained before anybody looks

    @property
    def timeout_s(self) -> float:
        """The longest that the server lets a transaction stand still."""
        return max(self.statement_timeout_s, self.idle_in_transaction_s)

    @property
    def min_lease_s(self) -> float:
        """The shortest lease under which a slow but living worker is never taken for dead."""
        return TIMEOUTS_PER_LEASE * self.timeout_s

    @property
    def answer_s(self) -> float:
        """How long to wait for an answer before the line is given up."""
        return ANSWER_AFTER * self.statement_timeout_s + self.idle_in_transaction_s
