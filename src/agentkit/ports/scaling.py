"""Scaling: how much work there is for workers, and the number of replicas that do it. What follows from the one for the other is policy.

Laws of a signal (each is a test in `agentkit.testing.scaling`):

- Work in flight counts until it is answered: a busy worker is never reported as idle, or a scale-down would kill it.
- What waits counts at once. What is delayed is told apart until it is due, though no worker is there to ask for it: else nobody would
  call for one. Parked runs and dead letters count nowhere.
- Whoever samples is told the same: the figures are those of all workers together.
- A sample that could not be taken says so. It tells the last figures with their own time, or none at all: never zero.
- A worker that retired, or whose beat stood still for a lease, is not alive; a process that only submits is no worker.
- Sampling changes nothing, and its round trips do not grow with what waits.

Laws of a target:

- `read` after `scale` sees it, whoever reads; `scale` to the number that is there already changes nothing.
- `scale` stays between `min_replicas` and `max_replicas`, and says what it did; a negative number is refused, nothing changed.

An implementation holds no policy: no smoothing, no stabilisation, no guess about figures that it does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Load(NamedTuple):
    """The work for one `name@version`, and who does it."""

    waiting: int = 0
    """Tickets that a worker may take now."""
    in_flight: int = 0
    """Taken and not answered: each holds a slot of a worker."""
    delayed: int = 0
    """Tickets that nobody may take yet."""
    oldest_s: float = 0.0
    """Age of the oldest ticket that nobody has taken."""
    workers: int = 0
    """Living workers that serve it. One that serves several kinds counts for each."""


class Sample(NamedTuple):
    """What a signal saw of all kinds at one time."""

    at: float
    """When the figures were read, seconds since 1970. Of a stale sample that is some time ago."""
    loads: Mapping[str, Load] | None
    """By `name@version`; a kind without tickets and workers is absent. None: no figures were ever read, which is not "no work"."""
    workers: int = 0
    """Living workers of any kind, each once."""
    slots: int | None = None
    """How many runs these workers do at a time. None: not known here."""
    problem: str = ""
    """Why the figures are stale or missing. Empty: they are of now."""

    @property
    def fresh(self) -> bool:
        """The figures are of now. Otherwise they are stale, or with `loads` None missing."""
        return not self.problem

    @property
    def free_slots(self) -> int | None:
        """Slots without work, 0 or more. None: not known."""
        if self.slots is None or self.loads is None:
            return None
        return max(0, self.slots - sum(load.in_flight for load in self.loads.values()))


class ScalingSignal(Protocol):
    """How much work there is. See the module for the laws. What it reads is opened and closed by whoever made that."""

    async def sample(self) -> Sample:
        """Look now. A source that does not answer is no error here: the sample tells of it."""
        ...


class Scale(NamedTuple):
    """The replicas of a target."""

    desired: int
    """What was asked for last."""
    ready: int
    """Those that can work. Fewer while new ones start, more while old ones drain."""
    min_replicas: int
    max_replicas: int


class Scaled(NamedTuple):
    """What a `scale` did. `after` is not `asked` where a bound was in the way, and is `before` where nothing changed."""

    asked: int
    before: int
    after: int


class ScaleTarget(Protocol):
    """Something that has replicas. See the module for the laws. Raises `StoreUnavailable` when it did not answer (a `scale` may then have
    happened) and `StoreRefused` when it may not be scaled from here (nothing changed).
    """

    async def read(self) -> Scale: ...

    async def scale(self, replicas: int) -> Scaled:
        """Ask for so many replicas, or the nearest number within the bounds. Returns before they are ready.

        Raises:
            InvalidSetting: a negative number. Nothing changed.
        """
        ...
