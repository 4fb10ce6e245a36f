"""When a run may park: every task of it waits for a timer, a message or a child, and nothing of it runs.

A wait is registered here with what would wake it. The supervisor of an activation asks `Waits.parkable`; a task that has just been
woken is still on its way to its next call, so the answer only counts when it stays the same for some turns of the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from anyio import Event


class Wait:
    """One task that waits. `until` is store time. A passive one is a time limit over others: it has a time, but no task that waits."""

    __slots__ = ("event", "passive", "topic", "until", "what")

    def __init__(self, event: Event, what: str, topic: str | None, until: float | None, *, passive: bool = False) -> None:
        self.event, self.what, self.topic, self.until, self.passive = event, what, topic, until, passive


class ParkPlan(NamedTuple):
    """What the park row says."""

    wake_at: float | None
    waiting_for: str


class Waits:
    """Counts what runs and keeps what waits."""

    __slots__ = ("busy", "epoch", "waiting")

    def __init__(self) -> None:
        self.busy = 0
        self.epoch = 0
        self.waiting: list[Wait] = []

    def add(self, wait: Wait) -> None:
        self.waiting.append(wait)
        self.epoch += 1

    def remove(self, wait: Wait) -> None:
        self.waiting.remove(wait)
        self.epoch += 1

    @property
    def parkable(self) -> bool:
        return not self.busy and any(not w.passive for w in self.waiting) and not any(w.event.is_set() for w in self.waiting)

    def next_due(self) -> float | None:
        """Store time of the earliest timer."""
        return min((w.until for w in self.waiting if w.until is not None), default=None)

    def fire(self, now: float) -> None:
        """Wake the waits whose time has come."""
        for wait in self.waiting:
            if wait.until is not None and wait.until <= now:
                wait.event.set()

    def wake(self, topic: str | None = None) -> None:
        """Wake those who wait for `topic`, or all."""
        for wait in self.waiting:
            if topic is None or wait.topic == topic:
                wait.event.set()

    def plan(self, deadline: float | None) -> ParkPlan:
        due = [t for t in (self.next_due(), deadline) if t is not None]
        return ParkPlan(min(due, default=None), ", ".join(sorted({w.what for w in self.waiting if not w.passive})))
