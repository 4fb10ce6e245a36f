"""What may stand in an SQS URL."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from agentkit.errors import InvalidSetting
from agentkit.ports.settings import settings_from


class SqsSettings(BaseModel):
    """The queues of one deployment. Credentials are none of it: they are found as every AWS client finds them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    region: str = Field(pattern=r"^[a-z0-9-]+$")
    prefix: str = Field(pattern=r"^[A-Za-z0-9-]{1,40}$")  # no underscore: `__` ends the prefix in the name of a queue
    endpoint_url: str | None = None  # None: that of AWS in the region; else a VPC endpoint, or a server that speaks SQS
    create: bool = True  # each version of an agent has a queue of its own, and a deployment that brings one should need nobody
    timeout_s: float = Field(default=10.0, gt=0)  # an answer takes 10 to 50 ms; beyond the time of a long poll
    max_connections: int = Field(default=32, ge=1)  # a long poll for each agent and a flush of answers at the same time
    max_depth: int = Field(default=1_000_000, ge=1)  # far more than is drained before anybody looks; SQS itself has no bound
    look_s: float = Field(default=5.0, ge=0)  # the counts of SQS lag by up to a minute, and each look is a paid request for each queue
    visibility_s: int = Field(default=900, ge=0, le=43_200)  # of a queue made here: the longest that a Lambda runs; workers say theirs
    retention_s: int = Field(default=1_209_600, ge=60, le=1_209_600)  # 14 days, the most: a ticket outlives a long outage of the workers

    @classmethod
    def from_url(cls, url: str) -> SqsSettings:
        """Read a URL. Raises `InvalidSetting` naming what is wrong with it."""
        parts = urlsplit(url)
        if parts.scheme != "sqs" or not parts.netloc or not parts.path.strip("/"):
            raise InvalidSetting("url", url, "no SQS URL; write sqs://REGION/PREFIX, as sqs://eu-central-1/agents")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        placed = {"url": f"sqs://{parts.netloc}{parts.path}", "region": parts.netloc, "prefix": parts.path.strip("/")}
        return settings_from(cls, placed, options, "sqs")
