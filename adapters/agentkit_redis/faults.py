"""Errors of the driver and of the server, in the words of agentkit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentkit.errors import AgentKitError, InvalidKey, InvalidSetting, StoreBusy, StoreRefused, StoreUnavailable
from agentkit_redis.driver import exceptions as driver

if TYPE_CHECKING:
    from agentkit_redis.settings import RedisSettings

# What a server says before it does anything: the same call may succeed later.
BUSY = {
    "OOM": "its memory is full (maxmemory): give it more, or purge sooner (keep_s)",
    "BUSY": "it is busy with a script that does not end: look at its slow log",
    "LOADING": "it is still loading its data",
    "MISCONF": "it cannot write its snapshot to disk and takes no writes: look at its log, make room",
    "READONLY": "it is a replica and takes no writes: give the address of the primary, or use redis+sentinel://",
    "MASTERDOWN": "it is a replica that lost its primary",
    "NOREPLICAS": "it has too few replicas to take writes (min-replicas-to-write)",
    "CLUSTERDOWN": "some slots of the cluster have no server",
    "MOVED": "the servers of the cluster do not agree yet on who has that slot",
    "TRYAGAIN": "the cluster is moving that slot",
}
FORBIDDEN = {
    "NOAUTH": "needs a user and a password: redis://user:password@host",
    "WRONGPASS": "refuses that user and password",
    "NOPERM": "does not let this user do that: grant it what docs/how-to/operate-redis.md lists",
    "DENIED": "takes no connections from other machines (protected mode): set a password",
}


def translated(exc: BaseException, settings: RedisSettings, *, opening: bool = False) -> BaseException:
    """What to raise, from `exc`, in its stead. While a store is opened a refused user is a wrong setting, later the server's trouble."""
    if isinstance(exc, AgentKitError):
        return exc
    if isinstance(exc, UnicodeEncodeError):
        return InvalidKey(exc.object, "has no UTF-8 form: it holds half of a pair")
    store, text = settings.url, str(exc)
    word = _word(exc, text)
    if word in FORBIDDEN:
        problem = f"the server {FORBIDDEN[word]} ({text})"
        return InvalidSetting("url", store, problem) if opening else StoreUnavailable(store, problem)
    if word in BUSY:
        return StoreBusy(store, f"{BUSY[word]} ({text})")
    if isinstance(exc, driver.ResponseError):
        return StoreRefused(f"{store}: {text}")
    if isinstance(exc, (driver.RedisError, OSError)):  # TimeoutError is an OSError
        return StoreUnavailable(store, text or f"no answer within {settings.timeout_s:g} s")
    return exc


def _word(exc: BaseException, text: str) -> str:
    """The code that an error of the server begins with; the driver cuts off some and has a class for them instead."""
    by_class: dict[type[BaseException], str] = {
        driver.BusyLoadingError: "LOADING",
        driver.ReadOnlyError: "READONLY",
        driver.OutOfMemoryError: "OOM",
        driver.NoPermissionError: "NOPERM",
        driver.AuthenticationWrongNumberOfArgsError: "WRONGPASS",
        driver.AuthenticationError: "NOAUTH",
        driver.ClusterDownError: "CLUSTERDOWN",
        driver.MasterDownError: "MASTERDOWN",
        driver.MovedError: "MOVED",
        driver.TryAgainError: "TRYAGAIN",
    }
    for kind, word in by_class.items():
        if isinstance(exc, kind):
            return "WRONGPASS" if "invalid" in text else word
    # An error inside a script is told with its own code first, too.
    return text.partition(" ")[0].lstrip("-")
