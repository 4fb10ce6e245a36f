"""What may stand in a Redis URL."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from agentkit.errors import InvalidSetting
from agentkit.ports.settings import settings_from

Mode: TypeAlias = Literal["single", "sentinel", "cluster"]
Address: TypeAlias = tuple[str, int]

MODES: dict[str, Mode] = {"redis": "single", "redis+sentinel": "sentinel", "redis+cluster": "cluster"}
PORTS: dict[Mode, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}
EXAMPLES = "redis://host:6379/0, redis+sentinel://host1,host2/service or redis+cluster://host1,host2 (rediss for TLS)"
IN_PLACE = ("url", "mode", "tls", "addresses", "service", "db", "username", "password")
"""What the URL says in its places; the other fields are options after its `?`."""


class RedisSettings(BaseModel):
    """A deployment of Redis, and how to talk to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """As it may be shown: without the password."""
    mode: Mode
    tls: bool
    addresses: tuple[Address, ...]
    """Of the server, or of Sentinels or nodes of the cluster: one that answers is enough."""
    service: str = ""
    db: int = Field(default=0, ge=0)
    username: str | None = None
    password: SecretStr | None = None

    prefix: str = Field(default="agentkit", pattern=r"^[^{}\s]{1,100}$")  # braces would hash all keys into one slot of a cluster
    timeout_s: float = Field(default=5.0, gt=0)  # an answer takes under a millisecond; 5 s outlasts a fork of a big server
    connect_timeout_s: float = Field(default=5.0, gt=0)  # a dead host does not answer at all
    max_connections: int = Field(default=16, ge=1)  # a batch takes one for a millisecond; blocking reads have their own
    max_depth: int = Field(default=1_000_000, ge=1)  # undelivered tickets: about 1 GB, far more than is drained before anybody looks
    wait_replicas: int = Field(default=0, ge=0)  # 0: a failover may lose what was acknowledged in the last moments
    wait_aof: bool = False  # needs Redis 7.2; with appendfsync always every server does as much by itself
    ca_file: str = ""  # empty: the authorities that the system trusts
    cert_file: str = ""
    key_file: str = ""
    sentinel_username: str | None = None
    sentinel_password: SecretStr | None = None  # Sentinels keep accounts of their own

    @classmethod
    def from_url(cls, url: str) -> RedisSettings:
        """Read a URL. Raises `InvalidSetting` naming what is wrong with it."""
        parts = urlsplit(url)
        mode = MODES.get(parts.scheme.replace("rediss", "redis", 1))
        if mode is None or not parts.netloc:
            raise InvalidSetting("url", _shown(parts), f"no Redis URL; write {EXAMPLES}")
        options = _options(parts, mode)
        account, _, hosts = parts.netloc.rpartition("@")
        username, _, password = account.partition(":")
        placed: dict[str, Any] = {
            "url": _shown(parts),
            "mode": mode,
            "tls": parts.scheme.startswith("rediss"),
            "addresses": tuple(_address(host, PORTS[mode], parts) for host in hosts.split(",")),
            "username": unquote(username) or None,
            "password": unquote(password) or None,
            **_place(parts, mode),
        }
        return settings_from(cls, placed, options, "redis", in_place=IN_PLACE)


def _options(parts: SplitResult, mode: Mode) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if mode == "cluster" and {"wait_replicas", "wait_aof"} & options.keys():
        raise InvalidSetting("wait_replicas", "", "not offered on a cluster: a batch writes to several of its servers at a time")
    return options


def _place(parts: SplitResult, mode: Mode) -> dict[str, str]:
    """What the path names: a service of Sentinel, or the number of a database."""
    path = unquote(parts.path.strip("/"))
    if mode == "sentinel":
        if not path:
            raise InvalidSetting("url", _shown(parts), "names no service: write redis+sentinel://host1,host2/service")
        service, _, db = path.partition("/")
        return {"service": service, "db": db or "0"}
    if mode == "cluster":
        if path not in ("", "0"):
            raise InvalidSetting("db", path, "a cluster has database 0 alone; keep deployments apart by prefix=")
        return {}
    return {"db": path or "0"}


def _address(text: str, port: int, parts: SplitResult) -> Address:
    host, colon, number = text.rpartition(":")
    if not colon or number.endswith("]"):  # no port, or the colon of an IPv6 address
        host, number = text, str(port)
    if not number.isdecimal() or not host.strip("[]"):
        raise InvalidSetting("url", _shown(parts), f"{text!r} is no host:port")
    return host.strip("[]"), int(number)


def _shown(parts: SplitResult) -> str:
    """The URL without password and options, for messages."""
    account, _, hosts = parts.netloc.rpartition("@")
    username = account.partition(":")[0]
    return f"{parts.scheme}://{username}{'@' if username else ''}{hosts}{parts.path}"
