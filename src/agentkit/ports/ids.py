"""What an id of a run may be, wherever it is kept."""

from __future__ import annotations

from agentkit.errors import InvalidKey

MAX_ID_BYTES = 512  # what the strictest of the servers can index: an id that fits one store fits them all


def check_id(run_id: str) -> None:
    """Raises `InvalidKey` for an id that a store could not keep byte for byte."""
    try:
        size = len(run_id.encode())
    except UnicodeEncodeError as exc:
        raise InvalidKey(run_id, "a run id is text that has a UTF-8 form") from exc
    if not 0 < size <= MAX_ID_BYTES or "\0" in run_id:
        raise InvalidKey(run_id, f"a run id has 1 to {MAX_ID_BYTES} bytes of UTF-8 without a zero byte")
