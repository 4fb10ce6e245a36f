"""Which of the engines that serve a model is asked, and who comes next if it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class Weighed(Protocol):
    """Something that gets a share of the calls."""

    @property
    def weight(self) -> float: ...


W = TypeVar("W", bound=Weighed)


def choose(candidates: Sequence[W], point: float) -> list[W]:
    """All candidates in the order in which to ask them: the first is drawn by weight, the others follow, the heaviest first.

    Args:
        point: what chance says, from 0 to below 1.
    """
    if len(candidates) < 2:
        return list(candidates)
    left = point * sum(candidate.weight for candidate in candidates)
    first = 0
    for first, candidate in enumerate(candidates):  # noqa: B007 - the last one it is when rounding left a crumb
        left -= candidate.weight
        if left < 0:
            break
    rest = [candidate for i, candidate in enumerate(candidates) if i != first]
    return [candidates[first], *sorted(rest, key=lambda candidate: -candidate.weight)]
