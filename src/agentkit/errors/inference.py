"""What a model's server did not do as asked."""

from __future__ import annotations

from typing import ClassVar

from agentkit.errors.base import AgentKitError


class InferenceError(AgentKitError):
    """A model server did not do as asked.

    Each kind says two things to whoever called. `retry_safe`: the same call may be sent again, and may well succeed then.
    `counts_as_failure`: it tells that the endpoint is unwell, so a circuit breaker counts it. A cancelled call raises none of them.

    Args:
        endpoint: the name of the server.
        problem: what it said, or what was seen.
        retry_after_s: when it asked to be left alone for so many seconds.
    """

    retry_safe: ClassVar[bool] = False
    counts_as_failure: ClassVar[bool] = False
    way_out: ClassVar[str] = ""

    def __init__(self, endpoint: str, problem: str, *, retry_after_s: float | None = None) -> None:
        self.endpoint, self.problem, self.retry_after_s = endpoint, problem, retry_after_s
        again = "" if retry_after_s is None else f"; try again in {retry_after_s:g} s"
        super().__init__(f"{endpoint}: {problem}{again}{self.way_out}")


class Unreachable(InferenceError):
    """No connection to the server. Nothing was sent."""

    retry_safe = counts_as_failure = True


class RateLimited(InferenceError):
    """Over the quota at this server. Nothing was computed. It is no sign of illness: a limit, not a breaker, is the answer to it."""

    retry_safe = True


class EngineBusy(InferenceError):
    """The server has too much waiting. Nothing was computed; another one may have room."""

    retry_safe = counts_as_failure = True


class EngineFailed(InferenceError):
    """The server failed by its own fault. An answer may have been computed, and billed."""

    retry_safe = counts_as_failure = True


class InferenceTimeout(InferenceError):
    """No answer in time. One may have been computed, and billed."""

    retry_safe = counts_as_failure = True


class ConnectionCut(InferenceError):
    """The connection ended after the request was sent and before anything came back. An answer may have been computed, and billed."""

    retry_safe = counts_as_failure = True


class StreamBroken(InferenceError):
    """The stream ended without saying why it finished. Part of the answer came, in `text`; it was computed, and billed.

    Not `retry_safe`: whoever listened has heard the first part, and another answer begins with another one.
    """

    counts_as_failure = True

    def __init__(self, endpoint: str, problem: str, *, text: str = "", retry_after_s: float | None = None) -> None:
        self.text = text
        super().__init__(endpoint, problem, retry_after_s=retry_after_s)


class ProtocolBroken(InferenceError):
    """What came back is not what the server's protocol allows. An answer was computed, and billed."""

    counts_as_failure = True
    way_out = "; check the endpoint's URL and dialect"


class AuthFailed(InferenceError):
    """The server refused the endpoint's key. Nothing was computed. It counts as a failure: the next call there would end the same way."""

    counts_as_failure = True
    way_out = "; check the endpoint's api_key"


class ContentFiltered(InferenceError):
    """The server answers no such prompt, or withholds the answer. It may have been computed, and billed."""


class RequestRefused(InferenceError):
    """The request is wrong for this server. Nothing was computed; it would be refused again."""


class ContextTooLong(RequestRefused):
    """Prompt and `max_tokens` do not fit the model's context. Nothing was computed."""

    way_out = "; shorten the prompt or lower max_tokens"


class ModelNotFound(RequestRefused):
    """The server does not serve that model. Nothing was computed."""


class Unsupported(RequestRefused):
    """The server cannot do what is asked, and says so in its capabilities. Nothing was sent."""


class ScriptExhausted(InferenceError):
    """A scripted model was asked once more than it has replies. Nothing happened."""

    way_out = "; give the script one reply for each call"


class NotRecorded(InferenceError):
    """The recording holds no such call. Nothing was sent."""

    way_out = "\nDelete the file to record anew"
