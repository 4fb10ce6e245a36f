"""What may stand in a Redis URL."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit.errors import InvalidSetting
from agentkit_redis.settings import IN_PLACE, RedisSettings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", ("single", False, (("localhost", 6379),), "", 0)),
        ("rediss://host:1234/2", ("single", True, (("host", 1234),), "", 2)),
        ("redis://[::1]:7/0", ("single", False, (("::1", 7),), "", 0)),
        ("redis://[::1]", ("single", False, (("::1", 6379),), "", 0)),
        ("redis+sentinel://a,b:3/main", ("sentinel", False, (("a", 26379), ("b", 3)), "main", 0)),
        ("rediss+sentinel://a/main/4", ("sentinel", True, (("a", 26379),), "main", 4)),
        ("redis+cluster://a:1,b", ("cluster", False, (("a", 1), ("b", 6379)), "", 0)),
    ],
)
def test_a_url_names_servers_and_how_to_reach_them(url: str, expected: tuple[object, ...]) -> None:
    found = RedisSettings.from_url(url)
    assert (found.mode, found.tls, found.addresses, found.service, found.db) == expected


def test_an_account_is_read_and_its_password_is_never_shown() -> None:
    found = RedisSettings.from_url("redis://ann:s%40cret%2F@host:6379/0?prefix=shop&timeout_s=2.5")
    assert found.password is not None
    assert (found.username, found.password.get_secret_value(), found.prefix, found.timeout_s) == ("ann", "s@cret/", "shop", 2.5)
    assert "s@cret" not in f"{found.url} {found!r} {found}"
    assert found.url == "redis://ann@host:6379/0"


@pytest.mark.parametrize(
    ("url", "name", "words"),
    [
        ("redis://", "url", "write redis://host"),
        ("redis:///0", "url", "write redis://host"),
        ("http://host", "url", "no Redis URL"),
        ("redis://host:port/0", "url", "no host:port"),
        ("redis://host/first", "db", "integer"),
        ("redis://host/0?timeout=3", "timeout", "did you mean 'timeout_s'"),
        ("redis://host/0?timeout_s=0", "timeout_s", "greater than 0"),
        ("redis://host/0?prefix={x}", "prefix", "pattern"),
        ("redis+sentinel://host", "url", "names no service"),
        ("redis+cluster://host/3", "db", "prefix="),
        ("redis+cluster://host?wait_replicas=1", "wait_replicas", "cluster"),
    ],
)
def test_what_is_wrong_with_a_url_is_named_with_the_way_out(url: str, name: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as told:
        RedisSettings.from_url(url)
    assert told.value.name == name
    assert words in str(told.value)


def test_the_password_of_a_wrong_url_is_not_shown() -> None:
    with pytest.raises(InvalidSetting) as told:
        RedisSettings.from_url("redis+sentinel://ann:secret@host")
    assert "secret" not in str(told.value)


def test_settings_that_say_the_same_are_the_same() -> None:
    one, same, other = (RedisSettings.from_url(url) for url in ("redis://host/0", "redis://host/0", "redis://host/0?timeout_s=6"))
    assert one == same != other


def shown(default: object) -> str:
    if isinstance(default, float):
        return f"{default:g}"
    return str(default).lower() if default not in {"", None} else "empty"


def test_the_guide_lists_each_option_with_its_default() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "operate-redis.md").read_text().partition("## Set the server up")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| `?(\w+)`? \|", guide, re.MULTILINE)
    listed = {name: default for names, default in rows for name in re.findall(r"\w+", names)}
    assert listed == {name: shown(field.default) for name, field in RedisSettings.model_fields.items() if name not in IN_PLACE}


def test_without_the_driver_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['hiredis'] = None; import agentkit; agentkit.Runtime(state='redis://host')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AdapterNotInstalled" in ended.stderr
    assert "pip install 'agentkit-async[redis]'" in ended.stderr
