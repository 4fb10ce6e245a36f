"""All that is used of aiobotocore and botocore."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentkit.errors import AdapterNotInstalled

try:
    # They bring no types.
    AioConfig: Any = import_module("aiobotocore.config").AioConfig
    AioSession: Any = import_module("aiobotocore.session").AioSession
    exceptions: Any = import_module("botocore.exceptions")
except ImportError as exc:
    raise AdapterNotInstalled("sqs", "sqs") from exc

if TYPE_CHECKING:
    from agentkit_sqs.settings import SqsSettings

POLL_S = 20.0  # the longest that SQS waits for a message


def session() -> Any:
    """A session that has read what it needs from its files. Blocks: call it in a thread."""
    made: Any = AioSession()
    loader = made.get_component("data_loader")
    for name in ("endpoint-rule-set-1", "service-2"):
        loader.load_service_model("sqs", name)
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data(name)
    made.get_scoped_config()  # ~/.aws/config
    return made


def client(session: Any, settings: SqsSettings) -> AbstractAsyncContextManager[Any]:
    """A client that tries once: who calls knows whether to try again."""
    config: Any = AioConfig(
        connect_timeout=settings.timeout_s,
        read_timeout=settings.timeout_s + POLL_S,
        max_pool_connections=settings.max_connections,
        retries={"total_max_attempts": 1},
    )
    made: AbstractAsyncContextManager[Any] = session.create_client(
        "sqs", region_name=settings.region, endpoint_url=settings.endpoint_url, config=config
    )
    return made


__all__ = ["POLL_S", "client", "exceptions", "session"]
