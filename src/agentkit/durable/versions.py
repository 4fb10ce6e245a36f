"""Old journals and new code: which versions a class serves, and its `upcast` over what they recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agentkit.ports.records import Entry


def upcast(entries: Iterable[Entry], version: str, change: Callable[[str, Entry], Entry | None]) -> list[Entry]:
    """The entries as today's code expects them; dropped ones are left out. The seq of an entry is its place in the store: it stays."""
    out: list[Entry] = []
    for entry in entries:
        changed = change(version, entry)
        if changed is not None:
            out.append(changed._replace(seq=entry.seq))
    return out
