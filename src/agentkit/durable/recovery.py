"""Who is dead: observed, never computed from clocks.

A worker is taken for dead when its beat stayed the same number for one lease of the observer's own monotonic clock. The watch restarts
after any error of the observer's own and after any gap in its observations: a store outage, a jump of the clock or a machine that slept
makes everybody look silent, the observer included, and must kill nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Seen(NamedTuple):
    """A beat, and when this observer first saw it."""

    beat: int
    since: float


class Watch(NamedTuple):
    """What one observer has seen. Start, and restart after an error, with `Watch()`."""

    seen: Mapping[str, Seen] = {}
    looked_at: float | None = None


def observe(watch: Watch, beats: Mapping[str, int], now: float, lease_s: float) -> tuple[Watch, dict[str, int]]:
    """Take a look at all beats at `now` (monotonic).

    Returns the new watch, and the workers that were silent for a lease with the beat they stopped at: they are dead only if the store
    finds that very beat still there.
    """
    unbroken = watch.looked_at is not None and now - watch.looked_at <= lease_s / 2
    before: Mapping[str, Seen] = watch.seen if unbroken else {}
    seen = {worker: _since(before.get(worker), beat, now) for worker, beat in beats.items()}
    silent = {worker: s.beat for worker, s in seen.items() if now - s.since >= lease_s}
    return Watch(seen, now), silent


def _since(before: Seen | None, beat: int, now: float) -> Seen:
    return before if before is not None and before.beat == beat else Seen(beat, now)
