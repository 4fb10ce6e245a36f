"""What may stand in a `memory://` URL."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from agentkit.errors import InvalidSetting, nearest

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


def whole_numbers(url: str, known: AbstractSet[str]) -> dict[str, int]:
    """The options after the `?` of a `memory://` URL: whole numbers above 0.

    Raises:
        InvalidSetting: another scheme, a host or path, an unknown option (it names the nearest) or a value out of range.
    """
    parts = urlsplit(url)
    if parts.scheme != "memory" or parts.netloc or parts.path:
        raise InvalidSetting("url", url, "write memory://, with options after a ?; what is in memory has no host and no path")
    return {name: _whole_number(name, value, known) for name, value in parse_qsl(parts.query, keep_blank_values=True)}


def _whole_number(name: str, value: str, known: AbstractSet[str]) -> int:
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise InvalidSetting(name, value, f"not an option of memory:// (known: {listed}){nearest(name, known)}")
    if not (value.isascii() and value.isdigit()) or int(value) == 0:
        raise InvalidSetting(name, value, "must be a whole number above 0")
    return int(value)
