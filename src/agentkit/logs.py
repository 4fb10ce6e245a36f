"""Logs that know their run: whatever is logged inside a run carries its id, and the trace it belongs to.

Nothing happens at import. `configure` is for programs (the command line calls it); an application with handlers of its own adds
`Tagged()` to them as a filter, and `JsonFormatter` if it likes it.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TextIO

from agentkit import telemetry
from agentkit.errors import InvalidSetting, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

Style = Literal["json", "text"]
LEVELS = ("debug", "info", "warning", "error", "critical")

_NO_TAGS: Mapping[str, str] = {}
_tags: ContextVar[Mapping[str, str]] = ContextVar("agentkit_log_tags", default=_NO_TAGS)
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "agentkit"}


class bound:
    """Put `tags` (run_id, agent, worker, step, …) on every log record made in the block and in the tasks started from it."""

    __slots__ = ("_tags", "_token")

    def __init__(self, **tags: str) -> None:
        self._tags = tags

    def __enter__(self) -> None:  # a class, for it is entered at every step: a generator costs twice as much
        self._token = _tags.set({**_tags.get(), **self._tags})

    def __exit__(self, *exc: object) -> None:
        _tags.reset(self._token)


def current() -> dict[str, str]:
    """The tags bound here, with `trace_id` and `span_id` when there is a span."""
    tags = dict(_tags.get())
    ids = telemetry.ids()
    if ids is not None:
        tags["trace_id"], tags["span_id"] = ids
    return tags


class Tagged(logging.Filter):
    """Notes the tags on a record while it is still in the task that made it: a queue may carry it to another thread."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "agentkit"):
            record.agentkit = current()
        return True


def _tags_of(record: logging.LogRecord) -> Mapping[str, str]:
    noted: Mapping[str, str] | None = getattr(record, "agentkit", None)
    return current() if noted is None else noted


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, message, the tags, the fields of `extra=`, and `error` with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_tags_of(record),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS and name not in line}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=repr, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, message, then the tags as key=value (ids of spans left out)."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s%(tags)s", "%H:%M:%S")
        self.default_msec_format = "%s.%03d"

    def formatMessage(self, record: logging.LogRecord) -> str:
        shown = [f"{name}={value}" for name, value in _tags_of(record).items() if name not in {"trace_id", "span_id"}]
        record.tags = "".join(f"  {part}" for part in shown)
        return super().formatMessage(record)


class _OurHandler(logging.StreamHandler[TextIO]):
    """Marks the handler that `configure` installed, so that a second call replaces it and nobody else's."""


def configure(style: Style = "text", level: str = "info") -> None:
    """Send the logs of the process to stderr. Raises `InvalidSetting` for a style or level that does not exist."""
    if style not in {"json", "text"}:
        raise InvalidSetting("log", style, f"the style is json or text{nearest(style, ('json', 'text'))}")
    if level.lower() not in LEVELS:
        raise InvalidSetting("log", level, f"the level is one of {', '.join(LEVELS)}{nearest(level, LEVELS)}")
    handler = _OurHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handler.addFilter(Tagged())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _OurHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def configure_from(setting: str) -> None:
    """`configure` from one setting, as in AGENTKIT_LOG: `json`, `text`, `debug`, or both as `json,debug`."""
    style: Style = "text"
    level = "info"
    for word in filter(None, (part.strip().lower() for part in setting.split(","))):
        if word in LEVELS:
            level = word
        elif word == "json":
            style = "json"
        elif word != "text":
            near = nearest(word, ("json", "text", *LEVELS))
            raise InvalidSetting("AGENTKIT_LOG", setting, f"say json or text, a level, or both as json,debug{near}")
    configure(style, level)
