"""Errors of the driver and of SQS, in the words of agentkit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from agentkit.errors import AgentKitError, InvalidSetting, StoreBusy, StoreRefused, StoreUnavailable
from agentkit_sqs.driver import exceptions as driver

if TYPE_CHECKING:
    from agentkit_sqs.settings import SqsSettings

MISSING = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
BUSY = {
    "RequestThrottled": "it throttles this account",
    "Throttling": "it throttles this account",
    "ThrottlingException": "it throttles this account",
    "KmsThrottled": "the key service throttles this account: keep data keys for longer (KmsDataKeyReusePeriodSeconds)",
    "OverLimit": "120,000 messages of one queue are in flight: its workers take more than they answer",
}
STRANGERS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
FORBIDDEN = {"AccessDenied", "AccessDeniedException", "AuthFailure", "OptInRequired"}
WITHOUT_KEYS = (driver.NoCredentialsError, driver.PartialCredentialsError, driver.CredentialRetrievalError, driver.ProfileNotFound)


class NoSuchQueue(StoreRefused):
    """A queue is not there, and this process may not make it. Nothing was written."""

    def __init__(self, store: str, queue: str) -> None:
        self.queue = queue
        super().__init__(f"{store}: no queue {queue!r} in this account and region: make it, or leave create=true in the URL")


def translated(exc: BaseException, settings: SqsSettings, *, queue: str = "", opening: bool = False) -> BaseException:
    """What to raise, from `exc`, in its stead. While a queue is opened missing rights are a wrong setting, later the server's trouble."""
    store = settings.url
    if isinstance(exc, AgentKitError):
        return exc
    if isinstance(exc, WITHOUT_KEYS):
        problem = f"no credentials ({exc}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or run under a role"
        return InvalidSetting("url", store, problem) if opening else StoreUnavailable(store, problem)
    if isinstance(exc, driver.ClientError):
        return _answered(exc, store, queue, opening=opening)
    if isinstance(exc, TimeoutError):
        return StoreUnavailable(store, f"no answer within {settings.timeout_s:g} s")
    if isinstance(exc, (driver.BotoCoreError, OSError)):
        return StoreUnavailable(store, str(exc) or type(exc).__name__)
    return exc


def _answered(exc: Any, store: str, queue: str, *, opening: bool) -> BaseException:
    """By the code of an answer that is an error."""
    response = cast("dict[str, dict[str, Any]]", exc.response)
    code, text = str(response["Error"].get("Code", "")), f"{response['Error'].get('Message', exc)}"
    if code in MISSING:
        return NoSuchQueue(store, queue)
    if code in BUSY:
        return StoreBusy(store, f"{BUSY[code]} ({text})")
    if code in STRANGERS | FORBIDDEN:
        rule = "grant what docs/how-to/operate-sqs.md lists" if code in FORBIDDEN else "look at its credentials"
        problem = f"AWS refuses this caller: {rule} ({code}: {text})"
        return InvalidSetting("url", store, problem) if opening else StoreUnavailable(store, problem)
    if int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)) >= 500:
        return StoreUnavailable(store, f"{code}: {text}")
    return StoreRefused(f"{store}: {code}: {text}")
