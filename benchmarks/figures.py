"""What a row measures with, and what it answers."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

Unit: TypeAlias = Literal["x", "us", "ms", "MB", "/s", ""]
Contender: TypeAlias = Callable[[], Awaitable[float]]
"""One turn of a contender; answers its rate, or whatever the row compares."""


@dataclass(frozen=True)
class Bar:
    """What a figure must reach."""

    value: float
    at_least: bool = True
    aim: float | None = None

    def met(self, value: float) -> bool:
        return value >= self.value if self.at_least else value <= self.value

    def __str__(self) -> str:
        said = f"{'>=' if self.at_least else '<='} {self.value:g}"
        return said if self.aim is None else f"{said} (aim {self.aim:g})"


@dataclass(frozen=True)
class Figure:
    """One line of the table. Without a bar it is there for information."""

    title: str
    value: float
    unit: Unit
    bar: Bar | None = None
    details: Mapping[str, float] = field(default_factory=dict[str, float])
    """What the value comes from, by a label that names its unit."""

    @property
    def ok(self) -> bool:
        return self.bar is None or self.bar.met(self.value)


class Row(Protocol):
    """A question: `measure` takes turns with the raw limit and answers one figure or several."""

    @property
    def name(self) -> str: ...

    def measure(self, bench: Bench) -> list[Figure]: ...


class Samples:
    """What the contenders answered, round by round."""

    def __init__(self, taken: Mapping[str, list[float]]) -> None:
        self._taken = taken

    def median(self, name: str) -> float:
        return statistics.median(self._taken[name])

    def ratio(self, one: str, other: str) -> float:
        """The median of the rounds' ratios: a machine that slows down in the middle slows both of a round."""
        return statistics.median(a / b for a, b in zip(self._taken[one], self._taken[other], strict=True))


class Bench:
    """The size of the run, a folder on a real disk, and a way to say what is going on."""

    def __init__(self, folder: Path, *, quick: bool, say: Callable[[str], None]) -> None:
        self.folder, self.quick, self.say = folder, quick, say
        self.rounds = 2 if quick else 7
        self._files = count()

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def file(self, name: str) -> Path:
        """A path at which nothing is yet."""
        return self.folder / f"{name}-{next(self._files)}.db"

    async def alternate(self, contenders: Mapping[str, Contender]) -> Samples:
        """A B C, A B C, …: one round to warm up, the others count."""
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(self.rounds + 1):
            for name, contender in contenders.items():
                self.say(f"round {turn} of {self.rounds}: {name}")
                gc.collect()
                answer = await contender()
                if turn:
                    taken[name].append(answer)
        return Samples(taken)
